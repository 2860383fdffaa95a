"""ASHA's arithmetic: when a trial is stopped at a rung, or goes on from it. Pure: no storage, no clock, no randomness.

Li et al. 2020, A system for massively parallel hyperparameter tuning. `Asha` is the stopping form that Ray Tune calls
AsyncHyperBandScheduler, whose decisions it reproduces (a property test holds the two together); `Promotions` is the
paper's own form (algorithm 2): a trial waits at each rung until it is among the best there.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """What a rung says of one value: `cutoff` is None for the first trial that reaches the rung."""

    rung: int
    stop: bool
    cutoff: float | None
    compared: int


class Asha:
    """The rungs of one study: at each, the values of the trials that got there.

    `rungs` are epochs, rising. `maximize` says which way is better. Values must not be NaN.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: float, maximize: bool) -> None:
        self._rungs = tuple(rungs)
        # By way of per cent, as Ray computes it: the same roundings, so the same decisions at ties.
        self._quantile = (1 - 1 / reduction_factor) * 100 / 100
        self._sign = 1.0 if maximize else -1.0
        self._sorted: dict[int, list[float]] = {rung: [] for rung in self._rungs}

    @property
    def rungs(self) -> tuple[int, ...]:
        return self._rungs

    def values_at(self, rung: int) -> tuple[float, ...]:
        """The values recorded at `rung`, from the worst to the best."""
        return tuple(self._sign * value for value in self._sorted[rung])

    def reached(self, before: int, epoch: int) -> int | None:
        """The highest rung that lies in (before, epoch], None when there is none."""
        return reached(self._rungs, before, epoch)

    def judge(self, rung: int, value: float, *, recorded: bool = False) -> Verdict:
        """Whether a trial with `value` at `rung` is stopped, against the others there. Records nothing.

        `recorded` says that the value is itself among the rung's already, and is to be left out of the comparison.
        """
        signed = self._sign * value
        others = self._sorted[rung]
        if recorded:
            others = others.copy()
            others.remove(signed)
        cutoff = percentile(others, self._quantile)
        stop = cutoff is not None and signed < cutoff
        return Verdict(rung, stop, None if cutoff is None else self._sign * cutoff, len(others))

    def record(self, rung: int, value: float) -> None:
        bisect.insort(self._sorted[rung], self._sign * value)

    def replay(self, values: Mapping[int, float], before: int = 0) -> None:
        """Record a stored trial, that began after epoch `before`: at each rung the value of the first epoch that
        reached it, if it was finite."""
        for rung, epoch in crossings(self._rungs, values, before):
            self.record(rung, values[epoch])


class Promotions:
    """The rungs of one study, at each the trials that got there, and which of them wait.

    One in `reduction_factor` goes on: so many as there were at the rung, divided, rounded down, or up where that is
    `generous`. On a tie the earlier trial is the better one. Values must not be NaN.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: float, maximize: bool) -> None:
        self.rungs = tuple(rungs)
        self._factor = reduction_factor
        self._sign = -1.0 if maximize else 1.0
        self._ranked: dict[int, list[tuple[float, int]]] = {rung: [] for rung in self.rungs}  # the best first
        self._at: dict[int, dict[int, float]] = {rung: {} for rung in self.rungs}
        self._waiting: dict[int, int] = {}  # trial -> its rung

    def record(self, rung: int, trial: int, value: float) -> None:
        """A trial has reached a rung, and waits there from now on."""
        if trial not in self._at[rung]:
            self._at[rung][trial] = self._sign * value
            bisect.insort(self._ranked[rung], (self._sign * value, trial))
        self._waiting[trial] = rung

    def replay(self, trial: int, values: Mapping[int, float], before: int, waits: bool) -> None:
        """Record a stored trial, that began after epoch `before`; `waits`: at the rung of its last epoch, if that was
        one."""
        for rung, epoch in crossings(self.rungs, values, before):
            self.record(rung, trial, values[epoch])
            if not waits or epoch != max(values):
                self.remove(trial)

    def rank(self, rung: int, trial: int) -> tuple[int, int]:
        """Its place at the rung, from 1, and of how many."""
        ranked = self._ranked[rung]
        return bisect.bisect_left(ranked, (self._at[rung][trial], trial)) + 1, len(ranked)

    def quota(self, rung: int, round_up: bool = False) -> int:
        """How many may go on from a rung as it stands."""
        exact = len(self._ranked[rung]) / self._factor
        return math.ceil(exact - 1e-9) if round_up else math.floor(exact + 1e-9)

    def remove(self, trial: int) -> None:
        """A trial goes on, or has ended: it does not wait any more."""
        self._waiting.pop(trial, None)

    @property
    def waiting(self) -> Mapping[int, int]:
        """Trial -> the rung it waits at."""
        return self._waiting

    def next(self, round_up: bool = False) -> int | None:
        """The trial that should go on: of those that may, the one at the highest rung, there the best."""
        held = set(self._waiting.values())
        for rung in reversed(self.rungs):
            if rung not in held:
                continue
            for _, trial in self._ranked[rung][: self.quota(rung, round_up)]:
                if self._waiting.get(trial) == rung:
                    return trial
        return None


def reached(rungs: Sequence[int], before: int, epoch: int) -> int | None:
    """The highest of the rungs that lies in (before, epoch], None when there is none."""
    index = bisect.bisect_right(rungs, epoch) - 1
    return rungs[index] if index >= 0 and rungs[index] > before else None


def crossings(rungs: Sequence[int], values: Mapping[int, float], before: int) -> Iterator[tuple[int, int]]:
    """Of a trial that began after epoch `before`: each rung with the first epoch that reached it, where the value of
    that was finite."""
    for epoch in sorted(values):
        rung = reached(rungs, before, epoch)
        if rung is not None and math.isfinite(values[epoch]):
            yield rung, epoch
        before = epoch


def percentile(ascending: Sequence[float], fraction: float) -> float | None:
    """The `fraction` quantile of sorted values with linear interpolation, as numpy's percentile; None of none."""
    if not ascending:
        return None
    position = (len(ascending) - 1) * fraction
    below = math.floor(position)
    above = min(below + 1, len(ascending) - 1)
    share = position - below
    low, high = ascending[below], ascending[above]
    # Two forms of the same line, as numpy has them, so that both ends come out exact.
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
