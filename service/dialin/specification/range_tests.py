"""Records of the learning-rate range test: the sweep asked for, its curves, what was read off them, and the bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dialin.specification.domains import Scalar

Method = Literal["knees", "third"]


@dataclass(frozen=True)
class Sweep:
    """Rates from `low` to `high` in `steps` equal ratios."""

    low: float = 1e-6
    high: float = 10.0
    steps: int = 200

    def rates(self) -> list[float]:
        ratio = (self.high / self.low) ** (1 / max(1, self.steps - 1))
        return [self.low * ratio**step for step in range(self.steps)]


@dataclass(frozen=True)
class Curve:
    """One run: after each step its rate, and smoothed loss and accuracy on held-out images. `diverged_at`: the rate
    that ended it early; None when it came through."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    accuracies: tuple[float, ...]
    diverged_at: float | None = None


@dataclass(frozen=True)
class Reading:
    """What the curves of several seeds say together. All rates; None where a curve has no such point.

    `rises` and `falls` are where accuracy starts to rise and to fall, `peak` where it is highest, `steepest` where the
    loss falls fastest over the logarithm of the rate, `loss_minimum` where it is lowest, `diverges` where training
    broke down. `low` and `high` are the suggested bounds. `doubts` is empty at high confidence.
    """

    rises: float | None
    falls: float | None
    peak: float | None
    steepest: float | None
    loss_minimum: float | None
    diverges: float | None
    low: float
    high: float
    doubts: tuple[str, ...]

    @property
    def confident(self) -> bool:
        return not self.doubts


@dataclass(frozen=True)
class RateBounds:
    """The bounds of one combination of knobs: `low` to `high`, whether as read off the curves or, at low confidence, as
    the catalogue has them."""

    combination: Mapping[str, Scalar]
    low: float
    high: float
    reading: Reading | None
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Calibration:
    """What the range tests of a study found, what they cost in epochs of training, and what to be wary of."""

    bounds: tuple[RateBounds, ...]
    epochs: float
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What was found, for a person: warnings, the cost, and a line a combination."""
        found = [f"warning: {warning}" for warning in self.warnings]
        found.append(f"range tests took as much as {self.epochs:.1f} epochs of training; learning rates searched:")
        for tested in self.bounds:
            name = ", ".join(f"{knob} {value}" for knob, value in tested.combination.items()) or "every trial"
            found.append(f"  {tested.low:.2g} to {tested.high:.2g}  {name}")
        return found

    def bounds_for(self, params: Mapping[str, Scalar]) -> RateBounds:
        """Those of the combination that a configuration belongs to; of numbers, the nearest on a log scale."""
        return min(self.bounds, key=lambda tested: _distance(tested.combination, params))


def at_share(bounds: RateBounds, share: float) -> float:
    """The rate at a share from 0 to 1 of the way between the bounds, on a log scale."""
    return float(bounds.low * (bounds.high / bounds.low) ** share)


def share_of(bounds: RateBounds, lr: float) -> float:
    """The inverse of `at_share`, cut at 0 and 1."""
    return min(1.0, max(0.0, math.log(lr / bounds.low) / math.log(bounds.high / bounds.low)))


def _distance(combination: Mapping[str, Scalar], params: Mapping[str, Scalar]) -> float:
    total = 0.0
    for name, value in combination.items():
        other = params.get(name)
        if value == other:
            continue
        one, two = _number(value), _number(other)
        if one is not None and two is not None and one > 0 and two > 0:
            total += abs(math.log(one / two))
        else:
            total += 1e6
    return total


def _number(value: Scalar) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
