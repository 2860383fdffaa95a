"""Seeded, stratified splits: each class contributes in proportion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified_split(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Indices, Indices]:
    """Return the sorted indices of the rest and of the part held out.

    Held out is the fraction `share` of each class, but at least one image of each class that has two. The result
    depends on labels, share and seed only.
    """
    generator = np.random.default_rng(seed)
    held: list[Indices] = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(share * len(members)), 1), len(members) - 1)
        held.append(generator.permutation(members)[:count])
    chosen = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def stratified_subset(labels: NDArray[np.int64], count: int, seed: int) -> Indices:
    """Return sorted indices of `count` images in the classes' proportions; all indices when there are no more."""
    if count >= len(labels):
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    # Each image's position within its class, relative to the size of the class: the lowest come from all classes alike.
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = order[labels[order] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.lexsort((order, place))[:count])
