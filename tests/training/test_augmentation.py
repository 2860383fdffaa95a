"""Augmentation, proved on images whose pixels tell where they came from."""

from __future__ import annotations

import pytest
import torch

from dialin.specification.catalogue import CATALOGUE
from dialin.training.augmentation import AUGMENTATIONS, augment, brightness, crop, cutout, flip, noise, rotate


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def numbered(n=64, side=16):
    """Pixels 1 + row * side + column, two channels."""
    grid = torch.arange(1, side * side + 1).view(1, 1, side, side)
    return grid.expand(n, 2, side, side).clone()


def grey(n=100, value=100, side=16):
    return torch.full((n, 1, side, side), value, dtype=torch.uint8)


def test_the_catalogue_names_them():
    assert CATALOGUE["augmentation"].parts == tuple(AUGMENTATIONS)


def test_crop_moves_each_image_by_its_own_offset():
    moved = crop(numbered(), generator())
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
    flipped = flip(images, generator())
    mirrored = (flipped == images.flip(3)).flatten(1).all(1)
    untouched = (flipped == images).flatten(1).all(1)
    assert torch.equal(mirrored, ~untouched)
    assert 150 < int(mirrored.sum()) < 250


def test_rotate_turns_a_bar_by_up_to_fifteen_degrees_either_way():
    bar = torch.zeros(200, 1, 33, 33, dtype=torch.uint8)
    bar[:, :, 16, :] = 200
    turned = rotate(bar, generator())
    heights = torch.arange(33.0)
    mass = turned[:, 0, :, 26:30].sum(2)
    centre = (mass * heights).sum(1) / mass.sum(1) - 16
    degrees = torch.rad2deg(torch.atan2(centre, torch.tensor(11.5)))
    assert degrees.abs().max() < 16
    assert degrees.min() < -10
    assert degrees.max() > 10
    assert abs(degrees.mean()) < 2
    assert torch.allclose(turned[:, 0, 16, 16], torch.tensor(200.0), atol=40)  # the centre stays


def test_rotate_keeps_angles_on_images_that_are_not_square():
    square = torch.zeros(1, 1, 20, 40, dtype=torch.uint8)
    square[:, :, 6:14, 16:24] = 255
    turned = [rotate(square, generator(seed))[0, 0] for seed in range(5)]
    for image in turned:
        assert image.sum() == pytest.approx(64 * 255, rel=0.02)  # turned, not stretched


def test_brightness_scales_each_image():
    factors = brightness(grey(), generator()).flatten(1)
    assert torch.allclose(factors.min(1).values, factors.max(1).values)
    assert 80 <= factors.min() < 85
    assert 115 < factors.max() <= 120.001
    assert brightness(grey(value=250), generator()).max() == 255


def test_noise_has_its_deviation_on_every_pixel():
    noisy = noise(grey(), generator())
    assert noisy.std().item() == pytest.approx(255 / 20, rel=0.02)
    assert noisy.mean().item() == pytest.approx(100, abs=0.5)
    assert noise(grey(value=1), generator()).min() == 0


def test_cutout_blanks_a_square_of_half_the_side():
    cut = cutout(grey(400), generator())
    blank = (cut == 0).flatten(1).sum(1)
    assert blank.max() == 64  # 8 x 8
    assert blank.min() >= 16  # a quarter, at a corner
    assert set(cut.unique().tolist()) == {0, 100}
    rows = (cut[:, 0] == 0).any(2).float()
    assert rows.mean(0).min() > 0.1  # every row is sometimes hit


def test_it_follows_its_generator_and_its_name():
    images = grey()
    for part in AUGMENTATIONS:
        images = torch.randint(0, 256, (8, 3, 12, 10), generator=generator(), dtype=torch.uint8)
        one, same, other = (augment(images, part, generator(seed)) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)
        assert one.shape == images.shape
        assert one.min() >= 0
        assert one.max() <= 255
    every = "+".join(AUGMENTATIONS)
    assert augment(images, every, generator()).shape == images.shape
    assert augment(images, "none", generator()) is images
