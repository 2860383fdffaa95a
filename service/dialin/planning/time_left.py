"""How much of a study is left: epochs from the rungs, seconds from the pace so far. Pure, apart from the clock's value
that the caller passes in."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dialin.planning.plan import Plan

SETTLED_SECONDS = 2.0  # a pace measured over less than this says nothing
SURPLUS_A_RUNG = 1.35  # asynchronous rungs let more pass than one in `reduction_factor`: early leaders are overtaken
PRIOR_SURPLUS = 1.5  # epochs trained, of those that the rungs alone would let pass: 1.1 to 1.9 in simulated studies
PRIOR_WEIGHT = 0.2  # of what a whole study trains: how soon its own surplus counts for more than that
FIRST_BATCH_SECONDS = 0.5  # reports that arrive together with the first one took their time before the clock started


def epochs_left(plan: Plan, furthest: Mapping[int, int], ended: Collection[int]) -> int:
    """The epochs that a study probably still trains.

    `furthest`: the last epoch of each trial that has begun; `ended`: those of them that will not go on. The larger of
    two expectations: what the rungs still let pass, and what the trials that have not begun would train if they took as
    much as the others did.
    """
    return max(_left_by_rungs(plan, furthest, ended), _left_by_trend(plan, furthest))


def _left_by_rungs(plan: Plan, furthest: Mapping[int, int], ended: Collection[int]) -> int:
    """Each rung lets one in `reduction_factor` of the trials that reach it pass. Trials that have not begun end before
    the first rung as often as the others did."""
    asha = plan.spec.early_stopping.asha
    factor = asha.reduction_factor if asha is not None else 1.0
    left, low = 0.0, 0
    expected = float(max(plan.spec.budget.trials, len(furthest)))  # trials that train the segment above `low`
    for high in (*plan.rungs, plan.spec.budget.epochs):
        inside = {trial: epoch for trial, epoch in furthest.items() if epoch > low or low == 0}
        to_come = max(0.0, expected - len(inside))
        left += sum(high - epoch for trial, epoch in inside.items() if epoch < high and trial not in ended)
        left += to_come * (high - low)
        died = sum(epoch < high and trial in ended for trial, epoch in inside.items())
        surviving = 1.0 - died / len(inside) if inside else 1.0
        arriving = len(inside) - died + to_come * surviving
        expected = min(arriving, arriving * SURPLUS_A_RUNG / factor)
        low = high
    return round(left)


def _left_by_trend(plan: Plan, furthest: Mapping[int, int]) -> int:
    """Rungs that decide as results come in let more pass than one in `reduction_factor`: the first at a rung always
    do, and they are seldom among the best in the end."""
    if not plan.rungs:
        return 0
    trained, begun, trials = sum(furthest.values()), len(furthest), plan.spec.budget.trials
    weight = PRIOR_WEIGHT * plan.likely_epochs
    surplus = (trained + PRIOR_SURPLUS * weight) / (plan.likely_epochs * begun / trials + weight)
    return round(max(0.0, plan.likely_epochs * surplus - trained))


@dataclass
class Pace:
    """Epochs a second over all trials together, from the first report on: what happens before it, such as the start of
    Ray and of the first workers, is not repeated."""

    _began: float | None = None
    _epochs: int = 0
    _first_batch: int = 0

    def count(self, now: float) -> None:
        """One epoch was reported. `now`: seconds on any clock that does not go back."""
        if self._began is None:
            self._began = now
        self._epochs += 1
        if now - self._began < FIRST_BATCH_SECONDS:
            self._first_batch = self._epochs

    def seconds(self, epochs: int, now: float, concurrency: int) -> float | None:
        """How long `epochs` more take; None while too few were reported to tell."""
        measured = self._epochs - self._first_batch
        if self._began is None or measured < max(4, 2 * concurrency) or now - self._began < SETTLED_SECONDS:
            return None
        return epochs * (now - self._began) / measured


def duration_text(seconds: float) -> str:
    """An estimate as a person says it: no more digits than it deserves."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 100:
        return f"about {5 * round(seconds / 5)} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 100 else f"about {minutes / 60:.0f} h"
