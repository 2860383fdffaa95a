"""The order of a study's trials where several metrics, or constraints, decide. For one metric without constraints
`ranking` decides it.

1. As in `ranking`: complete trials, then those that are paused, running or were stopped, then diverged ones, then
   failed ones.
2. Trials that meet all constraints, by the front of their points; in a front the one with more room around it
   (`pareto.order_of`). Then the others, the one that violates the constraints least first.
3. Between equal points: the lower validation loss, the earlier epoch, the lower number.

The best trials are the first front of those that meet all constraints: the complete ones, or while there is none of
these, the others. With one metric that is one trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dialin.lifecycle import TrialState
from dialin.search import ranking
from dialin.search.goals import Goals, Point
from dialin.search.pareto import order_of
from dialin.search.ranking import rank_key
from dialin.search.records import TrialRecord


@dataclass(frozen=True)
class PlacedTrial:
    """A trial in the order of a study."""

    record: TrialRecord
    point: Point
    """What counts of it."""
    front: int
    """The front of its point, from 1, among the trials of the same class of states (see above); with one metric, its
    rank among different values."""


def placed(records: Iterable[TrialRecord], goals: Goals) -> list[PlacedTrial]:
    """The trials that have a point, from the best to the worst."""
    found = [(record, point) for record in records if (point := goals.point_of(record)) is not None]
    classes: dict[int, list[tuple[TrialRecord, Point]]] = {}
    for pair in sorted(found, key=_tie_key):
        classes.setdefault(_class_of(pair[0]), []).append(pair)
    return [one for key in sorted(classes) for one in _ordered(classes[key], goals)]


def front_of(records: Iterable[TrialRecord], goals: Goals, *, complete_only: bool = False) -> list[PlacedTrial]:
    """The Pareto front: the best trials, the one that is best by the first metric first; of trials with equal points
    only the first. Trials that failed or violate a constraint are never on it, diverged ones only where no other trial
    has a point. Empty where there is none."""
    allowed = [record for record in records if _may_be_best(record.state, complete_only)]
    different: dict[tuple[float, ...], PlacedTrial] = {}
    for one in _first_front([one for one in placed(allowed, goals) if one.point.is_feasible]):
        different.setdefault(goals.signed(one.point), one)
    return [different[values] for values in sorted(different, reverse=True)]


def best_of(records: Iterable[TrialRecord], goals: Goals, *, complete_only: bool = False) -> TrialRecord | None:
    """The first trial of the order; with several metrics that of the Pareto front which is best by the first metric.
    None where there is none."""
    if goals.is_single:
        return ranking.best_of(records, goals.metrics[0].mode, complete_only=complete_only)
    front = front_of(records, goals, complete_only=complete_only)
    return front[0].record if front else None


def _may_be_best(state: TrialState, complete_only: bool) -> bool:
    return state is TrialState.COMPLETE or (not complete_only and state is not TrialState.FAILED)


def _first_front(placed_trials: Sequence[PlacedTrial]) -> list[PlacedTrial]:
    """Those of the same front and class of states as the first one."""
    if not placed_trials:
        return []
    best, *_ = placed_trials
    same_front = [one for one in placed_trials if one.front == best.front]
    return [one for one in same_front if _class_of(one.record) == _class_of(best.record)]


def _ordered(found: list[tuple[TrialRecord, Point]], goals: Goals) -> list[PlacedTrial]:
    values = np.array([goals.signed(point) for _, point in found])
    order, fronts = order_of(values, np.array([point.violation for _, point in found]))
    return [PlacedTrial(found[index][0], found[index][1], int(fronts[index]) + 1) for index in order]


def _class_of(record: TrialRecord) -> int:
    return rank_key(record.state, 0.0, None, 0, 0, True)[0]


def _tie_key(pair: tuple[TrialRecord, Point]) -> tuple[float, int, int]:
    record, point = pair
    _, _, loss, epoch, number = rank_key(
        record.state, 0.0, record.metrics.get(ranking.LOSS), point.epoch, record.number, True
    )
    return loss, epoch, number
