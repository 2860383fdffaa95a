"""What charts are drawn with: elements that escape whatever they are given, and scales with round ticks. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Attribute = str | int | float | None


def tag(name: str, *children: str, **attributes: Attribute) -> Markup:
    """An element. Text and attributes are escaped; what is Markup already goes in as it is. An underscore at the end of
    an attribute's name falls away, others become hyphens; None leaves an attribute out; numbers get two decimals."""
    # Plain strings, each escaped by itself: Markup's formatting takes five times as long, and charts have thousands.
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inside = "".join([str(escape(child)) for child in children])
    return Markup(f"<{name}{written}>{inside}</{name}>")


def points(pairs: Iterable[tuple[float, float]]) -> str:
    """What a polyline wants: `x,y x,y ...`."""
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in pairs)


def _number(value: Attribute) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)


@dataclass(frozen=True)
class Scale:
    """From values between `low` and `high` to places between `start` and `end`; what lies beyond is put at the edge."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        share = (self._bend(value) - self._bend(self.low)) / (self._bend(self.high) - self._bend(self.low))
        return self.start + share * (self.end - self.start)

    def _bend(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def ticks(self, most: int = 5) -> list[float]:
        """Round values between the ends: at most about `most` of them."""
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
    """A scale that holds the values, with some `room` at both ends. Few values far from all others do not count, on a
    logarithmic scale by their logarithms: they would leave no height for the rest. `whole`: they count. `log` None:
    where the values span more than three powers of ten."""
    ordered = sorted(value for value in values if math.isfinite(value))
    extent = _ends if whole else _extent
    low, high = extent(ordered)
    if log is None:
        log = low > 0 and high / low > 1000
    if log and ordered and ordered[0] > 0:
        low, high = (10.0**power for power in extent([math.log10(value) for value in ordered]))
        wider = (high / low) ** room if high > low else 1.5
        return Scale(low / wider, high * wider, start, end, log=True)
    more = (high - low) * room or abs(high) * 0.1 or 1.0
    return Scale(low - more, high + more, start, end)


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
    """A tick's label: short."""
    if value and not 1e-3 <= abs(value) < 1e5:
        mantissa, _, power = f"{value:.0e}".partition("e")
        return f"{mantissa}e{int(power)}"
    return f"{value:.6g}"
