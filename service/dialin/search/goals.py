"""What a study wants of its trials: the metrics, the constraints, and what one trial has reached of them.

A trial counts with the values of one epoch, its *point*: the one at which its first metric is best, and of several such
the first. So a point belongs to weights that existed, and the evaluation on the test split uses the weights of the same
epoch. Values of different epochs are never mixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dialin.search.ranking import peak_of
from dialin.search.records import Observation, TrialRecord
from dialin.specification.metrics import BoundSpec, Metric
from dialin.specification.study_spec import BudgetSpec, StudySpec


@dataclass(frozen=True)
class Point:
    """What a trial has reached after one epoch."""

    epoch: int
    """Counts from 1."""
    values: tuple[float, ...]
    """The metrics, in the order and the unit of the specification."""
    bounded: Mapping[str, float]
    """The constrained quantities by name."""
    violation: float
    """The sum over the constraints of how far each is violated, as a fraction of its bound; 0: all of them hold."""

    @property
    def is_feasible(self) -> bool:
        """Whether all constraints hold."""
        return self.violation <= 0


@dataclass(frozen=True)
class Goals:
    """The metrics and constraints of a specification."""

    metrics: tuple[Metric, ...]
    """One or several; the first tells which epoch of a trial counts."""
    constraints: Mapping[str, BoundSpec]
    """By the name of the quantity that is bounded."""

    @classmethod
    def of(cls, spec: StudySpec) -> Goals:
        """The goals of a specification."""
        return cls(spec.metrics, spec.constraints)

    @property
    def is_single(self) -> bool:
        """Whether there is one metric and no constraint, so that its value alone orders the trials."""
        return len(self.metrics) == 1 and not self.constraints

    @property
    def further(self) -> tuple[str, ...]:
        """The quantities beside the first metric that are needed of each epoch."""
        names = (*(metric.name for metric in self.metrics), *self.constraints)
        return tuple(name for name in dict.fromkeys(names) if name != self.metrics[0].name)

    def point(self, epoch: int, value: float, others: Mapping[str, float]) -> Point | None:
        """The point of one epoch, from the first metric's value and those of `further`; None where one of them is not
        finite or missing."""
        found = {**others, self.metrics[0].name: value}
        if not all(math.isfinite(found.get(name, math.nan)) for name in (self.metrics[0].name, *self.further)):
            return None
        bounded = {name: found[name] for name in self.constraints}
        violation = sum(violation_of(bound, bounded[name]) for name, bound in self.constraints.items())
        return Point(epoch, tuple(found[metric.name] for metric in self.metrics), bounded, violation)

    def point_of(self, trial: TrialRecord | Observation) -> Point | None:
        """The point of a trial: the epoch that is best by the first metric, of those whose values are all finite. None
        where there is no such epoch."""
        first = self.metrics[0]
        known = trial.values
        if self.further:
            known = {epoch: value for epoch, value in trial.values.items() if self._at(trial, epoch) is not None}
        peak = peak_of(known, first.mode == "max")
        return None if peak is None else self._at(trial, peak.epoch)

    def signed(self, point: Point) -> tuple[float, ...]:
        """The metrics of a point, each with the sign that makes larger better."""
        return tuple(metric.sign * value for metric, value in zip(self.metrics, point.values, strict=True))

    def violated(self, point: Point) -> tuple[str, ...]:
        """The names of the constraints that a point violates."""
        return tuple(name for name, bound in self.constraints.items() if bound.excess(point.bounded[name]) > 0)

    def reached(self, budget: BudgetSpec, trial: TrialRecord | Observation, epoch: int) -> bool:
        """Whether a trial met the target after an epoch. With constraints they must hold too. There is no target with
        several metrics."""
        if not budget.reached(trial.values[epoch], self.metrics[0].mode):
            return False
        point = self._at(trial, epoch)
        return point is not None and point.is_feasible

    def _at(self, trial: TrialRecord | Observation, epoch: int) -> Point | None:
        others = {name: trial.others.get(name, {}).get(epoch, math.nan) for name in self.further}
        return self.point(epoch, trial.values[epoch], others)


def violation_of(bound: BoundSpec, value: float) -> float:
    """How far a value violates a bound, as a fraction of the bound (of 1 for a bound of 0); 0 where it holds.

    A fraction, because the violations of several constraints, in different units, are added.
    """
    excess = bound.excess(value)
    if excess <= 0:
        return 0.0
    broken = bound.max if bound.max is not None and value > bound.max else bound.min
    return excess / (abs(broken) if broken else 1.0)
