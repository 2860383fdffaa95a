"""A data set where a trial trains: on the CPU the memory-mapped arrays themselves, on a GPU a copy of what is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.training.datasets import ImageData
from service.training.splits import Indices, stratified_split, stratified_subset

_CHUNK = 4096  # images counted at a time


@dataclass(frozen=True)
class Split:
    """Images (n, c, h, w) uint8 and labels (n,) int64 on one device. `rows`: which of them belong to the split; None:
    all."""

    images: Tensor
    labels: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels if self.rows is None else self.rows)

    def take(self, which: Tensor | slice) -> tuple[Tensor, Tensor]:
        """The images and labels at these positions of the split."""
        chosen = which if self.rows is None else self.rows[which]
        return self.images[chosen], self.labels[chosen]


@dataclass(frozen=True)
class Splits:
    """What a trial trains and validates on, and the test split, which nothing but a run's `test` touches.

    `mean` and `std` (1, c, 1, 1): of each channel over the training split.
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor


def place(data: ImageData, device: str, validation_fraction: float, samples: int | None, split_seed: int) -> Splits:
    """The three splits of a data set on a device. Training and validation are cut from the published training split,
    class by class, by `split_seed`; `samples` of it are used, None: all."""
    used = stratified_subset(data.y_train, samples or len(data.y_train), split_seed)
    rest, held = stratified_split(data.y_train[used], validation_fraction, split_seed)
    train = _split(data.x_train, data.y_train, used[rest], device)
    mean, std = channel_statistics(train)
    return Splits(
        train=train,
        validation=_split(data.x_train, data.y_train, used[held], device),
        test=_split(data.x_test, data.y_test, None, device),
        classes=data.classes,
        mean=mean,
        std=std,
    )


def _split(images: NDArray[np.uint8], labels: NDArray[np.int64], rows: Indices | None, device: str) -> Split:
    if device == "cpu":
        # No copy: the pages of the file are shared by all trials of the machine.
        return Split(
            torch.from_numpy(images), torch.from_numpy(labels), None if rows is None else torch.from_numpy(rows)
        )
    chosen = slice(None) if rows is None else rows
    return Split(torch.from_numpy(images[chosen]).to(device), torch.from_numpy(labels[chosen]).to(device))


def channel_statistics(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, (1, c, 1, 1); a constant channel has deviation 1."""
    channels = split.images.shape[1]
    counts = torch.zeros(channels, 256, dtype=torch.float64, device=split.images.device)
    for start in range(0, len(split), _CHUNK):
        images, _ = split.take(slice(start, start + _CHUNK))
        for channel in range(channels):
            counts[channel] += torch.bincount(images[:, channel].reshape(-1), minlength=256)
    values = torch.arange(256, dtype=torch.float64, device=counts.device)
    shares = counts / counts.sum(1, keepdim=True)
    means = shares @ values
    variances = (shares * (values[None] - means[:, None]) ** 2).sum(1)
    stds = torch.where(variances > 0, variances.sqrt(), torch.ones_like(variances))
    return means.float().view(1, channels, 1, 1), stds.float().view(1, channels, 1, 1)
