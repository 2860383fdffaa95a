"""The values that a knob may take: fixed, a choice, or a range; each with an optional condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Scalar = bool | int | float | str | None
"""One value of a knob."""

Condition = Mapping[str, tuple[Scalar, ...]]
"""Knob name -> the values under which the condition holds; all entries must hold. Empty: always."""

ALWAYS: Condition = {}


@dataclass(frozen=True)
class Fixed:
    """A knob that does not move."""

    value: Scalar
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """One of at least two distinct values, without order."""

    values: tuple[Scalar, ...]
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class FloatRange:
    """low <= value <= high; `log` samples uniformly in log(value); `step` keeps to low + k * step. Not both."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class IntRange:
    """low <= value <= high, both included, a whole number; `log` and a `step` other than 1 exclude each other."""

    low: int
    high: int
    log: bool = False
    step: int = 1
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class RangeTested:
    """A learning rate whose bounds a range test finds before the search, once for each combination of the knobs `per`.

    The search then moves on a log scale from 0 to 1 between the bounds of its combination. The test goes from `low` to
    `high` in `steps` steps, for `seeds` seeds. `steps` None: as many as a twentieth of the study's epochs pays for.
    """

    method: str = "knees"
    per: tuple[str, ...] = ()
    low: float = 1e-5
    high: float = 10.0
    steps: int | None = None
    seeds: int = 2
    when: Condition = field(default_factory=dict)


Domain = Fixed | Choice | FloatRange | IntRange | RangeTested


def holds(when: Condition, params: Mapping[str, Scalar]) -> bool:
    """Whether the condition is met: every knob it names is active in `params` with one of the values named."""
    return all(name in params and params[name] in values for name, values in when.items())


def allows(domain: Domain, value: Scalar) -> bool:
    """Whether a knob can have this value, of the same kind: true is not 1. Of a rate that is range-tested: between the
    ends of its test."""
    match domain:
        case Fixed(value=only):
            return same(value, only)
        case Choice(values=values):
            return any(same(value, other) for other in values)
        case FloatRange() | IntRange() | RangeTested():
            if isinstance(value, bool | str | None) or not domain.low <= value <= domain.high:
                return False
            return not isinstance(domain, IntRange) or (value - domain.low) % domain.step == 0


def same(one: Scalar, other: Scalar) -> bool:
    """Whether two values are equal and of one kind: true is not 1, but 1.0 is."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
