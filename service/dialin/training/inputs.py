"""What is done to the pixels before the network sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Of the training split, in pixel values 0 to 255: mean and deviation of each channel (1, c, 1, 1), and the mean
    image (1, c, h, w). A constant channel has deviation 1."""

    mean: Tensor
    std: Tensor
    mean_image: Tensor


INPUTS: Mapping[str, Callable[[Tensor, Statistics], Tensor]] = {
    "none": lambda images, _of: images,
    "scale": lambda images, _of: images / 255,
    "minus_mean_image": lambda images, of: images - of.mean_image,
    "minus_channel_mean": lambda images, of: images - of.mean,
    "standardize": lambda images, of: (images - of.mean) / of.std,
}


def prepared(images: Tensor, kind: str, statistics: Statistics) -> Tensor:
    """What the network gets of images with pixels from 0 to 255: as the knob `input` has them, float, channels last."""
    return INPUTS[kind](images.float(), statistics).contiguous(memory_format=torch.channels_last)
