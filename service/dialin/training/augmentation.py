"""Augmentations by name: random changes to a batch of training images, all images at once, on the images' device.

Each takes images (n, c, h, w), uint8 or float from 0 to 255, and a generator on their device, and returns images of the
same shape and range. A new augmentation is a function here, its row in `AUGMENTATIONS`, its name among the parts of the
knob `augmentation` in `specification/catalogue/network.py`, and a test in `tests/training/test_augmentation.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor
from torch.nn import functional

PADDING_DIVISOR = 8
"""A crop moves an image by at most this part of its side: an eighth."""
MOST_DEGREES = 15.0
"""Largest angle of a rotation."""
BRIGHTNESS = 0.2
"""Largest relative change of brightness."""
NOISE_STD = 255 / 20
"""Standard deviation of the noise, in pixel values."""


def crop(images: Tensor, generator: Generator) -> Tensor:
    """Move each image by an offset of its own, up to an eighth of the side; pixels from outside are 0."""
    count, _, height, width = images.shape
    pad_y, pad_x = max(1, height // PADDING_DIVISOR), max(1, width // PADDING_DIVISOR)
    padded = functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
    rows = _offsets(count, 2 * pad_y + 1, generator) + torch.arange(height, device=images.device)
    columns = _offsets(count, 2 * pad_x + 1, generator) + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Indexing with arrays around a slice puts the sliced axis last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Mirror each image left to right with probability one half."""
    mirrored = _uniform(images, generator) < 0.5
    return torch.where(mirrored, images.flip(3), images)


def rotate(images: Tensor, generator: Generator) -> Tensor:
    """Turn each image about its centre by its own angle, up to 15 degrees, bilinear; pixels from outside are 0."""
    angles = (2 * _uniform(images, generator).flatten() - 1) * math.radians(MOST_DEGREES)
    height, width = images.shape[2:]
    cos, sin, none = angles.cos(), angles.sin(), torch.zeros_like(angles)
    # Grid coordinates are relative to each side, so a rotation of the pixels needs the ratio of the sides.
    first = torch.stack([cos, -sin * height / width, none], dim=1)
    second = torch.stack([sin * width / height, cos, none], dim=1)
    grid = functional.affine_grid(torch.stack([first, second], dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images.float(), grid, align_corners=False)


def brightness(images: Tensor, generator: Generator) -> Tensor:
    """Multiply each image by a factor of its own, 0.8 to 1.2, clipped at 0 and 255."""
    factor = 1 + BRIGHTNESS * (2 * _uniform(images, generator) - 1)
    return (images.float() * factor).clamp(0, 255)


def noise(images: Tensor, generator: Generator) -> Tensor:
    """Add normal noise with a standard deviation of a twentieth of the range to every pixel, clipped at 0 and 255."""
    drawn = torch.randn(images.shape, generator=generator, device=images.device)
    return (images.float() + NOISE_STD * drawn).clamp(0, 255)


def cutout(images: Tensor, generator: Generator) -> Tensor:
    """Set a square of half the side, around a random centre, to 0 in each image (DeVries and Taylor 2017)."""
    count, _, height, width = images.shape
    half = max(1, min(height, width) // 2) / 2
    rows = (torch.arange(height, device=images.device) - _offsets(count, height, generator) + 0.5).abs() <= half
    columns = (torch.arange(width, device=images.device) - _offsets(count, width, generator) + 0.5).abs() <= half
    return images.masked_fill(rows[:, None, :, None] & columns[:, None, None, :], 0)


AUGMENTATIONS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {
    "crop": crop,
    "flip": flip,
    "rotate": rotate,
    "brightness": brightness,
    "noise": noise,
    "cutout": cutout,
}


def augment(images: Tensor, parts: str, generator: Generator) -> Tensor:
    """Return the batch after the augmentations in `parts`, names joined by +; unchanged for "none"."""
    if parts != "none":
        for part in parts.split("+"):
            images = AUGMENTATIONS[part](images, generator)
    return images


def _offsets(count: int, below: int, generator: Generator) -> Tensor:
    """Whole numbers (count, 1) from 0 to `below` - 1."""
    return torch.randint(0, below, (count, 1), generator=generator, device=generator.device)


def _uniform(images: Tensor, generator: Generator) -> Tensor:
    """Numbers (n, 1, 1, 1) from 0 to 1, one for each image."""
    return torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)
