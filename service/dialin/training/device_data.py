"""A data set where a trial trains: on the CPU the memory-mapped arrays themselves, on a GPU a copy of what is used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dialin.errors import DataError
from dialin.training.datasets import ImageData
from dialin.training.inputs import Statistics
from dialin.training.splits import Indices, stratified_split, stratified_subset

_CHUNK = 2048  # images counted at a time


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
    """What a trial trains and validates on, and the test split, which nothing but a run's `test` touches."""

    train: Split
    validation: Split
    test: Split
    classes: int
    statistics: Statistics


def place(data: ImageData, device: str, validation_fraction: float, samples: int | None, split_seed: int) -> Splits:
    """The three splits of a data set on a device. Training and validation are cut from the published training split,
    class by class, by `split_seed`; `samples` of it are used, None: all. Raises DataError when none is left to validate
    on."""
    used = stratified_subset(data.y_train, samples or len(data.y_train), split_seed)
    rest, held = stratified_split(data.y_train[used], validation_fraction, split_seed)
    if not len(held):
        raise DataError(
            f"no image to validate on: of the {len(used)} training images in use no class has two; "
            "use more of them (objective.samples)"
        )
    train = _split(data.x_train, data.y_train, used[rest], device)
    return Splits(
        train=train,
        validation=_split(data.x_train, data.y_train, used[held], device),
        test=_split(data.x_test, data.y_test, None, device),
        classes=data.classes,
        statistics=statistics_of(train),
    )


def _split(images: NDArray[np.uint8], labels: NDArray[np.int64], rows: Indices | None, device: str) -> Split:
    if device == "cpu":
        # No copy: the pages of the file are shared by all trials of the machine.
        return Split(
            torch.from_numpy(images), torch.from_numpy(labels), None if rows is None else torch.from_numpy(rows)
        )
    chosen = slice(None) if rows is None else rows
    return Split(torch.from_numpy(images[chosen]).to(device), torch.from_numpy(labels[chosen]).to(device))


def statistics_of(split: Split) -> Statistics:
    """Mean and deviation of the channels and the mean image, counted a part at a time: as float the whole set would be
    four times its size."""
    sums = torch.zeros(split.images.shape[1:], dtype=torch.float64, device=split.images.device)
    squares = torch.zeros_like(sums)
    for start in range(0, len(split), _CHUNK):
        images = split.take(slice(start, start + _CHUNK))[0].double()
        sums += images.sum(0)
        squares += images.square().sum(0)
    mean_image = sums / len(split)
    means = mean_image.mean((1, 2))
    variances = (squares / len(split)).mean((1, 2)) - means**2
    stds = torch.where(variances > 1e-9, variances.clamp_min(0).sqrt(), torch.ones_like(variances))
    return Statistics(means.float().view(1, -1, 1, 1), stds.float().view(1, -1, 1, 1), mean_image.float()[None])
