"""The learning curves of all trials as the training set of a surrogate, kept up to date from report to report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.search.models.embedding import Embedding
from dialin.search.models.encoding import Array
from dialin.search.records import Observation, Observations

LOG_OFFSET = 0.1
"""Offset of the logarithm in `warp_targets`, as a fraction of (best - median): differences near the best value that are
smaller than this are hardly stretched further. Measured: the transform took regret from 0.053 to 0.030 (README.md)."""
CELL_WIDTH = 0.05
"""Width of a cell of feature space: when there are too many observations, one of each cell is kept. Not tuned."""
LATE = 0.3
"""Position on the log scale of epochs, from 0 (epoch 1) to 1 (full length), from which observations are kept first. Not
tuned."""
LARGEST_TARGET = 1e6
"""Targets of a user's own function are scaled down to this, so that their differences do not overflow."""


@dataclass(frozen=True)
class TrainingSet:
    """The observations that a surrogate is given.

    `x` (n, features + 2): the features of the configuration, the position of the epoch on a log scale (0: epoch 1, 1:
    full length), and 1 for a trial of another study; `y` (n,): standardized targets, larger is better.
    """

    x: Array
    y: Array


@dataclass(frozen=True)
class _Curve:
    """One trial.

    `reports`: the number of its reports; `x` (n, features + 2): its observations; `y` (n,): their values, larger is
    better, NaN from the epoch on at which it diverged; `cells` (n,): the cell that each observation lies in.
    """

    reports: int
    x: Array
    y: Array
    cells: NDArray[np.int64]


class LearningCurves:
    """The learning curves of one study, and of finished studies that it learns from (`others`). Not thread safe."""

    def __init__(self, plan: Plan, embedding: Embedding, others: Sequence[Observation]) -> None:
        self._embedding = embedding
        self._log_length = math.log(max(2, plan.spec.budget.epochs))
        self._always_used = (*plan.rungs, plan.spec.budget.epochs)
        self._sign = 1.0 if plan.spec.objective.mode == "max" else -1.0
        # A hash of cells by sums with these numbers; the overflow of the sums wraps around and does no harm.
        self._mixing = np.random.default_rng(0).integers(1, 2**62, embedding.count + 2)
        self._features: dict[int, Array] = {}
        self._curves: dict[int, _Curve] = {}
        self._others = [self._curve(one, embedding.features(one.params), 1.0) for one in others]

    @property
    def others_count(self) -> int:
        """The number of trials of other studies."""
        return len(self._others)

    def update(self, observations: Observations) -> list[int]:
        """Take in what was reported since the last call. Returns the numbers of the trials that have reported something
        and have not failed."""
        known = []
        for number, observation in observations.items():
            if not observation.values or observation.state is TrialState.FAILED:
                continue
            known.append(number)
            curve = self._curves.get(number)
            if curve is None or curve.reports != len(observation.values):
                self._curves[number] = self._curve(observation, self.features(number, observation), 0.0)
        return known

    def features(self, number: int, observation: Observation) -> Array:
        """(features,) The features of one trial of this study, computed once."""
        if number not in self._features:
            self._features[number] = self._embedding.features(observation.params)
        return self._features[number]

    def best(self, known: Sequence[int], count: int) -> list[int]:
        """Of the trials `known`, at most `count` with the best last values; those that diverged come last."""
        last = np.array([self._curves[number].y[-1] for number in known])
        order = np.argsort(-np.where(np.isfinite(last), last, -np.inf), kind="stable")
        return [known[index] for index in order[:count]]

    def training_set(self, known: Sequence[int], most: int, generator: np.random.Generator) -> TrainingSet | None:
        """At most `most` observations of the trials `known` and of the other studies; None where their targets do not
        differ."""
        own = [self._curves[number] for number in known]
        x = np.concatenate([curve.x for curve in (*own, *self._others)])
        # Each study on a scale of its own: another study's metric may have another range.
        y = np.concatenate(
            [warp_targets([curve.y for curve in own]), warp_targets([curve.y for curve in self._others])]
        )
        if len(y) < 2 or np.ptp(y) == 0:
            return None
        cells = np.concatenate([curve.cells for curve in (*own, *self._others)])
        kept = subsample_observations(y, x[:, -2] > LATE, cells, most, generator)
        return TrainingSet(x[kept], y[kept])

    def _curve(self, observation: Observation, features: Array, is_other: float) -> _Curve:
        epochs = self._used_epochs(observation)
        x = np.empty((len(epochs), len(features) + 2))
        x[:, :-2] = features
        x[:, -2] = np.log(epochs) / self._log_length
        x[:, -1] = is_other
        cells = np.round(x / CELL_WIDTH).astype(np.int64) @ self._mixing
        return _Curve(len(observation.values), x, self._best_so_far(observation, epochs), cells)

    def _best_so_far(self, observation: Observation, epochs: Sequence[int]) -> Array:
        """(n,) The best value up to each of the epochs; NaN from the epoch on at which the trial diverged."""
        reported = sorted(observation.values)
        values = np.maximum.accumulate([self._sign * observation.values[epoch] for epoch in reported])  # NaN stays
        values[~np.isfinite(values)] = np.nan
        return values[np.searchsorted(reported, epochs)]

    def _used_epochs(self, observation: Observation) -> list[int]:
        """The epochs of a trial that become observations: powers of two, rungs, and the last one."""
        last = max(observation.values)
        powers = {2**power for power in range(last.bit_length())}
        return sorted(epoch for epoch in powers | {*self._always_used, last} if epoch in observation.values)


def warp_targets(curves: Sequence[Array]) -> Array:
    """(n,) The values of all curves, log-transformed by their distance to the best, then standardized.

    The transform stretches differences near the best value, where the ranking matters. A value that is not finite
    counts as the worst of all.
    """
    values = np.concatenate(curves) if curves else np.zeros(0)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros_like(values)
    values = np.where(np.isfinite(values), values, finite.min())
    # The logarithm turns the divisor into a constant, which standardizing takes away.
    values = values / max(1.0, float(np.abs(values).max()) / LARGEST_TARGET)
    best = values.max()
    offset = LOG_OFFSET * (best - np.median(values)) + 1e-12
    warped: Array = -np.log(best - values + offset)
    deviation = float(warped.std())
    return (warped - warped.mean()) / deviation if deviation > 0 else np.zeros_like(warped)


def subsample_observations(
    y: Array, late: NDArray[np.bool_], cells: NDArray[np.int64], most: int, generator: np.random.Generator
) -> NDArray[np.int_]:
    """The indices of at most `most` observations, of those with targets `y` (n,).

    When there are more: of each cell (n,) the best one; of these half of `most` by their targets, those that are
    `late` (n,) first, and the other half at random.
    """
    if len(y) <= most:
        return np.arange(len(y))
    order = np.argsort(-(y + 2 * late), kind="stable")
    _, first = np.unique(cells[order], return_index=True)
    order = order[np.sort(first)]
    if len(order) <= most:
        return order
    best, others = order[: most // 2], order[most // 2 :]
    return np.concatenate([best, generator.choice(others, most - len(best), replace=False)])
