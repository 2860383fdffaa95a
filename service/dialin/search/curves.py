"""The learning curves of all trials as a model sees them: observations at a few epochs each, kept up to date."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.search.encoding import Array, Encoding
from dialin.search.records import Seen

NEAR_BEST = 0.1  # of the way from the median to the best: finer differences there still count
SAME = 0.05  # observations that agree so far in every coordinate are one to a model of limited size
LATE = 0.3  # of the logarithm of full length


@dataclass(frozen=True)
class Observations:
    """x (n, features + 2): features, share of the logarithm of full length, 1 for another study's; y (n,) standardized,
    larger is better."""

    x: Array
    y: Array


@dataclass(frozen=True)
class _Curve:
    """One trial: its observations (n, features + 2), the cell (n,) that each lies in, and their values (n,): larger is
    better, NaN from where it diverged on."""

    reports: int
    x: Array
    y: Array
    cells: NDArray[np.int64]


class Curves:
    """Of one study, and of finished ones that it learns from (`others`)."""

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Seen]) -> None:
        self._encoding = encoding
        self._whole = math.log(max(2, plan.spec.budget.epochs))
        self._looked_at = (*plan.rungs, plan.spec.budget.epochs)
        self._sign = 1.0 if plan.spec.objective.mode == "max" else -1.0
        # Sums with these tell cells apart, whatever their coordinates: adding up wraps round.
        self._mixing = np.random.default_rng(0).integers(1, 2**62, encoding.features_count + 2)
        self._features: dict[int, Array] = {}
        self._curves: dict[int, _Curve] = {}
        self._others = [self._curve(one, encoding.features(one.params), 1.0) for one in others]

    @property
    def others(self) -> int:
        """How many trials of other studies there are."""
        return len(self._others)

    def update(self, seen: Mapping[int, Seen]) -> list[int]:
        """Take in what was reported since the last time; the numbers of the trials that teach something."""
        known = []
        for number, one in seen.items():
            if not one.values or one.state is TrialState.FAILED:
                continue
            known.append(number)
            curve = self._curves.get(number)
            if curve is None or curve.reports != len(one.values):
                self._curves[number] = self._curve(one, self.features(number, one), 0.0)
        return known

    def features(self, number: int, seen: Seen) -> Array:
        """(features,) Of one trial of the study."""
        if number not in self._features:
            self._features[number] = self._encoding.features(seen.params)
        return self._features[number]

    def best(self, known: Sequence[int], count: int) -> list[int]:
        """The trials with the best last observations, at most `count`, of those that did not diverge."""
        last = np.array([self._curves[number].y[-1] for number in known])
        order = np.argsort(-np.where(np.isfinite(last), last, -np.inf), kind="stable")
        return [known[index] for index in order[:count]]

    def observations(self, known: Sequence[int], most: int, generator: np.random.Generator) -> Observations | None:
        """At most `most` of all observations; None when they say nothing."""
        own = [self._curves[number] for number in known]
        x = np.concatenate([curve.x for curve in (*own, *self._others)])
        y = np.concatenate([warped([curve.y for curve in own]), warped([curve.y for curve in self._others])])
        if len(y) < 2 or np.ptp(y) == 0:
            return None
        cells = np.concatenate([curve.cells for curve in (*own, *self._others)])
        chosen = informative(y, x[:, -2] > LATE, cells, most, generator)
        return Observations(x[chosen], y[chosen])

    def _curve(self, seen: Seen, features: Array, other: float) -> _Curve:
        epochs = self._epochs_of(seen)
        x = np.empty((len(epochs), len(features) + 2))
        x[:, :-2] = features
        x[:, -2] = np.log(epochs) / self._whole
        x[:, -1] = other
        cells = np.round(x / SAME).astype(np.int64) @ self._mixing
        return _Curve(len(seen.values), x, self._best_so_far(seen, epochs), cells)

    def _best_so_far(self, seen: Seen, epochs: Sequence[int]) -> Array:
        """At each of the epochs; NaN from where it diverged on."""
        reported = sorted(seen.values)
        values = np.maximum.accumulate([self._sign * seen.values[epoch] for epoch in reported])  # NaN stays
        values[~np.isfinite(values)] = np.nan
        return values[np.searchsorted(reported, epochs)]

    def _epochs_of(self, seen: Seen) -> list[int]:
        """The epochs of a trial that the model is given: powers of two, rungs, the last."""
        last = max(seen.values)
        powers = {2**power for power in range(last.bit_length())}
        return sorted(epoch for epoch in powers | {*self._looked_at, last} if epoch in seen.values)


def warped(curves: Sequence[Array]) -> Array:
    """(n,) All values of all curves, standardized, what is near the best drawn apart: there it is decided. A trial that
    diverged counts as the worst value of all."""
    values = np.concatenate(curves) if curves else np.zeros(0)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros_like(values)
    values = np.where(np.isfinite(values), values, finite.min())
    # Differences of a person's own huge values must not overflow; the logarithm takes away what they are divided by.
    values = values / max(1.0, float(np.abs(values).max()) / 1e6)
    best = values.max()
    apart = NEAR_BEST * (best - np.median(values)) + 1e-12
    drawn: Array = -np.log(best - values + apart)
    deviation = float(drawn.std())
    return (drawn - drawn.mean()) / deviation if deviation > 0 else np.zeros_like(drawn)


def informative(
    y: Array, late: NDArray[np.bool_], cells: NDArray[np.int64], most: int, generator: np.random.Generator
) -> NDArray[np.int_]:
    """Which observations a model is given when there are more than it takes: of those in one cell the best, then half
    of the number the best, the late ones first, and half at random."""
    if len(y) <= most:
        return np.arange(len(y))
    order = np.argsort(-(y + 2 * late), kind="stable")
    _, first = np.unique(cells[order], return_index=True)
    order = order[np.sort(first)]
    if len(order) <= most:
        return order
    best, rest = order[: most // 2], order[most // 2 :]
    return np.concatenate([best, generator.choice(rest, most - len(best), replace=False)])
