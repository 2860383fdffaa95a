"""The best trials of a running study of several metrics, or with constraints, as its progress tells them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dialin.lifecycle import TrialState
from dialin.search.goals import Goals, Point
from dialin.search.pareto import fronts_of
from dialin.search.records import TrialRecord
from dialin.texts import measure_text


class FrontProgress:
    """The points of the trials so far. A trial that has failed does not count; once one that meets the constraints is
    complete, only complete ones do, as in the result: an epoch of training against a whole one compares nothing."""

    def __init__(self, goals: Goals) -> None:
        self._goals = goals
        self._points: dict[int, Point] = {}
        self._complete: set[int] = set()
        self._text: str | None = None  # None: it has to be made anew

    def record(self, trial: TrialRecord) -> None:
        """Take over a stored trial."""
        self._take(trial.number, self._goals.point_of(trial))
        if trial.state is TrialState.COMPLETE:
            self.complete(trial.number)

    def report(self, trial: int, epoch: int, value: float, others: Mapping[str, float]) -> None:
        """Count a report. It is the trial's point if it is the trial's best one by the first metric."""
        point, before = self._goals.point(epoch, value, others), self._points.get(trial)
        if point is None or (before is not None and self._goals.signed(point)[0] <= self._goals.signed(before)[0]):
            return
        self._take(trial, point)

    def complete(self, trial: int) -> None:
        """Count a trial as complete."""
        self._complete.add(trial)
        self._text = None

    def remove(self, trial: int) -> None:
        """Leave a trial out: it has failed."""
        if self._points.pop(trial, None) is not None:
            self._text = None

    def text(self) -> str:
        """The best so far: "front of 3 trials: accuracy 0.9712 (trial 4), parameters 1,234 (trial 2)". Of one metric,
        the best trial that meets the constraints. Empty before the first report."""
        if self._text is None:
            self._text = self._make_text()
        return self._text

    def values_text(self, value: float, others: Mapping[str, float]) -> str:
        """The metrics of one report, such as "accuracy 0.9712  parameters 1,234"."""
        found = {**others, self._goals.metrics[0].name: value}
        names = dict.fromkeys([*(metric.name for metric in self._goals.metrics), *self._goals.constraints])
        return "  ".join(f"{name} {measure_text(found[name])}" for name in names if name in found)

    def _take(self, trial: int, point: Point | None) -> None:
        if point is not None:
            self._points[trial] = point
            self._text = None

    def _make_text(self) -> str:
        points = self._counting()
        if not points:
            return "no trial meets the constraints yet" if self._points else ""
        numbers = list(points)
        fronts = fronts_of(np.array([self._goals.signed(points[trial]) for trial in numbers]))
        front = [trial for trial, place in zip(numbers, fronts, strict=True) if place == 0]
        if len(self._goals.metrics) == 1:
            best, name = points[front[0]], self._goals.metrics[0].name
            return f"best {name} {measure_text(best.values[0])} (trial {front[0]}, epoch {best.epoch})"
        ends = ", ".join(self._end_text(points, front, place) for place in range(len(self._goals.metrics)))
        return f"front of {len(front)} trial{'s' * (len(front) != 1)}: {ends}"

    def _counting(self) -> dict[int, Point]:
        """The points of the trials that count: those that meet the constraints, the complete ones if there is any."""
        feasible = {trial: point for trial, point in self._points.items() if point.is_feasible}
        if self._complete.isdisjoint(feasible):
            return feasible
        return {trial: point for trial, point in feasible.items() if trial in self._complete}

    def _end_text(self, points: Mapping[int, Point], front: list[int], place: int) -> str:
        """The best value of one metric on the front."""
        trial = max(front, key=lambda number: self._goals.signed(points[number])[place])
        name = self._goals.metrics[place].name
        return f"{name} {measure_text(points[trial].values[place])} (trial {trial})"
