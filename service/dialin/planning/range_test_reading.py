"""Reads the learning rate to search about off the curves of learning-rate range tests.

The method "minimum" weighs two opinions, on a log scale: the rate at which the loss on held-out images is lowest, which
is too high for a whole training, and the catalogue's default, which is too low for a short one. It was made on 51
combinations of digits; `tests/benchmarks/lr_rules.py` judges it on others, beside the other methods. "third" takes a
third of the rate of the lowest loss. "knees" takes the middle of the range between the rates where accuracy starts to
rise and where it starts to fall (Smith 2017, Cyclical learning rates for training neural networks, section 3.3). This
module is pure: it neither trains nor loads torch.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from dialin.specification.range_tests import Curve, Method, Reading

# Thresholds as fractions of the height of the accuracy curve, from its start to its maximum.
RISE = 0.1
"""The curve starts to rise where it passes this fraction of its height."""
FALL = 0.1
"""The curve starts to fall where it has lost this fraction of its height."""
FLAT = 0.1
"""A curve whose accuracy gains less than this is called flat: its knees are not trusted."""
DISAGREE = 0.5
"""Seeds disagree when one differs from the mean by more than this many decades."""

WEIGHT_OF_MINIMUM = 0.6
"""The method minimum: the weight of the rate of the lowest loss, beside that of the default, in a geometric mean."""
BELOW_MINIMUM = 3.0
"""The method third: the rate is that of the lowest loss divided by this."""
FIRST_RATES = 0.25
"""A loss that is lowest within this fraction of the rates, the first ones, did not fall because of training."""
ABOUT = 10.0
"""The bounds are the rate divided by this, and multiplied by it: on what "minimum" was made on, they held a good rate
in 447 of 449 readings of high confidence. In all 34 others it was within a factor 100 of the default."""

Points = Mapping[str, float | None]


def read_curves(curves: Sequence[Curve], method: Method, default: float = math.nan) -> Reading:
    """Return the points, the rate and the bounds of several seeds together: the geometric mean over the seeds that have
    a point.

    `default`: the catalogue's default beside the configuration that was tested, which the method minimum needs. Raises
    ValueError when no curve has at least three points.
    """
    usable = [curve for curve in curves if len(curve.rates) >= 3]
    if not usable:
        raise ValueError("training diverged within the first three steps for every seed")
    each = [_points(curve) for curve in usable]
    together = {name: _geometric_mean([points[name] for points in each]) for name in each[0]}
    together["diverges"] = _geometric_mean([curve.diverged_at for curve in curves])
    if method == "knees":
        low, high = _knees(together, usable)
        doubts = _doubts_of_knees(usable, each, low, high)
        return Reading(**together, low=low, high=high, doubts=doubts, rate=math.sqrt(low * high))
    doubts, minimum = _doubts_of_minimum(usable, each), together["loss_minimum"]
    if minimum is None:
        return Reading(**together, low=None, high=None, doubts=doubts)
    rate = _rate_of(minimum, method, default)
    return Reading(**together, low=rate / ABOUT, high=rate * ABOUT, doubts=doubts, rate=rate)


def _rate_of(minimum: float, method: Method, default: float) -> float:
    """The rate that follows from that of the lowest loss."""
    if method == "third":
        return minimum / BELOW_MINIMUM
    rate: float = minimum**WEIGHT_OF_MINIMUM * default ** (1 - WEIGHT_OF_MINIMUM)
    return rate


def _points(curve: Curve) -> dict[str, float | None]:
    """The named points of one curve, as rates; None where the curve has no such point."""
    return {**_accuracy_points(curve.rates, curve.accuracies), **_loss_points(curve.rates, curve.losses)}


def _accuracy_points(rates: Sequence[float], accuracies: Sequence[float]) -> dict[str, float | None]:
    top = max(range(len(rates)), key=lambda index: accuracies[index])
    start = statistics.median(accuracies[: max(1, top // 4)])
    height = accuracies[top] - start
    if height <= 0:
        return {"rises": None, "falls": None, "peak": None}
    # The search for the rise goes down from the top, so that noise before the climb does not count as a rise.
    below = next((i for i in range(top, -1, -1) if accuracies[i] < start + RISE * height), -1)
    falls = next((rates[i] for i in range(top, len(rates)) if accuracies[i] <= accuracies[top] - FALL * height), None)
    return {"rises": rates[below + 1], "falls": falls, "peak": rates[top]}


def _loss_points(rates: Sequence[float], losses: Sequence[float]) -> dict[str, float | None]:
    bottom = min(range(len(rates)), key=lambda index: losses[index])
    # A slope is taken over a tenth of the curve, so that one noisy step does not count as the steepest descent.
    reach = max(1, len(rates) // 10)
    slopes = [losses[min(i + reach, bottom)] - losses[max(0, i - reach)] for i in range(bottom + 1)]
    steepest = min(range(len(slopes)), key=lambda index: slopes[index])
    return {
        "steepest": None if slopes[steepest] >= 0 else rates[steepest],
        "loss_minimum": rates[bottom] if bottom > FIRST_RATES * len(rates) else None,
    }


def _knees(points: Points, curves: Sequence[Curve]) -> tuple[float, float]:
    last = min(curve.rates[-1] for curve in curves)
    high = points["falls"] or points["diverges"] or last
    low = points["rises"] or high / 100
    return (low, high) if low < high else (high / 10, high)


def _doubts_of_knees(curves: Sequence[Curve], each: Sequence[Points], low: float, high: float) -> tuple[str, ...]:
    """Reasons not to trust the knees, as sentences; empty when there is none."""
    doubts = []
    gain = statistics.median([max(curve.accuracies) - curve.accuracies[0] for curve in curves])
    if gain < FLAT:
        doubts.append(f"the curve is flat: accuracy rose by {gain:.3f} only")
    if all(points["falls"] is None for points in each) and all(curve.diverged_at is None for curve in curves):
        doubts.append("up to the highest rate accuracy did not fall and training did not diverge")
    doubts += _disagreements(each, {"rises": "accuracy starts to rise", "peak": "accuracy is highest"})
    if high / low < 2:
        doubts.append(f"the bounds {low:.2g} and {high:.2g} are less than a factor of 2 apart")
    return tuple(doubts)


def _doubts_of_minimum(curves: Sequence[Curve], each: Sequence[Points]) -> tuple[str, ...]:
    """Reasons not to trust the lowest loss, as sentences; empty when there is none."""
    minima = [points["loss_minimum"] for points in each]
    if not any(minima):
        return ("the loss did not fall: it is lowest within the first quarter of the rates",)
    doubts = _disagreements(each, {"loss_minimum": "the loss is lowest"})
    if all(rate == curve.rates[-1] and curve.diverged_at is None for rate, curve in zip(minima, curves, strict=True)):
        doubts.append("the loss still fell at the highest rate")
    return tuple(doubts)


def _disagreements(each: Sequence[Points], names: Mapping[str, str]) -> list[str]:
    found = []
    for name, text in names.items():
        decades = [math.log10(rate) for points in each if (rate := points[name]) is not None]
        if len(decades) > 1 and (spread := max(decades) - min(decades)) > 2 * DISAGREE:
            found.append(f"seeds disagree by {spread:.1f} decades on where {text}")
    return found


def _geometric_mean(values: Sequence[float | None]) -> float | None:
    """The mean on a log scale of the values that are there; None when there is none."""
    found = [math.log(value) for value in values if value is not None]
    return math.exp(sum(found) / len(found)) if found else None
