"""Optimizers, penalties, schedules, losses and inputs, proved on numbers."""

from __future__ import annotations

import copy
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from dialin.specification import complete
from dialin.specification.catalogue import CATALOGUE
from dialin.training.configuration import Configuration
from dialin.training.inputs import INPUTS, Statistics
from dialin.training.losses import LOSSES
from dialin.training.optimizers import OPTIMIZERS, Penalties, build_optimizer
from dialin.training.schedules import SCHEDULES, Plateau, base_rate, learning_rate
from dialin.training.step import TrainingStep

BASE = {"lr": 0.1, "weight_decay": 0.0}


def after_steps(steps=1, weight=2.0, **changes):
    """A weight after some steps down a constant gradient of 1."""
    params = Configuration.from_params({**BASE, **changes})
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    optimizer, penalties = build_optimizer(model, params), Penalties(model, params)
    for _ in range(steps):
        optimizer.zero_grad()
        model.weight.sum().backward()
        penalties.apply_before_step(0.1)
        optimizer.step()
    return model.weight.item()


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_step_is_that_of_a_loop_written_out(name):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    other = copy.deepcopy(model)
    configuration = Configuration.from_params({**BASE, "optimizer": name, "weight_decay": 0.1, "input": "none"})
    ours, theirs = build_optimizer(model, configuration), build_optimizer(other, configuration)
    statistics = Statistics(*[torch.ones(1, 1, 1, 1)] * 3)
    step = TrainingStep(model, ours, configuration, statistics, "float32")
    labels = torch.tensor([0, 1, 1, 0])
    for number in range(5):
        images = torch.full((4, 1, 1, 3), float(number))
        theirs.zero_grad()
        functional.cross_entropy(other(images), labels).backward()
        theirs.step()
        step.take(images, labels, BASE["lr"])
        assert all(torch.equal(one, two) for one, two in zip(model.parameters(), other.parameters(), strict=True))
    assert str(ours.state_dict()) == str(theirs.state_dict())


KINDS = {"float": float, "int": int, "bool": bool, "choice": str, "parts": str}


def test_a_configuration_has_a_typed_field_for_each_knob_of_the_catalogue():
    configuration = Configuration.from_params({})
    values = {name: value for group in vars(configuration).values() for name, value in vars(group).items()}
    assert {name: type(value) for name, value in values.items()} == {
        name: KINDS[knob.kind] for name, knob in CATALOGUE.items()
    }
    assert values == complete({})


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"batch_size": "many"}, "knob batch_size: 'many' is not of type int"),
        ({"batch_size": 2.5}, "knob batch_size: 2.5 is not of type int"),
        ({"batch_size": True}, "knob batch_size: True is not of type int"),
        ({"lr": None}, "knob lr: None is not of type float"),
        ({"residual": 1}, "knob residual: 1 is not of type bool"),
        ({"activation": 3}, "knob activation: 3 is not of type str"),
    ],
)
def test_a_value_of_another_type_is_refused(params, expected):
    with pytest.raises(TypeError, match=re.escape(expected)):
        Configuration.from_params(params)


def test_numbers_are_converted_where_that_changes_no_value():
    configuration = Configuration.from_params({"batch_size": 64.0, "lr": 1})
    assert repr(configuration.optimizer.batch_size) == "64"
    assert repr(configuration.optimizer.lr) == "1.0"


def test_registries_are_the_catalogue():
    assert set(OPTIMIZERS) == set(CATALOGUE["optimizer"].choices)
    assert set(SCHEDULES) == set(CATALOGUE["schedule"].choices)
    assert set(LOSSES) == set(CATALOGUE["loss"].choices)
    assert set(INPUTS) == set(CATALOGUE["input"].choices)


@pytest.mark.parametrize(
    ("changes", "steps", "expected"),
    [
        ({"optimizer": "sgd", "momentum": 0.0}, 1, 1.9),
        ({"optimizer": "sgd", "momentum": 0.9}, 2, 2 - 0.1 - 0.19),
        ({"optimizer": "sgd", "momentum": 0.9, "nesterov": True}, 1, 2 - 0.19),
        ({"optimizer": "nesterov", "momentum": 0.9}, 1, 2 - 0.19),
        ({"optimizer": "nesterov", "momentum": 0.0}, 1, 1.9),
        ({"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.5}, 1, 2 - 0.1 * (1 + 0.5 * 2)),
        (
            {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.5, "weight_decay_form": "decoupled"},
            1,
            2 * 0.95 - 0.1,
        ),
        ({"optimizer": "adagrad"}, 2, 2 - 0.1 - 0.1 / math.sqrt(2)),
        ({"optimizer": "adam"}, 1, 1.9),
        ({"optimizer": "adam", "weight_decay": 0.5}, 1, 1.9),  # in the gradient, whose size Adam takes out
        ({"optimizer": "adam", "weight_decay": 0.5, "weight_decay_form": "decoupled"}, 1, 2 * 0.95 - 0.1),
        ({"optimizer": "adamw", "weight_decay": 0.5}, 1, 2 * 0.95 - 0.1),
        ({"optimizer": "adamw", "weight_decay": 0.5, "weight_decay_form": "decoupled"}, 1, 2 * 0.95 - 0.1),
        ({"optimizer": "rmsprop"}, 1, 2 - 0.1 / math.sqrt(0.01)),
        ({"optimizer": "rmsprop", "momentum": 0.9}, 2, 2 - 1 - (0.9 + 0.1 / math.sqrt(0.0199))),
        ({"optimizer": "sgd", "momentum": 0.0, "l1": 0.5}, 1, 2 - 0.1 * 1.5),
        ({"optimizer": "sgd", "momentum": 0.0, "l1": 0.5, "weight": -2.0}, 1, -2 - 0.1 * 0.5),
        ({"optimizer": "sgd", "momentum": 0.0, "clip_norm": 0.25}, 1, 2 - 0.1 * 0.25),
        ({"optimizer": "sgd", "momentum": 0.0, "clip_norm": 5.0}, 1, 1.9),
    ],
)
def test_one_rule_a_row(changes, steps, expected):
    assert after_steps(steps, **changes) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "nadam"])
def test_betas_reach_the_optimizer(optimizer):
    params = Configuration.from_params({**BASE, "optimizer": optimizer, "beta1": 0.5, "beta2": 0.7})
    assert build_optimizer(nn.Linear(1, 1), params).defaults["betas"] == (0.5, 0.7)


def test_nadam_looks_ahead():
    def two(optimizer):
        return after_steps(2, optimizer=optimizer, beta1=0.5)

    assert two("nadam") != pytest.approx(two("adam"), rel=1e-4)


def test_penalties_spare_biases_and_normalizations():
    params = Configuration.from_params({**BASE, "optimizer": "adamw", "weight_decay": 0.3, "l1": 1.0})
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = build_optimizer(model, params)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in model.parameters()] == [0.3, 0, 0, 0]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    Penalties(model, params).apply_before_step(0.1)
    assert [bool(p.grad.any()) for p in model.parameters()] == [True, False, False, False]


def factors(steps=(0, 25, 50, 75, 100), epochs=10, **params):
    whole = Configuration.from_params({"lr": 1.0, **params})
    return [learning_rate(whole, step, 100 // epochs, epochs) for step in steps]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"schedule": "fixed"}, [1, 1, 1, 1, 1]),
        ({"schedule": "plateau"}, [1, 1, 1, 1, 1]),
        ({"schedule": "step", "decay_every": 0.25, "decay_factor": 0.5}, [1, 0.5, 0.25, 0.125, 0.0625]),
        ({"schedule": "multistep"}, [1, 1, 0.1, 0.01, 0.01]),
        ({"schedule": "exponential", "final_factor": 1e-4}, [1, 0.1, 0.01, 0.001, 0.0001]),
        ({"schedule": "inverse", "final_factor": 0.2}, [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]),
        ({"schedule": "polynomial", "power": 2.0}, [1, 0.5625, 0.25, 0.0625, 0]),
        ({"schedule": "sigmoid"}, [0.9933, 0.9241, 0.5, 0.0759, 0.0067]),
        ({"schedule": "cosine"}, [1, 0.5 + math.sqrt(0.125), 0.5, 0.5 - math.sqrt(0.125), 0]),
        ({"schedule": "sgdr", "cycle_epochs": 5.0}, [1, 0.5, 1, 0.5, 1]),
        ({"schedule": "cyclical", "cycle_epochs": 5.0, "cycle_floor": 0.2}, [0.2, 1, 0.2, 1, 0.2]),
        (
            {"schedule": "cyclical", "cycle_epochs": 5.0, "cycle_floor": 0.0, "cycle_shape": "triangular2"},
            [0, 1, 0, 0.5, 0],
        ),
        (
            {"schedule": "cyclical", "cycle_epochs": 5.0, "cycle_floor": 0.0, "cycle_shape": "exp_range"},
            [0, 0.01**0.25, 0, 0.01**0.75, 0],
        ),
    ],
)
def test_schedules(params, expected):
    assert factors(**params) == pytest.approx(expected, abs=1e-4)


def test_sgdr_cycles_grow():
    """Cycles of 2, 4 and 8 epochs: restarts after 2 and 6 of 14."""
    rates = factors(range(0, 140, 5), epochs=10, schedule="sgdr", cycle_epochs=2.0, cycle_growth=2.0)
    restarts = [index * 5 for index in range(1, len(rates)) if rates[index] > rates[index - 1] + 0.2]
    assert restarts == [20, 60]
    assert rates[4] == rates[12] == pytest.approx(1)
    assert rates[8] == pytest.approx(0.5)  # half of the second cycle


def test_one_cycle_rises_and_falls_far():
    rates = factors((0, 15, 30, 65, 100), schedule="one_cycle")
    assert rates == pytest.approx([1 / 25, (1 + 1 / 25) / 2, 1, 0.5, 4e-6], rel=1e-2)


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_every_schedule_keeps_to_its_bounds_and_its_floor(schedule):
    rates = factors(range(101), schedule=schedule, cycle_growth=1.5)
    assert all(0 <= rate <= 1 + 1e-9 for rate in rates)
    assert min(factors(range(101), schedule=schedule, min_lr=0.3)) >= 0.3


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"warmup_steps": 4}, [0.25, 0.5, 0.75, 1, 1]),
        ({"warmup_epochs": 0.4}, [0.25, 0.5, 0.75, 1, 1]),
        ({"warmup_steps": 4, "warmup": "quadratic"}, [1 / 16, 1 / 4, 9 / 16, 1, 1]),
        ({"warmup_steps": 4, "warmup": "none"}, [1, 1, 1, 1, 1]),
        ({"warmup_steps": 4, "min_lr": 0.5}, [0.5, 0.5, 0.75, 1, 1]),
    ],
)
def test_warmup(params, expected):
    assert factors(range(5), schedule="fixed", **params) == pytest.approx(expected)


@pytest.mark.parametrize(("scaling", "rate"), [("none", 0.1), ("linear", 0.4), ("square_root", 0.2)])
def test_the_rate_follows_the_batch_size(scaling, rate):
    def rate_at(batch_size):
        params = {"lr": 0.1, "batch_size": batch_size, "lr_scaling": scaling}
        return base_rate(Configuration.from_params(params).optimizer)

    assert rate_at(512) == pytest.approx(rate)
    assert rate_at(128) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("min", (1.0, 0.9, 0.95, 0.95, 0.95, 0.8, 0.9, 0.9, 0.9), [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01]),
        ("max", (0.1, 0.2, 0.15, 0.15, 0.15, 0.3), [1, 1, 1, 1, 0.1, 0.1]),
        ("min", (0.1, 0.2, 0.3, 0.4, 0.5), [1, 1, 1, 0.1, 0.1]),  # min on an accuracy that rises
    ],
)
def test_plateau_waits_and_then_lowers(mode, values, expected):
    plateau, found = Plateau(patience=2, mode=mode), []
    for value in values:
        plateau.observe(value)
        found.append(plateau.factor)
    assert found == pytest.approx(expected)


def test_losses():
    logits, labels = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 1.0]]), torch.tensor([0, 2])
    expected = functional.cross_entropy(logits, labels)
    assert torch.equal(LOSSES["cross_entropy"](logits, labels, 0.0), expected)
    assert LOSSES["cross_entropy"](logits, labels, 0.3) > expected
    one_hot = functional.one_hot(labels, 3).float()
    assert torch.allclose(LOSSES["mean_squared_error"](logits, labels, 0.0), (logits - one_hot).square().mean())
    smooth = 0.7 * one_hot + 0.1
    assert torch.allclose(LOSSES["mean_squared_error"](logits, labels, 0.3), (logits - smooth).square().mean())


def test_inputs():
    images = torch.tensor([[[[0.0, 100.0], [200.0, 255.0]]]])
    of = Statistics(
        torch.full((1, 1, 1, 1), 50.0), torch.full((1, 1, 1, 1), 25.0), torch.tensor([[[[1.0, 2], [3, 4]]]])
    )
    expected = {
        "none": [0, 100, 200, 255],
        "scale": [0, 100 / 255, 200 / 255, 1],
        "minus_mean_image": [-1, 98, 197, 251],
        "minus_channel_mean": [-50, 50, 150, 205],
        "standardize": [-2, 2, 6, 8.2],
    }
    for name, values in expected.items():
        assert INPUTS[name](images, of).flatten().tolist() == pytest.approx(values)
