"""Optimizers, schedules and augmentation, proved on numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from service.spec.knobs import CATALOGUE
from service.training.augmentation import augment, crop, flip
from service.training.optimizers import OPTIMIZERS, build_optimizer
from service.training.schedules import SCHEDULES, Plateau, lr_factor

BASE = {"lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}


def after_steps(steps=1, weight=2.0, **changes):
    """A weight after some steps down a constant gradient of 1."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    optimizer = build_optimizer(model, {**BASE, **changes})
    for _ in range(steps):
        optimizer.zero_grad()
        model.weight.sum().backward()
        optimizer.step()
    return model.weight.item()


def test_registries_are_the_catalogue():
    assert set(OPTIMIZERS) == set(CATALOGUE["optimizer"].choices)
    assert set(SCHEDULES) == set(CATALOGUE["schedule"].choices)


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        ({"optimizer": "sgd"}, 1, 1.9),
        ({"optimizer": "sgd", "momentum": 0.9}, 2, 2 - 0.1 - 0.19),
        ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, 1, 2 - 0.19),
        ({"optimizer": "sgd", "momentum": 0.0, "nesterov": True}, 1, 1.9),
        ({"optimizer": "sgd", "weight_decay": 0.5}, 1, 2 - 0.1 * (1 + 0.5 * 2)),
        ({"optimizer": "adam"}, 1, 1.9),
        ({"optimizer": "adam", "weight_decay": 0.5}, 1, 1.9),  # in the gradient, whose size Adam takes out
        ({"optimizer": "adamw", "weight_decay": 0.5}, 1, 2 * (1 - 0.1 * 0.5) - 0.1),
        ({"optimizer": "rmsprop"}, 1, 2 - 0.1 / math.sqrt(0.01)),
        ({"optimizer": "rmsprop", "momentum": 0.9}, 2, 2 - 1 - (0.9 + 0.1 / math.sqrt(0.0199))),
    ],
)
def test_one_rule_a_row(changes, steps, expected):
    assert after_steps(steps, **changes) == pytest.approx(expected, rel=1e-4)


def test_weight_decay_spares_biases_and_normalizations():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = build_optimizer(model, {**BASE, "optimizer": "adamw", "weight_decay": 0.3})
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in model.parameters()] == [0.3, 0, 0, 0]


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("fixed", [1, 1, 1, 1, 1]),
        ("plateau", [1, 1, 1, 1, 1]),
        ("step", [1, 1, 0.1, 0.01, 0.01]),
        ("cosine", [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0]),
    ],
)
def test_schedules(schedule, factors):
    assert [lr_factor(schedule, step, 100, 0) for step in (0, 25, 50, 75, 100)] == pytest.approx(factors)


def test_warmup_is_a_line_up_to_the_schedule():
    assert [lr_factor("fixed", step, 100, 4) for step in range(6)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert lr_factor("cosine", 50, 100, 4) == lr_factor("cosine", 50, 100, 0)


def test_plateau_waits_and_then_lowers():
    plateau, factors = Plateau(), []
    for value in (1.0, 0.9, 0.95, 0.95, 0.95, 0.8, 0.9, 0.9, 0.9):
        plateau.observe(value)
        factors.append(plateau.factor)
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01])


def numbered(n=64, side=16):
    """Images whose pixels tell where they came from: 1 + row * side + column."""
    grid = torch.arange(1, side * side + 1).view(1, 1, side, side)
    return grid.expand(n, 2, side, side).clone()


def test_crop_moves_each_image_by_its_own_offset():
    images = numbered()
    moved = crop(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    offsets = set()
    for image in moved:
        assert torch.equal(image[0], image[1])  # channels move together
        row, column = divmod(int(image[0, 8, 8]) - 1, 16)
        dy, dx = row - 8, column - 8
        offsets.add((dy, dx))
        for y, x in ((0, 0), (15, 15), (3, 12)):
            inside = 0 <= y + dy < 16 and 0 <= x + dx < 16
            assert int(image[0, y, x]) == (1 + (y + dy) * 16 + x + dx if inside else 0)
    assert {abs(d) for pair in offsets for d in pair} == {0, 1, 2}
    assert len(offsets) > 10


def test_flip_mirrors_about_half_of_the_images():
    images = numbered(400)
    mirrored = [
        torch.equal(image, original.flip(2))
        for image, original in zip(flip(images, torch.Generator().manual_seed(0)), images, strict=True)
    ]
    untouched = [
        torch.equal(image, original)
        for image, original in zip(flip(images, torch.Generator().manual_seed(0)), images, strict=True)
    ]
    assert all(a != b for a, b in zip(mirrored, untouched, strict=True))
    assert 150 < sum(mirrored) < 250


def test_augmentation_follows_its_generator_and_its_name():
    images = numbered().to(torch.uint8)
    same = [augment(images, "crop+flip", torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
    assert same[0].dtype == torch.uint8
    assert augment(images, "none", torch.Generator()) is images
