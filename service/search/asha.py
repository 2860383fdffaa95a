"""ASHA's arithmetic: when a trial is stopped at a rung. Pure: no storage, no clock, no randomness.

Li et al. 2020, A system for massively parallel hyperparameter tuning; the stopping form that Ray Tune calls
AsyncHyperBandScheduler, whose decisions this reproduces (a property test holds the two together).
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
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
        index = bisect.bisect_right(self._rungs, epoch) - 1
        return self._rungs[index] if index >= 0 and self._rungs[index] > before else None

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

    def replay(self, values: Mapping[int, float]) -> None:
        """Record a stored trial: at each rung the value of the first epoch that reached it, if it was finite."""
        before = 0
        for epoch in sorted(values):
            rung = self.reached(before, epoch)
            if rung is not None and math.isfinite(values[epoch]):
                self.record(rung, values[epoch])
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
