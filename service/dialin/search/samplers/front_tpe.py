"""TPE with several metrics, or under constraints: over the order that early stopping uses too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from dialin.planning.plan import Plan
from dialin.search.goals import Goals, Point
from dialin.search.models.encoding import Encoding
from dialin.search.pareto import order_of
from dialin.search.records import Observation, Observations
from dialin.search.samplers.tpe import Converted, History, TPESampler


class FrontTPESampler(TPESampler):
    """TPE whose good trials are the first ones in the order of NSGA-II (`pareto.order_of`): by front, in a front by the
    crowding distance, and after these the trials that violate a constraint.

    Optuna's own TPE for several metrics (Ozaki et al. 2022, MOTPE) takes the same first step, sorting by fronts, but it
    cannot be shown a trial that was pruned, and under ASHA most trials are. Here TPE is shown one value, the place in
    that order: among the complete trials, and of those that were stopped or are paused, among the ones that got as
    far. As for one metric it prefers the trials that got further.
    """

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        self._goals = Goals.of(plan.spec)
        self._points: dict[int, tuple[int, Point | None]] = {}  # by trial number, with the reports it was made from
        super().__init__(plan, encoding, others)
        self._empty = History(StudyDirection.MINIMIZE)  # of places
        self._points_of_others = [self._goals.point_of(one) for one in others]

    def _history(self, observations: Observations, seed: int) -> list[FrozenTrial]:
        for number, observation in observations.items():
            if self._points.get(number, (-1, None))[0] != len(observation.values):
                self._points[number] = (len(observation.values), self._goals.point_of(observation))
        return super()._history(observations, seed)

    def _known(self) -> list[Converted]:
        known = [(one.trial, self._point(one.trial.number)) for one in super()._known()]
        groups: dict[tuple[bool, int], list[tuple[FrozenTrial, Point | None]]] = {}
        for trial, point in known:
            is_complete = trial.state is OptunaState.COMPLETE
            groups.setdefault((is_complete, 0 if is_complete else trial.last_step or 0), []).append((trial, point))
        placed = [one for key in sorted(groups, reverse=True) for one in self._placed(groups[key])]
        ranked = [Converted(trial, float(-place)) for place, trial in enumerate(placed)]
        return sorted(ranked, key=lambda one: one.trial.number)

    def _placed(self, group: list[tuple[FrozenTrial, Point | None]]) -> list[FrozenTrial]:
        """The trials from the best to the worst, each with its place as its value; those without a point last."""
        found = [(trial, point) for trial, point in group if point is not None]
        values = np.array([self._goals.signed(point) for _, point in found]).reshape(len(found), -1)
        order, _ = order_of(values, np.array([point.violation for _, point in found]))
        trials = [found[index][0] for index in order] + [trial for trial, point in group if point is None]
        for place, trial in enumerate(trials):
            if trial.state is OptunaState.COMPLETE:
                trial.value = float(place)
            elif trial.intermediate_values:
                trial.intermediate_values = {trial.last_step: float(place)}
        return trials

    def _point(self, number: int) -> Point | None:
        return self._points_of_others[number] if number < 0 else self._points[number][1]

    def _convert(self, number: int, observation: Observation) -> Converted | None:
        # A value that is the same for all takes part in nothing: `_placed` gives each trial its place.
        values = {max(observation.values): 0.0} if observation.values else {}
        point = self._goals.point_of(observation)
        return super()._convert(
            number, replace(observation, values=values if point is not None else observation.values)
        )
