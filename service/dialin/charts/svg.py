"""The parts of charts: SVG elements that escape what they are given, and scales with round ticks. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Attribute = str | int | float | None

LOG_RATIO = 1000  # a linear axis would draw values of different powers of ten on one line
OUTLIER_REACH = 2  # values this many times the range of the middle 80 % away from that range are outliers


def tag(name: str, *children: str, **attributes: Attribute) -> Markup:
    """Return an element with attributes and children, all escaped except children that are Markup already.

    Underscores in the name of an attribute become hyphens; one at its end is dropped (`class_`). An attribute whose
    value is None is left out. Floats are written with at most two decimals.
    """
    # Each string is escaped by itself, because Markup's own formatting takes five times as long.
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join([str(escape(child)) for child in children])
    return Markup(f"<{name}{written}>{inside}</{name}>")


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Return coordinates in the format of the attribute `points` of a polyline: `x,y x,y ...`."""
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in pairs)


def _number(value: Attribute) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to coordinates between `start` and `end`; values beyond are clamped."""

    low: float
    high: float
    """Above `low`."""
    start: float
    """The coordinate of `low`."""
    end: float
    """The coordinate of `high`; it may be smaller than `start`, as on a vertical axis."""
    log: bool = False
    """Whether the scale is logarithmic; `low` is then above 0."""

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        low, high = self._transform(self.low), self._transform(self.high)
        fraction = (self._transform(value) - low) / (high - low)
        return self.start + fraction * (self.end - self.start)

    def _transform(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, most: int = 5) -> list[float]:
        """Return about `most` round values between the ends."""
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)


def scale_over(
    values: Iterable[float],
    start: float,
    end: float,
    *,
    log: bool | None = False,
    room: float = 0.04,
    whole: bool = False,
) -> Scale:
    """Return a scale over the values, with a fraction `room` of free space at both ends.

    Outliers lie beyond the ends, since the other values would otherwise share a few pixels; with `whole` the scale
    includes them. On a logarithmic scale, outliers are found by the logarithms. `log`: None makes the scale logarithmic
    where the values span more than a factor of LOG_RATIO.
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    extent = _ends if whole else _extent_without_outliers
    low, high = extent(ordered)
    if _is_log(log, ordered, high / low if low > 0 else math.inf):
        powers = extent([math.log10(value) for value in ordered])
        return _log_scale(*powers, start, end, room)
    # A scale over one value needs a width too: a tenth of the value, or 1 around 0.
    margin = (high - low) * room or abs(high) * 0.1 or 1.0
    return Scale(low - margin, high + margin, start, end)


def _is_log(log: bool | None, ordered: Sequence[float], ratio: float) -> bool:
    """Whether a scale is logarithmic; never with a value that has no logarithm. `ratio`: its high end over its low."""
    if not ordered or ordered[0] <= 0:
        return False
    return ratio > LOG_RATIO if log is None else log


def _log_scale(low_power: float, high_power: float, start: float, end: float, room: float) -> Scale:
    low, high = 10.0**low_power, 10.0**high_power
    wider = (high / low) ** room if high > low else 1.5
    return Scale(low / wider, high * wider, start, end, log=True)


def _ends(ordered: Sequence[float]) -> tuple[float, float]:
    """The first and the last of sorted values; 0 and 1 when there are none."""
    return (ordered[0], ordered[-1]) if ordered else (0.0, 1.0)


def _extent_without_outliers(ordered: Sequence[float]) -> tuple[float, float]:
    """The ends of sorted values; outliers are cut off at OUTLIER_REACH. Fewer than ten values have no outliers."""
    tenth = len(ordered) // 10
    if tenth == 0:
        return _ends(ordered)
    usual_low, usual_high = ordered[tenth], ordered[-1 - tenth]
    if usual_high == usual_low:
        return _ends(ordered)
    reach = OUTLIER_REACH * (usual_high - usual_low)
    return max(ordered[0], usual_low - reach), min(ordered[-1], usual_high + reach)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    # The tolerances keep a step or an end that rounding has moved by the last bit.
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    inside = [value for power in range(first, last + 1) if low <= (value := 10.0**power) <= high]
    if len(inside) >= 3:
        return inside[:: math.ceil(len(inside) / most)]
    # Fewer than three powers of ten leave most of the axis without a label.
    finer = [base * 10.0**power for power in range(first, last + 1) for base in (1, 2, 5)]
    return [float(f"{value:.10g}") for value in finer if low <= value <= high]


def tick_text(value: float) -> str:
    """Return the short label of a tick, such as 0.01 or 3e-5."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.6g}"
