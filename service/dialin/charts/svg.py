"""The parts of charts: SVG elements that escape what they are given, and scales with round ticks. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Attribute = str | int | float | None


def tag(name: str, *children: str, **attributes: Attribute) -> Markup:
    """An element with its attributes and children, all of them escaped; children that are Markup stay as they are.

    In an attribute's name, underscores become hyphens, and one at the end is dropped. None leaves an attribute out.
    Numbers are written with two decimals.
    """
    # Plain strings, each escaped by itself: Markup's own formatting takes five times as long.
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join([str(escape(child)) for child in children])
    return Markup(f"<{name}{written}>{inside}</{name}>")


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """Coordinates as a polyline takes them: `x,y x,y ...`."""
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in pairs)


def _number(value: Attribute) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


@dataclass(frozen=True)
class Scale:
    """Maps values between `low` and `high` to coordinates between `start` and `end`; values beyond lie at the edge."""

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
        share = (self._bend(value) - self._bend(self.low)) / (self._bend(self.high) - self._bend(self.low))
        return self.start + share * (self.end - self.start)

    def _bend(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, most: int = 5) -> list[float]:
        """Round values between the ends, about `most` of them at most."""
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
    """A scale over the values, with a fraction `room` of free space at both ends.

    A few values far from all others (on a logarithmic scale, far by their logarithms) lie outside, since they would
    leave no height for the rest; with `whole` the scale holds them too. `log`: None makes the scale logarithmic where
    the values span more than three powers of ten.
    """
    ordered = sorted(value for value in values if math.isfinite(value))
    extent = _ends if whole else _extent
    low, high = extent(ordered)
    if log is None:
        log = low > 0 and high / low > 1000
    if log and ordered and ordered[0] > 0:
        powers = extent([math.log10(value) for value in ordered])
        return _log_scale(*powers, start, end, room)
    more = (high - low) * room or abs(high) * 0.1 or 1.0
    return Scale(low - more, high + more, start, end)


def _log_scale(low_power: float, high_power: float, start: float, end: float, room: float) -> Scale:
    low, high = 10.0**low_power, 10.0**high_power
    wider = (high / low) ** room if high > low else 1.5
    return Scale(low / wider, high * wider, start, end, log=True)


def _ends(ordered: Sequence[float]) -> tuple[float, float]:
    return (ordered[0], ordered[-1]) if ordered else (0.0, 1.0)


def _extent(ordered: Sequence[float]) -> tuple[float, float]:
    if not ordered:
        return _ends(ordered)
    tenth = len(ordered) // 10
    usual_low, usual_high = ordered[tenth], ordered[-1 - tenth]
    if tenth == 0 or usual_high == usual_low:
        return ordered[0], ordered[-1]
    reach = 2 * (usual_high - usual_low)
    return max(ordered[0], usual_low - reach), min(ordered[-1], usual_high + reach)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{index * step:.10g}") for index in range(first, last + 1)]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    decades = [10.0**power for power in range(first, last + 1, every)]
    inside = [value for value in decades if low <= value <= high]
    if len(inside) >= 3:
        return inside
    finer = [base * 10.0**power for power in range(first, last + 1) for base in (1, 2, 5)]
    return [float(f"{value:.10g}") for value in finer if low <= value <= high]


def tick_text(value: float) -> str:
    """The short label of a tick."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.6g}"
