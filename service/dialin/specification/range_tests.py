"""Records of the learning-rate range test: the sweep asked for, its curves, the rate read off them, and the bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dialin.specification.domains import Scalar

Method = Literal["knees", "third", "minimum"]
"""How a rate is read off the curves; `planning.range_test_reading` describes them."""
_NO_NUMBERS = 1e6


@dataclass(frozen=True)
class Sweep:
    """The learning rates of one test, evenly spaced on a log scale.

    low: the first rate.
    high: the last rate.
    steps: how many rates, which is one a training step.
    """

    low: float = 1e-6
    high: float = 10.0
    steps: int = 200

    def rates(self) -> list[float]:
        """The rates, rising from `low` to `high`."""
        ratio = (self.high / self.low) ** (1 / max(1, self.steps - 1))
        return [self.low * ratio**step for step in range(self.steps)]


@dataclass(frozen=True)
class Curve:
    """What one test recorded.

    rates: the learning rate of each step.
    losses: the smoothed loss on held-out images after each step.
    accuracies: the smoothed accuracy on held-out images after each step, from 0 to 1.
    diverged_at: the rate at which training diverged, which ended the test early; None when it reached the last rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    diverged_at: float | None = None


@dataclass(frozen=True)
class Reading:
    """What the curves of several seeds show together: learning rates, None where no curve has such a point.

    rises: where accuracy starts to rise.
    falls: where accuracy falls below its maximum.
    peak: where accuracy is highest.
    steepest: where the loss falls fastest over the logarithm of the rate.
    loss_minimum: where the loss is lowest.
    diverges: where training diverged.
    low: the suggested lower bound of the search; None where no rate was read.
    high: the suggested upper bound of the search; likewise.
    doubts: why the rate may be wrong, a sentence each; empty at high confidence.
    rate: the learning rate to search about, at the middle of the bounds on a log scale; None where the curves show
    none, and in what versions before 2026-11-26 stored, which read bounds only.
    """

    rises: float | None
    falls: float | None
    peak: float | None
    steepest: float | None
    loss_minimum: float | None
    diverges: float | None
    low: float | None
    high: float | None
    doubts: tuple[str, ...]
    rate: float | None = None

    @property
    def confident(self) -> bool:
        """Whether nothing speaks against the rate."""
        return not self.doubts


@dataclass(frozen=True)
class RateBounds:
    """The bounds of the learning rate for one combination of knobs.

    combination: the knobs that the test was made for, with their values; empty: every trial.
    low: the lower bound of the search.
    high: the upper bound.
    reading: what the curves show; None when there was no curve to read.
    curves: the curves, one for each seed.
    rate: the rate that the search starts from, at the middle of the bounds on a log scale: as read off the curves or,
    at low confidence, the catalogue's default. None in what versions before 2026-11-26 stored: their bounds are not
    about a rate.
    """

    combination: Mapping[str, Scalar]
    low: float
    high: float
    reading: Reading | None
    curves: tuple[Curve, ...]
    rate: float | None = None

    def rate_at(self, unit: float) -> float:
        """The rate at `unit`, from 0 (the lower bound) to 1 (the upper bound) on a log scale."""
        return float(self.low * (self.high / self.low) ** unit)

    def unit_of(self, rate: float) -> float:
        """The inverse of `rate_at`; 0 or 1 for a rate beyond the bounds."""
        return min(1.0, max(0.0, math.log(rate / self.low) / math.log(self.high / self.low)))

    def text(self) -> str:
        """The rate and the bounds: "0.012 (searched from 0.0012 to 0.12)"; only the bounds where there is no rate."""
        bounds = f"{self.low:.2g} to {self.high:.2g}"
        return bounds if self.rate is None else f"{self.rate:.2g} (searched from {bounds})"


@dataclass(frozen=True)
class Calibration:
    """What the range tests of a study found.

    bounds: the bounds of each combination that was tested.
    epochs: what the tests cost, in epochs of one trial's training.
    warnings: what to be careful about, a sentence each.
    """

    bounds: tuple[RateBounds, ...]
    epochs: float
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The findings as text: the warnings, the cost, and one line for each combination."""
        found = [f"warning: {warning}" for warning in self.warnings]
        found.append(f"the range tests cost as much as {self.epochs:.1f} epochs of training; learning rates to search:")
        for tested in self.bounds:
            name = ", ".join(f"{knob} {value}" for knob, value in tested.combination.items()) or "every trial"
            found.append(f"  {tested.text()}  {name}")
        return found

    def bounds_for(self, params: Mapping[str, Scalar]) -> RateBounds:
        """The bounds for a configuration: those of its combination, or of the nearest one on a log scale."""
        return min(self.bounds, key=lambda tested: _distance(tested.combination, params))


def _distance(combination: Mapping[str, Scalar], params: Mapping[str, Scalar]) -> float:
    """The sum of the log ratios; values that are no numbers, and differ, are farther apart than any numbers."""
    total = 0.0
    for name, value in combination.items():
        other = params.get(name)
        if value == other:
            continue
        one, two = _number(value), _number(other)
        if one is not None and two is not None and one > 0 and two > 0:
            total += abs(math.log(one / two))
        else:
            total += _NO_NUMBERS
    return total


def _number(value: Scalar) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
