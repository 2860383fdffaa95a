"""Which values a knob takes, and the form in which it takes them."""

from __future__ import annotations

import math
from typing import Any

from dialin.errors import did_you_mean
from dialin.specification.catalogue.knob import Knob
from dialin.specification.domains import Scalar, same
from dialin.texts import show_value

_MOST_BITS = 64


def coerce(knob: Knob, value: Any) -> Scalar:
    """`value` in the form that the knob has: 1e3 is 1000 for a whole number, flip+crop is crop+flip.

    Raises ValueError, which names the value and what is allowed.
    """
    match knob.kind:
        case "choice" | "bool":
            return _choice(knob, value)
        case "parts":
            return _parts(knob, value)
        case "any":
            return _anything(value)
        case _:
            return number(knob, value)


def number(knob: Knob, value: Any) -> int | float:
    """`value` as a number of the knob: an int for a whole one. Raises ValueError, which names what is allowed."""
    checked = _finite(value)
    if knob.kind == "int" and checked != int(checked):
        raise ValueError(f"{checked:g} is not whole, and {knob.name} is")
    _check_bounds(knob, checked)
    if knob.kind == "any":
        return checked
    return int(checked) if knob.kind == "int" else float(checked)


def allowed(knob: Knob) -> str:
    """The values of a knob that is not a number, as the end of an error."""
    if knob.kind == "parts":
        return f"allowed: none, or some of {', '.join(knob.parts)} joined by +"
    return f"allowed: {', '.join(show_value(choice) for choice in knob.choices)}"


def _choice(knob: Knob, value: Any) -> Scalar:
    if not any(same(value, choice) for choice in knob.choices):
        near = did_you_mean(value, map(str, knob.choices)) if isinstance(value, str) else allowed(knob)
        raise ValueError(f"{show_value(value)} is not a value of {knob.name}; {near}")
    return value  # type: ignore[no-any-return]


def _parts(knob: Knob, value: Any) -> str:
    if value == "none":
        return "none"
    named = value.split("+") if isinstance(value, str) else []
    wrong = [part for part in named if part not in knob.parts]
    if wrong:
        near = did_you_mean(wrong[0], knob.parts)
        raise ValueError(f"{show_value(value)} is not a value of {knob.name}; {near}; {allowed(knob)}")
    if not named or len(set(named)) < len(named):
        raise ValueError(f"{show_value(value)} is not a value of {knob.name}; {allowed(knob)}")
    return "+".join(part for part in knob.parts if part in named)


def _anything(value: Any) -> Scalar:
    if isinstance(value, bool | str):
        return value
    if not isinstance(value, int | float):
        raise ValueError(f"{show_value(value)} is not a value; allowed: numbers, text, true and false")
    return _finite(value)


def _finite(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{show_value(value)} is not a number")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:  # also keeps float() from overflowing
        raise ValueError(f"a number of {value.bit_length()} bits is out of bounds")
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    return value


def _check_bounds(knob: Knob, value: float) -> None:
    if not knob.within_bounds(value):
        low = f"{'above' if knob.low_open else 'at least'} {knob.low:g}"
        high = f"{'below' if knob.high_open else 'at most'} {knob.high:g}"
        raise ValueError(f"{value:g} is out of bounds; {knob.name} is {low} and {high}")
