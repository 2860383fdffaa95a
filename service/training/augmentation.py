"""Random changes to a batch of training images, all images at once, on whatever device they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor
from torch.nn import functional

PADDING_SHARE = 8  # a crop moves by at most an eighth of the side


def crop(images: Tensor, generator: Generator) -> Tensor:
    """Each image (n, c, h, w) moved by its own offset, up to an eighth of the side; what comes in is 0."""
    count, _, height, width = images.shape
    pad_y, pad_x = max(1, height // PADDING_SHARE), max(1, width // PADDING_SHARE)
    padded = functional.pad(images, (pad_x, pad_x, pad_y, pad_y))
    rows = _offsets(count, pad_y, generator, images) + torch.arange(height, device=images.device)
    columns = _offsets(count, pad_x, generator, images) + torch.arange(width, device=images.device)
    index = torch.arange(count, device=images.device)[:, None, None]
    # Indexing with arrays around a slice puts the sliced axis last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def flip(images: Tensor, generator: Generator) -> Tensor:
    """Each image (n, c, h, w) mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(mirrored, images.flip(3), images)


AUGMENTATIONS: Mapping[str, Callable[[Tensor, Generator], Tensor]] = {"crop": crop, "flip": flip}


def augment(images: Tensor, parts: str, generator: Generator) -> Tensor:
    """The batch (n, c, h, w) uint8 after the augmentations that `parts` names, joined by +, or as it is for "none"."""
    if parts != "none":
        for part in parts.split("+"):
            images = AUGMENTATIONS[part](images, generator)
    return images


def _offsets(count: int, padding: int, generator: Generator, like: Tensor) -> Tensor:
    return torch.randint(0, 2 * padding + 1, (count, 1), generator=generator, device=like.device)
