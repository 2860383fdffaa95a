"""What a learning-rate range test is asked for, what it records, and what is read off its curves. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dialin.specification.domains import Scalar

Method = Literal["knees", "third"]

RISE, FALL = 0.1, 0.1  # of the way from where accuracy started to its maximum
FLAT = 0.1  # an accuracy that rises by less than this says nothing
DISAGREE = 0.5  # decades between seeds


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


def read_curves(curves: Sequence[Curve], method: Method) -> Reading:
    """Read the curves of several seeds: each point is the geometric mean over the seeds that have it.

    Raises ValueError when there is no curve with at least three points.
    """
    usable = [curve for curve in curves if len(curve.rates) >= 3]
    if not usable:
        raise ValueError("no curve has three points: every run broke down at once")
    each = [_points(curve) for curve in usable]
    together = {name: _mean([points[name] for points in each]) for name in each[0]}
    together["diverges"] = _mean([curve.diverged_at for curve in curves])
    low, high = _bounds(together, usable, method)
    return Reading(**together, low=low, high=high, doubts=_doubts(usable, each, low, high))


def _points(curve: Curve) -> dict[str, float | None]:
    rates, accuracies, losses = curve.rates, curve.accuracies, curve.losses
    top = max(range(len(rates)), key=lambda index: accuracies[index])
    start = statistics.median(accuracies[: max(1, top // 4)])
    height = accuracies[top] - start
    # From the top down, so that noise before the climb is no rise.
    below = next((i for i in range(top, -1, -1) if accuracies[i] < start + RISE * height), -1)
    rises = rates[below + 1]
    falls = next((rates[i] for i in range(top, len(rates)) if accuracies[i] <= accuracies[top] - FALL * height), None)
    bottom = min(range(len(rates)), key=lambda index: losses[index])
    # Over a tenth of the curve, so that one noisy step is no slope.
    reach = max(1, len(rates) // 10)
    slopes = {i: losses[min(i + reach, bottom)] - losses[max(0, i - reach)] for i in range(bottom + 1)}
    steepest = min(slopes, key=lambda index: slopes[index]) if slopes else None
    return {
        "rises": rises if height > 0 else None,
        "falls": falls if height > 0 else None,
        "peak": rates[top] if height > 0 else None,
        "steepest": None if steepest is None or slopes[steepest] >= 0 else rates[steepest],
        "loss_minimum": rates[bottom],
    }


def _bounds(points: dict[str, float | None], curves: Sequence[Curve], method: Method) -> tuple[float, float]:
    last = min(curve.rates[-1] for curve in curves)
    peak = points["peak"] or last
    if method == "third":
        return peak / 3, peak
    high = points["falls"] or points["diverges"] or last
    low = points["rises"] or high / 100
    return (low, high) if low < high else (high / 10, high)


def _doubts(
    curves: Sequence[Curve], each: Sequence[dict[str, float | None]], low: float, high: float
) -> tuple[str, ...]:
    doubts = []
    gains = [max(curve.accuracies) - curve.accuracies[0] for curve in curves]
    if statistics.median(gains) < FLAT:
        doubts.append(f"the curve is flat: accuracy rose by {statistics.median(gains):.3f} only")
    if all(points["falls"] is None for points in each) and all(curve.diverged_at is None for curve in curves):
        doubts.append("nothing fell or diverged up to the highest rate")
    for name, text in (("rises", "starts to rise"), ("peak", "is highest")):
        found = [math.log10(value) for points in each if (value := points[name]) is not None]
        if len(found) > 1 and max(found) - min(found) > 2 * DISAGREE:
            doubts.append(f"seeds disagree by {max(found) - min(found):.1f} decades on where accuracy {text}")
    if high / low < 2:
        doubts.append(f"the bounds {low:.2g} and {high:.2g} are less than a factor of 2 apart")
    return tuple(doubts)


def _mean(values: Sequence[float | None]) -> float | None:
    found = [math.log(value) for value in values if value is not None]
    return math.exp(sum(found) / len(found)) if found else None


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
