"""Estimates of how long a study will still take: epochs from the rungs, seconds from the pace so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from dialin.planning.plan import Plan

SETTLED_SECONDS = 2.0  # a pace that was measured over a shorter time is too noisy
# Asynchronous rungs promote more than one in `reduction_factor`: the first trials at a rung are always promoted, and
# are seldom among the best in the end. The two factors come from simulated studies.
SURPLUS_A_RUNG = 1.35  # trials that a rung promotes, as a multiple of one in `reduction_factor`
PRIOR_SURPLUS = 1.5  # epochs of a whole study, as a multiple of `Plan.likely_epochs`; 1.1 to 1.9 in simulations
PRIOR_WEIGHT = 0.2  # after this fraction of its likely epochs, a study's own surplus counts as much as the prior
FIRST_BATCH_SECONDS = 0.5  # epochs reported this soon after the first one were trained before the clock started


def epochs_left(plan: Plan, last_epochs: Mapping[int, int], ended: Collection[int]) -> int:
    """Return the expected number of epochs that a study will still train.

    `last_epochs`: the last epoch of each trial that has started. `ended`: those of these trials that have ended. The
    result is the larger of two estimates: one from the rungs, one from the epochs that trials have trained so far.
    """
    return max(_left_by_rungs(plan, last_epochs, ended), _left_by_trend(plan, last_epochs))


def _left_by_rungs(plan: Plan, last_epochs: Mapping[int, int], ended: Collection[int]) -> int:
    """The estimate from the rungs, each of which promotes one in `reduction_factor` of the trials that reach it.

    Trials that have not started are expected to end before a rung as often as the others did.
    """
    asha = plan.spec.early_stopping.asha
    promoted = SURPLUS_A_RUNG / asha.reduction_factor if asha is not None else 1.0
    left, low = 0.0, 0
    arriving = float(max(plan.spec.budget.trials, len(last_epochs)))  # trials that train the epochs above `low`
    for high in (*plan.rungs, plan.spec.budget.epochs):
        inside = {trial: epoch for trial, epoch in last_epochs.items() if epoch > low or low == 0}
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
    """The epochs that the trials below a rung still need to reach it, without those that have ended."""
    return sum(high - epoch for trial, epoch in below.items() if trial not in ended)


def _left_by_trend(plan: Plan, last_epochs: Mapping[int, int]) -> int:
    """The estimate from the trials so far: later trials train as many epochs on average as those that have started."""
    if not plan.rungs:
        return 0
    trained, started, trials = sum(last_epochs.values()), len(last_epochs), plan.spec.budget.trials
    weight = PRIOR_WEIGHT * plan.likely_epochs
    surplus = (trained + PRIOR_SURPLUS * weight) / (plan.likely_epochs * started / trials + weight)
    return round(max(0.0, plan.likely_epochs * surplus - trained))


@dataclass
class Pace:
    """Measures how many epochs all trials together train per second.

    The measurement starts at the first report, because the start of Ray and of the first workers happens only once.
    """

    _started: float | None = None
    _epochs: int = 0
    _first_batch: int = 0

    def count(self, now: float) -> None:
        """Count one reported epoch. `now`: seconds on a monotonic clock."""
        if self._started is None:
            self._started = now
        self._epochs += 1
        if now - self._started < FIRST_BATCH_SECONDS:
            self._first_batch = self._epochs

    def seconds(self, epochs: int, now: float, concurrency: int) -> float | None:
        """Return the seconds that `epochs` more epochs take; None while too few have been reported.

        `concurrency`: how many trials run at a time; each must have reported two epochs on average.
        """
        measured = self._epochs - self._first_batch
        if self._started is None or measured < max(4, 2 * concurrency) or now - self._started < SETTLED_SECONDS:
            return None
        return epochs * (now - self._started) / measured


def duration_text(seconds: float) -> str:
    """Return an estimate in words, rounded to its precision: "about 35 s", "about 4 min"."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 100:
        return f"about {5 * round(seconds / 5)} s"
    minutes = seconds / 60
    return f"about {minutes:.0f} min" if minutes < 100 else f"about {minutes / 60:.0f} h"
