"""A data set on the device of a trial: on the CPU the memory-mapped arrays, on a GPU a copy of the images in use."""

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

_CHUNK = 2048  # images that statistics are computed of at a time


@dataclass(frozen=True)
class Split:
    """A split of a data set on one device."""

    images: Tensor
    """Images (n, c, h, w) uint8."""
    labels: Tensor
    """Labels (n,) int64."""
    rows: Tensor | None = None
    """Indices of the images that belong to the split; None: all."""

    def __len__(self) -> int:
        return len(self.labels if self.rows is None else self.rows)

    def take(self, which: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Return the images and labels at these positions of the split."""
        chosen = which if self.rows is None else self.rows[which]
        return self.images[chosen], self.labels[chosen]


@dataclass(frozen=True)
class Splits:
    """The three splits of a trial."""

    train: Split
    """What the trial trains on."""
    validation: Split
    """What each epoch is evaluated on."""
    test: Split
    """What only `ImageRun.test` reads."""
    classes: int
    """Number of classes."""
    statistics: Statistics
    """Statistics of the training split."""


def place(data: ImageData, device: str, validation_fraction: float, samples: int | None, split_seed: int) -> Splits:
    """Return the three splits of a data set on a device.

    Training and validation split divide the published training split, class by class, by `split_seed`; `samples` of its
    images are used, None: all. Raises DataError when no image is left to validate on.
    """
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
        # Without a copy, all trials on the machine share the pages of the file.
        return Split(
            torch.from_numpy(images), torch.from_numpy(labels), None if rows is None else torch.from_numpy(rows)
        )
    chosen = slice(None) if rows is None else rows
    return Split(torch.from_numpy(images[chosen]).to(device), torch.from_numpy(labels[chosen]).to(device))


def statistics_of(split: Split) -> Statistics:
    """Return the statistics of a split, computed a part at a time: as floats the split takes 8 times the memory."""
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
