"""Normalizations of the pixels before the network sees them, by name.

A new one is a row in `INPUTS`, its name among the choices of the knob `input` in `specification/catalogue/network.py`,
and a row in `tests/training/test_steps.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Statistics of the training split, in pixel values from 0 to 255."""

    mean: Tensor
    """Mean of each channel (1, c, 1, 1)."""
    std: Tensor
    """Standard deviation of each channel (1, c, 1, 1); 1 for a constant channel, so that one can divide by it."""
    mean_image: Tensor
    """Mean image (1, c, h, w)."""


INPUTS: Mapping[str, Callable[[Tensor, Statistics], Tensor]] = {
    "none": lambda images, _statistics: images,
    "scale": lambda images, _statistics: images / 255,
    "minus_mean_image": lambda images, statistics: images - statistics.mean_image,
    "minus_channel_mean": lambda images, statistics: images - statistics.mean,
    "standardize": lambda images, statistics: (images - statistics.mean) / statistics.std,
}


def prepare_images(images: Tensor, kind: str, statistics: Statistics) -> Tensor:
    """Return images (n, c, h, w) with pixels from 0 to 255 as the network gets them: float, channels last.

    `kind` is a name in `INPUTS`.
    """
    return INPUTS[kind](images.float(), statistics).contiguous(memory_format=torch.channels_last)
