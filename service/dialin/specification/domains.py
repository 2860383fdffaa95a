"""The values that a knob may take: one, a choice, or a range; each with an optional condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Scalar = bool | int | float | str | None
"""One value of a knob."""

Condition = Mapping[str, tuple[Scalar, ...]]
"""The names of other knobs, each with the values under which the condition holds; all must hold. Empty: always."""

ALWAYS: Condition = {}


@dataclass(frozen=True)
class Fixed:
    """A knob that is not searched.

    value: its value in every trial.
    when: the condition under which the knob exists.
    """

    value: Scalar
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """One of at least two distinct values, without order.

    values: the values, in the order in which they were written.
    when: the condition under which the knob exists.
    """

    values: tuple[Scalar, ...]
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class FloatRange:
    """A real number from `low` to `high`, both included. `log` and `step` exclude each other.

    low: the lowest value.
    high: the highest value, which a step reaches.
    log: whether it is sampled uniformly in log(value).
    step: the distance between two values, counted from `low`; None: any value between.
    when: the condition under which the knob exists.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class IntRange:
    """A whole number from `low` to `high`, both included. `log` and a `step` other than 1 exclude each other.

    low: the lowest value.
    high: the highest value, which a step reaches.
    log: whether it is sampled uniformly in log(value).
    step: the distance between two values, counted from `low`.
    when: the condition under which the knob exists.
    """

    low: int
    high: int
    log: bool = False
    step: int = 1
    when: Condition = field(default_factory=dict)


@dataclass(frozen=True)
class RangeTested:
    """A learning rate whose bounds a range test finds before the search, once for each combination of other knobs.

    The search then moves on a log scale from 0 to 1 between the bounds of its combination.

    method: "knees" (from where accuracy starts to rise to where it falls) or "third" (of the best rate, to that rate).
    per: the knobs whose combinations are tested apart; empty: one test.
    low: the first rate of the test.
    high: the last rate of the test.
    steps: the steps of one test; None: as many as a twentieth of the study's epochs pays for.
    seeds: how often each test is repeated.
    when: the condition under which the knob exists.
    """

    method: str = "knees"
    per: tuple[str, ...] = ()
    low: float = 1e-5
    high: float = 10.0
    steps: int | None = None
    seeds: int = 2
    when: Condition = field(default_factory=dict)


Domain = Fixed | Choice | FloatRange | IntRange | RangeTested
"""The values that a knob may take."""


def holds(when: Condition, params: Mapping[str, Scalar]) -> bool:
    """Whether a condition holds: each knob that it names is in `params`, with one of the values named."""
    return all(name in params and params[name] in values for name, values in when.items())


def allows(domain: Domain, value: Scalar) -> bool:
    """Whether a knob can have this value, of the same kind: true is not 1. A range-tested rate can have any value
    between the ends of its test."""
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
