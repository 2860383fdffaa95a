"""The arithmetic of ASHA: when a trial is stopped at a rung or promoted from it. Pure: no storage, clock or randomness.

Li et al. 2020, A system for massively parallel hyperparameter tuning. `Asha` is the stopping form that Ray Tune calls
AsyncHyperBandScheduler, and makes the same decisions (a property test compares the two); `Promotions` is the paper's
own form (algorithm 2): a trial is paused at each rung until it is among the best there.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """The comparison of one value with the others at its rung."""

    rung: int
    """The epoch count at which the values are compared."""
    stop: bool
    """Whether the value is worse than the cutoff."""
    cutoff: float | None
    """The value that is needed to train on; None for the first trial that reaches the rung."""
    compared: int
    """How many other values there are."""


class Asha:
    """The rungs of one study, with the values of the trials that have reached each.

    `rungs`: epochs, rising. `maximize`: whether larger values are better. Values must not be NaN.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: float, maximize: bool) -> None:
        self._rungs = tuple(rungs)
        # Ray computes it as a percentage: the same rounding errors give the same decisions at ties.
        self._quantile = (1 - 1 / reduction_factor) * 100 / 100
        self._sign = 1.0 if maximize else -1.0
        self._sorted: dict[int, list[float]] = {rung: [] for rung in self._rungs}

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which values are compared, rising."""
        return self._rungs

    def values_at(self, rung: int) -> tuple[float, ...]:
        """The values recorded at `rung`, from the worst to the best."""
        return tuple(self._sign * value for value in self._sorted[rung])

    def reached(self, before: int, epoch: int) -> int | None:
        """The highest rung in (before, epoch]; None when there is none."""
        return reached(self._rungs, before, epoch)

    def judge(self, rung: int, value: float, *, recorded: bool = False) -> Verdict:
        """Compare the value of a trial at a rung with the others there. Records nothing.

        `recorded`: the value is among those of the rung already, and is left out of the comparison.
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
        """Add the value of a trial that has reached the rung."""
        bisect.insort(self._sorted[rung], self._sign * value)

    def replay(self, values: Mapping[int, float], before: int = 0) -> None:
        """Record a stored trial, which began after epoch `before`: at each rung the value of the first epoch that
        reached it, if that is finite."""
        for rung, epoch in crossings(self._rungs, values, before):
            self.record(rung, values[epoch])


class PausedAtRungs:
    """The trials that have reached each rung of one study, and which of them are paused there.

    At a rung that n trials have reached, floor(n / reduction_factor) may be promoted, or the ceiling of that with
    `round_up`. A subclass says what orders the trials of a rung.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: float) -> None:
        self.rungs = tuple(rungs)
        self._factor = reduction_factor
        self._paused: dict[int, int] = {}  # trial -> its rung

    def reached(self, rung: int) -> int:
        """How many trials have reached a rung."""
        raise NotImplementedError

    def best(self, rung: int, count: int) -> Sequence[int]:
        """The best so many trials of a rung, the best one first."""
        raise NotImplementedError

    def quota(self, rung: int, round_up: bool = False) -> int:
        """How many of the trials that have reached a rung so far may be promoted."""
        exact = self.reached(rung) / self._factor
        return math.ceil(exact - 1e-9) if round_up else math.floor(exact + 1e-9)

    def remove(self, trial: int) -> None:
        """A trial trains on, or has ended: it is not paused any more."""
        self._paused.pop(trial, None)

    @property
    def paused(self) -> Mapping[int, int]:
        """The paused trials, each with its rung."""
        return self._paused

    def next(self, round_up: bool = False) -> int | None:
        """The trial to promote: of those that may be, the best one at the highest rung; None when there is none."""
        held = set(self._paused.values())
        for rung in reversed(self.rungs):
            if rung not in held:
                continue
            for trial in self.best(rung, self.quota(rung, round_up)):
                if self._paused.get(trial) == rung:
                    return trial
        return None


class Promotions(PausedAtRungs):
    """The rungs of one study with one metric. On a tie the earlier trial is the better one. Values must not be NaN."""

    def __init__(self, rungs: Sequence[int], reduction_factor: float, maximize: bool) -> None:
        super().__init__(rungs, reduction_factor)
        self._sign = -1.0 if maximize else 1.0
        self._ranked: dict[int, list[tuple[float, int]]] = {rung: [] for rung in self.rungs}  # the best first
        self._at: dict[int, dict[int, float]] = {rung: {} for rung in self.rungs}

    def record(self, rung: int, trial: int, value: float) -> None:
        """A trial has reached a rung, and is paused there."""
        if trial not in self._at[rung]:
            self._at[rung][trial] = self._sign * value
            bisect.insort(self._ranked[rung], (self._sign * value, trial))
        self._paused[trial] = rung

    def replay(self, trial: int, values: Mapping[int, float], before: int, pauses: bool) -> None:
        """Record a stored trial, which began after epoch `before`; `pauses`: it is paused, if its last epoch was a
        rung."""
        for rung, epoch in crossings(self.rungs, values, before):
            self.record(rung, trial, values[epoch])
            if not pauses or epoch != max(values):
                self.remove(trial)

    def rank(self, rung: int, trial: int) -> tuple[int, int]:
        """The rank of a trial at a rung, from 1 for the best, and the number of trials there."""
        ranked = self._ranked[rung]
        return bisect.bisect_left(ranked, (self._at[rung][trial], trial)) + 1, len(ranked)

    def reached(self, rung: int) -> int:
        """How many trials have reached a rung."""
        return len(self._ranked[rung])

    def best(self, rung: int, count: int) -> Sequence[int]:
        """The best so many trials of a rung, the best one first."""
        return [trial for _, trial in self._ranked[rung][:count]]


def reached(rungs: Sequence[int], before: int, epoch: int) -> int | None:
    """The highest of the rungs in (before, epoch]; None when there is none."""
    index = bisect.bisect_right(rungs, epoch) - 1
    return rungs[index] if index >= 0 and rungs[index] > before else None


def crossings(rungs: Sequence[int], values: Mapping[int, float], before: int) -> Iterator[tuple[int, int]]:
    """Of a trial that began after epoch `before`: each rung with the first epoch that reached it, where the value of
    that epoch is finite."""
    for epoch in sorted(values):
        rung = reached(rungs, before, epoch)
        if rung is not None and math.isfinite(values[epoch]):
            yield rung, epoch
        before = epoch


def percentile(ascending: Sequence[float], fraction: float) -> float | None:
    """The `fraction` quantile of sorted values with linear interpolation, as numpy computes it; None for no values."""
    if not ascending:
        return None
    position = (len(ascending) - 1) * fraction
    below = math.floor(position)
    above = min(below + 1, len(ascending) - 1)
    weight = position - below
    low, high = ascending[below], ascending[above]
    # numpy's two forms of the same line, which are exact at both ends.
    return low + (high - low) * weight if weight < 0.5 else high - (high - low) * (1 - weight)
