"""A model for each quantity that a trial measures: what it would be at full length, from the curves of all trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.search.goals import Goals
from dialin.search.models.curve_model import MOST_OBSERVATIONS, CurveModel
from dialin.search.models.embedding import Embedding
from dialin.search.models.encoding import Array
from dialin.search.models.learning_curves import LATE, LearningCurves, subsample_observations, warp_targets
from dialin.search.records import Observation, Observations

WIDE = 10.0
"""A positive quantity whose greatest value is so many times its least is modelled by its logarithm."""

Target = Callable[[Sequence[Array]], Array]
"""From the values of curves, larger is better, to standardized targets."""


class Quantity:
    """The model of one quantity, of a study and of the finished studies that it learns from. Not thread safe.

    `name`: the quantity; `sign`: 1 where larger is better, -1 where smaller is. `is_bound`: what counts is on which
    side of a bound it lies, so that its targets are not stretched near the best one.
    """

    def __init__(
        self, plan: Plan, embedding: Embedding, others: Sequence[Observation], name: str, sign: float, is_bound: bool
    ) -> None:
        goals = Goals.of(plan.spec)
        self._name, self._is_bound = name, is_bound
        self._curve_of = _PointCurve(goals, name, sign)
        known = [seen for one in others if (seen := self._curve_of(one)).values]
        self._curves = _Curves(plan, embedding, known)
        self._model = CurveModel(embedding)
        self._seen: dict[int, tuple[int, Observation]] = {}  # by trial number, with the reports it was made from
        self._mean, self._deviation, self._is_log = 0.0, 1.0, False
        self.is_known = False
        """Whether the trials differ in this quantity, so that there is something to model."""

    @property
    def others_count(self) -> int:
        """The number of trials of other studies."""
        return self._curves.others_count

    def update(self, observations: Observations) -> list[int]:
        """Take in what was reported since the last call. Returns the numbers of the trials that have reported something
        and have not failed."""
        for number, observation in observations.items():
            before = self._seen.get(number)
            if before is None or before[0] != len(observation.values):
                self._seen[number] = (len(observation.values), self._curve_of(observation))
            elif before[1].state is not observation.state:
                self._seen[number] = (before[0], replace(before[1], state=observation.state))
        return self._curves.update({number: self._seen[number][1] for number in observations})

    def condition(self, known: Sequence[int], generator: np.random.Generator, running: Array) -> None:
        """Fit the model to the trials `known`, and condition it on them and, as predicted, on the running trials at
        full length (n, features + 2)."""
        found = self._curves.training(known, self._targets, generator)
        self.is_known = found is not None
        if found is None:
            return
        x, y = found
        self._model.fit_if_grown(x, y, len(known), generator)
        self._model.condition(x, y, running)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """(n,) Mean and standard deviation of the target at x (n, features + 2)."""
        if not self.is_known:
            return np.zeros(len(x)), np.ones(len(x))
        return self._model.predict(x)

    def mean(self, x: Array) -> Array:
        """(n,) The mean of the target at x (n, features + 2)."""
        return self._model.mean(x) if self.is_known else np.zeros(len(x))

    def target_of(self, value: float) -> float:
        """The target that a value has, of a quantity with a bound."""
        if self._is_log:
            value = math.log(value) if value > 0 else -math.inf
        return (value - self._mean) / self._deviation

    def _targets(self, curves: Sequence[Array]) -> Array:
        if not self._is_bound:
            return warp_targets(curves)
        values = np.concatenate(curves) if curves else np.zeros(0)
        finite = values[np.isfinite(values)]
        if not len(finite):
            return np.zeros_like(values)
        self._is_log = bool(finite.min() > 0 and finite.max() / finite.min() > WIDE)
        values = np.where(np.isfinite(values), values, np.median(finite))
        if self._is_log:
            values = np.log(values)
        self._mean, self._deviation = float(values.mean()), float(values.std()) or 1.0
        return np.asarray((values - self._mean) / self._deviation)


@dataclass(frozen=True)
class _PointCurve:
    """Makes the curve of one quantity at the point that a trial has by each epoch: at the epoch up to then that is best
    by the first metric."""

    goals: Goals
    name: str
    sign: float

    def __call__(self, observation: Observation) -> Observation:
        first = self.goals.metrics[0]
        own = observation.values if self.name == first.name else observation.others.get(self.name, {})
        best, at, curve = -math.inf, None, {}
        for epoch in sorted(observation.values):
            if epoch not in own:  # a trial of a study that did not measure it
                continue
            signed = first.sign * observation.values[epoch]
            if math.isfinite(signed) and signed > best:
                best, at = signed, epoch
            # After divergence the first metric has no value any more, and counts as the worst; the others have theirs.
            source = at if at is not None and math.isfinite(signed) else epoch
            curve[epoch] = self.sign * own[source]
        return Observation(observation.params, curve, observation.state)


class _Curves(LearningCurves):
    """Curves whose values count as they are, not as the best so far, with their signs in them."""

    def training(
        self, known: Sequence[int], target: Target, generator: np.random.Generator
    ) -> tuple[Array, Array] | None:
        """The features (n, features + 2) and targets (n,) of the trials `known` and of other studies, on one scale: a
        bound and a front mean the same in all of them. None where the targets do not differ."""
        own = [self._curves[number] for number in known]
        every = [*own, *self._others]
        if not every:
            return None
        y = target([curve.y for curve in every])
        if len(y) < 2 or np.ptp(y) == 0:
            return None
        x = np.concatenate([curve.x for curve in every])
        cells: NDArray[np.int64] = np.concatenate([curve.cells for curve in every])
        kept = subsample_observations(y, x[:, -2] > LATE, cells, MOST_OBSERVATIONS, generator)
        return x[kept], y[kept]

    def _best_so_far(self, observation: Observation, epochs: Sequence[int]) -> Array:
        values = np.array([observation.values[epoch] for epoch in epochs])
        return np.where(np.isfinite(values), values, np.nan)


def running_of(observations: Observations) -> Mapping[int, Observation]:
    """The trials that are being trained."""
    return {number: one for number, one in observations.items() if one.state is TrialState.RUNNING}
