"""Early stopping with several metrics, or under constraints: ASHA over the order of NSGA-II.

At a rung the trials are ordered as `pareto.order_of` says: by their front, in a front by the crowding distance, and
after all of them those that violate a constraint, by how much. What ASHA does with one metric's order (`asha`,
`early_stopping`) is done with this one. The arithmetic is in `FrontPromotions`, which is pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dialin.planning.plan import Plan
from dialin.search.asha import PausedAtRungs, crossings
from dialin.search.decision import Action, Cause, Decision
from dialin.search.goals import Goals, Point
from dialin.search.pareto import order_of
from dialin.search.rung_forms import NOTHING, Curves, PromotingForm, StoppingForm


class Place(NamedTuple):
    """The place of a trial among those that have reached a rung."""

    rank: int
    """From 1 for the best."""
    of: int
    """How many trials have reached the rung."""
    front: int
    """From 1."""
    fronts: int
    """How many fronts there are, those of trials that violate a constraint not counted."""


class FrontPromotions(PausedAtRungs):
    """The rungs of one study with several metrics or constraints: the trials that have reached each with their points.
    On a tie the earlier trial is the better one."""

    def __init__(self, rungs: Sequence[int], reduction_factor: float, goals: Goals) -> None:
        super().__init__(rungs, reduction_factor)
        self._goals = goals
        self._at: dict[int, dict[int, Point]] = {rung: {} for rung in self.rungs}
        self._places: dict[int, dict[int, Place]] = {}  # by rung, the best trial first; of those that have not changed

    def record(self, rung: int, trial: int, point: Point) -> None:
        """A trial has reached a rung, and is paused there."""
        if trial not in self._at[rung]:
            self._at[rung][trial] = point
            self._places.pop(rung, None)
        self._paused[trial] = rung

    def replay(self, trial: int, points: Mapping[int, Point | None], before: int, pauses: bool) -> None:
        """Record a stored trial, which began after epoch `before`; `pauses`: it is paused, if its last epoch was a
        rung. `points`: by epoch, None where a value was not finite."""
        finite = {epoch: math.nan if point is None else 0.0 for epoch, point in points.items()}
        for rung, epoch in crossings(self.rungs, finite, before):
            point = points[epoch]
            if point is not None:
                self.record(rung, trial, point)
                if not pauses or epoch != max(points):
                    self.remove(trial)

    def place(self, rung: int, trial: int) -> Place:
        """The place of a trial at a rung."""
        return self._placed(rung)[trial]

    def point(self, rung: int, trial: int) -> Point:
        """What a trial had reached at a rung."""
        return self._at[rung][trial]

    def reached(self, rung: int) -> int:
        """How many trials have reached a rung."""
        return len(self._at[rung])

    def best(self, rung: int, count: int) -> Sequence[int]:
        """The best so many trials of a rung, the best one first."""
        return list(self._placed(rung))[:count]

    def _placed(self, rung: int) -> Mapping[int, Place]:
        if rung not in self._places:
            trials = sorted(self._at[rung])  # not as they came, which a restarted study would not know
            points = [self._at[rung][trial] for trial in trials]
            values = np.array([self._goals.signed(point) for point in points])
            order, fronts = order_of(values, np.array([point.violation for point in points]))
            inside = [front for front, point in zip(fronts, points, strict=True) if point.is_feasible]
            count = int(max(inside, default=-1)) + 1
            self._places[rung] = {
                trials[index]: Place(rank, len(trials), int(fronts[index]) + 1, count)
                for rank, index in enumerate(order, 1)
            }
        return self._places[rung]


class FrontPromoting(PromotingForm):
    """A trial is paused at each rung until it is among the best there. Implements `early_stopping.EarlyStopping`."""

    def __init__(self, plan: Plan) -> None:
        self._goals = Goals.of(plan.spec)
        self._promotions = _promotions(plan, self._goals)
        super().__init__(self._promotions)

    def decide(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """Continue if the trial is among the first floor(n / reduction_factor) of the rung, else pause."""
        self._promotions.record(rung, trial, _finite(self._goals, epoch, value, others))
        action: Action = "pause"
        if self._promotions.place(rung, trial).rank <= self._promotions.quota(rung):
            self._promotions.remove(trial)
            action = "continue"
        return self._ranked(action, "rung_rank", trial, epoch, rung)

    def recover(
        self,
        trial: int,
        values: Mapping[int, float],
        began: int,
        *,
        unfinished: bool,
        can_grow: bool,
        others: Curves = NOTHING,
    ) -> None:
        """Rank the trial at the rungs that it has reached, and pause it if its last epoch was one."""
        self._promotions.replay(trial, _points(self._goals, values, others), began, unfinished or can_grow)

    def final_decision(self, trial: int, epoch: int, value: float | None) -> Decision:
        """A stop: early stopping where the rank is beyond the quota, rounded up; else the study's end."""
        rung = self._promotions.paused[trial]
        can_be_promoted = self._promotions.place(rung, trial).rank <= self._promotions.quota(rung, round_up=True)
        return self._ranked("stop", "study_ended" if can_be_promoted else "rung_rank", trial, epoch, rung)

    def _ranked(self, action: Action, cause: Cause, trial: int, epoch: int, rung: int) -> Decision:
        quota = self._promotions.quota(rung, round_up=True)
        return _decision(self._goals, self._promotions, Decision(action, cause, epoch, rung=rung, quota=quota), trial)


class FrontStopping(StoppingForm):
    """A trial is stopped at a rung where it is not among the best of those that have reached it by then, itself
    included. Implements `early_stopping.EarlyStopping`.

    Of n trials floor((n - 2) / reduction_factor) + 1 pass: with one metric the same as the cutoff of `asha.Asha`, which
    is a percentile of the n - 1 others, up to its interpolation.
    """

    def __init__(self, plan: Plan) -> None:
        self._goals = Goals.of(plan.spec)
        asha = plan.spec.early_stopping.asha
        self._factor = asha.reduction_factor if asha is not None else 2.0
        self._reached = _promotions(plan, self._goals)
        self._extended = _promotions(plan, self._goals)
        super().__init__(self._extended)

    def decide(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """Stop if the trial is not among the best of the rung."""
        self.record(trial, rung, value, others)
        return self._judge(trial, epoch, rung)

    def decide_again(
        self, trial: int, epoch: int, rung: int, value: float, others: Mapping[str, float] = NOTHING
    ) -> Decision:
        """The same for a trial that `recover` has recorded."""
        return self._judge(trial, epoch, rung)

    def record(self, trial: int, rung: int, value: float, others: Mapping[str, float] = NOTHING) -> None:
        """Add the trial to those of the rung."""
        if (point := self._goals.point(rung, value, others)) is not None:
            self._reached.record(rung, trial, point)

    def recover(
        self,
        trial: int,
        values: Mapping[int, float],
        began: int,
        *,
        unfinished: bool,
        can_grow: bool,
        others: Curves = NOTHING,
    ) -> None:
        """Record the points; a trial of the shorter length is paused where its last epoch is a rung."""
        points = _points(self._goals, values, others)
        self._reached.replay(trial, points, began, pauses=False)
        self._extended.replay(trial, points, began, can_grow)

    def _judge(self, trial: int, epoch: int, rung: int) -> Decision:
        place = self._reached.place(rung, trial)
        quota = max(1, math.floor((place.of - 2) / self._factor + 1e-9) + 1)
        action: Action = "continue" if place.rank <= quota else "stop"
        decision = Decision(action, "rung_rank", epoch, rung=rung, quota=quota)
        return _decision(self._goals, self._reached, decision, trial)


def _promotions(plan: Plan, goals: Goals) -> FrontPromotions:
    asha = plan.spec.early_stopping.asha
    return FrontPromotions(plan.rungs, asha.reduction_factor if asha is not None else 2.0, goals)


def _finite(goals: Goals, epoch: int, value: float, others: Mapping[str, float]) -> Point:
    point = goals.point(epoch, value, others)
    if point is None:
        raise ValueError(f"{value}, {dict(others)}: only finite values are compared at a rung")
    return point


def _points(goals: Goals, values: Mapping[int, float], others: Curves) -> dict[int, Point | None]:
    return {
        epoch: goals.point(epoch, value, {name: curve[epoch] for name, curve in others.items() if epoch in curve})
        for epoch, value in values.items()
    }


def _decision(goals: Goals, promotions: FrontPromotions, decision: Decision, trial: int) -> Decision:
    """A decision at a rung, with what the trial had reached there and its place."""
    rung = decision.rung or 0
    place, point = promotions.place(rung, trial), promotions.point(rung, trial)
    first, *further = (metric.name for metric in goals.metrics)
    violated = goals.violated(point)
    measured = dict(zip(further, point.values[1:], strict=True))
    measured |= {name: point.bounded[name] for name in violated if name != first}
    return Decision(
        decision.action,
        decision.cause,
        decision.epoch,
        first,
        point.values[0],
        rung=rung,
        rank=place.rank,
        of=place.of,
        quota=decision.quota,
        front=None if violated else place.front,
        fronts=place.fronts,
        others=measured,
        violated=", ".join(violated),
    )
