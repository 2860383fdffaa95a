"""The order of a study's trials from the best to the worst. No other place decides it.

1. Complete trials, then those that are paused, running or were stopped, then diverged ones, then failed ones. A failed
   trial is never the best, and a diverged one only while no other trial has a value.
2. The better best finite value, over the trial's epochs.
3. On a tie, the lower validation loss after the trial's last epoch; a trial that has not measured it comes after.
4. The value reached at the earlier epoch.
5. The lower number.

The third rule matters on small validation splits: on 287 images many trials share their best accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from dialin.lifecycle import TrialState
from dialin.search.records import TrialRecord

LOSS = "val_loss"
"""The metric that breaks ties."""

_CLASS = {TrialState.COMPLETE: 0, TrialState.DIVERGED: 2, TrialState.FAILED: 3}


class Peak(NamedTuple):
    """The best finite value of a trial."""

    value: float
    """In the metric's own sign."""
    epoch: int
    """The first epoch that reached it."""


def peak_of(values: Mapping[int, float], maximize: bool) -> Peak | None:
    """The best finite value with its epoch; None when no value is finite."""
    sign = 1.0 if maximize else -1.0
    finite = ((sign * value, -epoch) for epoch, value in values.items() if math.isfinite(value))
    best = max(finite, default=None)
    return None if best is None else Peak(sign * best[0], -best[1])


def best_value(values: Mapping[int, float], maximize: bool) -> float | None:
    """The best finite value; None when there is none."""
    peak = peak_of(values, maximize)
    return None if peak is None else peak.value


def rank_key(
    state: str, value: float, loss: float | None, epoch: int, number: int, maximize: bool
) -> tuple[int, float, float, int, int]:
    """The sort key of a trial with a finite best value, the best trial first. `epoch`: the first one that reached the
    value; `loss`: None where it was not measured."""
    known = loss if loss is not None and math.isfinite(loss) else math.inf
    return _CLASS.get(TrialState(state), 1), -value if maximize else value, known, epoch, number


def ranked(records: Iterable[TrialRecord], mode: str) -> list[tuple[TrialRecord, float]]:
    """The trials that have a finite value, each with its best one, from the best trial to the worst. `mode`: max or
    min."""
    maximize = mode == "max"
    found = [(record, peak) for record in records if (peak := peak_of(record.values, maximize)) is not None]
    found.sort(key=lambda pair: _key(pair[0], pair[1], maximize))
    return [(record, peak.value) for record, peak in found]


def best_of(records: Iterable[TrialRecord], mode: str, *, complete_only: bool = False) -> TrialRecord | None:
    """The first of `ranked` that has not failed; None when there is none."""
    maximize = mode == "max"
    allowed = (
        (TrialState.COMPLETE,)
        if complete_only
        else tuple(state for state in TrialState if state is not TrialState.FAILED)
    )
    found = (
        (_key(record, peak, maximize), record)
        for record in records
        if record.state in allowed and (peak := peak_of(record.values, maximize)) is not None
    )
    best = min(found, key=lambda pair: pair[0], default=None)
    return None if best is None else best[1]


def _key(record: TrialRecord, peak: Peak, maximize: bool) -> tuple[int, float, float, int, int]:
    return rank_key(record.state, peak.value, record.metrics.get(LOSS), peak.epoch, record.number, maximize)
