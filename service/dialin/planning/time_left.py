"""An estimate of how much of a study is left: epochs from the rungs, seconds from the pace so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dialin.planning.plan import Plan

SETTLED_SECONDS = 2.0  # a pace that was measured over a shorter time is noise
# Asynchronous rungs promote more than one in `reduction_factor`: the first trials at a rung always pass, and are seldom
# among the best in the end. Both figures were read off simulated studies.
SURPLUS_A_RUNG = 1.35  # trials that pass a rung, as a multiple of one in `reduction_factor`
PRIOR_SURPLUS = 1.5  # epochs of a whole study, as a multiple of `Plan.likely_epochs`; 1.1 to 1.9 in simulations
PRIOR_WEIGHT = 0.2  # of a study's likely epochs: after so many its own surplus counts as much as the prior
FIRST_BATCH_SECONDS = 0.5  # epochs reported this soon after the first one were trained before the clock started


def epochs_left(plan: Plan, furthest: Mapping[int, int], ended: Collection[int]) -> int:
    """The number of epochs that a study probably still trains.

    `furthest`: the last epoch of each trial that has begun. `ended`: the trials among them that have ended. The result
    is the larger of two expectations: one from the rungs, one from what the trials so far have trained on average.
    """
    return max(_left_by_rungs(plan, furthest, ended), _left_by_trend(plan, furthest))


def _left_by_rungs(plan: Plan, furthest: Mapping[int, int], ended: Collection[int]) -> int:
    """The expectation from the rungs, each of which promotes one in `reduction_factor` of the trials that reach it.

    Trials that have not begun are expected to end before a rung as often as the others did.
    """
    asha = plan.spec.early_stopping.asha
    promoted = SURPLUS_A_RUNG / asha.reduction_factor if asha is not None else 1.0
    left, low = 0.0, 0
    arriving = float(max(plan.spec.budget.trials, len(furthest)))  # trials that begin the segment of epochs above `low`
    for high in (*plan.rungs, plan.spec.budget.epochs):
        inside = {trial: epoch for trial, epoch in furthest.items() if epoch > low or low == 0}
        below = {trial: epoch for trial, epoch in inside.items() if epoch < high}
        ended_below = sum(trial in ended for trial in below)
        to_come = max(0.0, arriving - len(inside))
        left += _epochs_to(high, below, ended) + to_come * (high - low)
        surviving = 1.0 - ended_below / len(inside) if inside else 1.0
        at_rung = len(inside) - ended_below + to_come * surviving
        arriving = min(at_rung, at_rung * promoted)
        low = high
    return round(left)


def _epochs_to(high: int, below: Mapping[int, int], ended: Collection[int]) -> int:
    """The epochs that the trials below a rung train to reach it; those that have ended train no more."""
    return sum(high - epoch for trial, epoch in below.items() if trial not in ended)


def _left_by_trend(plan: Plan, furthest: Mapping[int, int]) -> int:
    """The expectation from the trials so far: each trial to come trains as many epochs as those that have begun."""
    if not plan.rungs:
        return 0
    trained, begun, trials = sum(furthest.values()), len(furthest), plan.spec.budget.trials
    weight = PRIOR_WEIGHT * plan.likely_epochs
    surplus = (trained + PRIOR_SURPLUS * weight) / (plan.likely_epochs * begun / trials + weight)
    return round(max(0.0, plan.likely_epochs * surplus - trained))


@dataclass
class Pace:
    """Epochs a second over all trials together, from the first report on: what comes before it, such as the start of
    Ray and of the first workers, happens only once."""

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
        """How many seconds `epochs` more take, with `concurrency` trials at a time; None while that is not known."""
        measured = self._epochs - self._first_batch
        if self._began is None or measured < max(4, 2 * concurrency) or now - self._began < SETTLED_SECONDS:
            return None
        return epochs * (now - self._began) / measured


def duration_text(seconds: float) -> str:
    """An estimate in words, with no more digits than it deserves: "about 35 s", "about 4 min"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 100:
        return f"about {5 * round(seconds / 5)} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 100 else f"about {minutes / 60:.0f} h"
