"""The values that a knob may take: one, a choice, or a range; each with an optional condition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

Scalar = bool | int | float | str | None
"""One value of a knob."""

Condition = Mapping[str, tuple[Scalar, ...]]
"""The names of other knobs, each with the values under which the condition holds; all must hold. Empty: always."""

ALWAYS: Condition = {}

Cases = tuple[tuple[Condition, Scalar], ...]
"""Values with conditions: the one beside the first condition that holds."""


@dataclass(frozen=True)
class Belief:
    """What a space says about good values of one knob.

    cases: the centre of its prior; empty: the knob has no prior.
    spread: one standard deviation about the centre: a factor above 1 on a log scale, a difference on a linear one;
    None: the search decides.
    """

    cases: Cases
    spread: float | None = None


@dataclass(frozen=True)
class StatedPrior:
    """The section `prior` of a specification.

    knobs: what it says of each knob that it names; the catalogue's beliefs hold of the others.
    off: the search has no prior at all.
    """

    knobs: Mapping[str, Belief] = field(default_factory=dict)
    off: bool = False


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
    """A learning rate that a range test finds before the search, once for each combination of other knobs.

    The search then moves on a log scale from 0 to 1 between bounds about the rate of its combination, which is at 0.5.

    method: "minimum" (between the rate at which the loss is lowest and the catalogue's default), "third" (a third of
    the rate at which the loss is lowest) or "knees" (between where accuracy starts to rise and where it falls).
    per: the knobs whose combinations are tested apart; empty: one test.
    low: the first rate of the test.
    high: the last rate of the test.
    steps: the steps of one test; None: as many as a twentieth of the study's epochs pays for.
    seeds: how often each test is repeated.
    when: the condition under which the knob exists.
    """

    method: str = "minimum"
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


def nearest(domain: Choice | FloatRange | IntRange, value: Scalar, log: bool = False) -> Scalar:
    """The value of a domain that is nearest to `value`: of a range by its bounds and steps, of a choice of numbers by
    their difference, or with `log` by their ratio. None where there is none, such as in a choice of other words."""
    if isinstance(domain, Choice):
        equal = (one for one in domain.values if same(one, value))
        return next(equal, _nearest_number(domain.values, value, log))
    if not is_number(value):
        return None
    if domain.step is not None:
        value = domain.low + domain.step * round((value - domain.low) / domain.step)
    return min(domain.high, max(domain.low, value))


def middle(domain: Choice | FloatRange | IntRange) -> Scalar:
    """The middle of a range on its search scale; the first value of a choice."""
    if isinstance(domain, Choice):
        return domain.values[0]
    return nearest(domain, math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2)


def _nearest_number(values: Sequence[Scalar], value: Scalar, log: bool) -> Scalar:
    numbers = [one for one in values if is_number(one)]
    if not is_number(value) or len(numbers) < len(values):
        return None
    if log and value > 0:
        return min(numbers, key=lambda one: max(one / value, value / one) if one > 0 else math.inf)
    return min(numbers, key=lambda one: abs(one - value))


def is_number(value: Scalar) -> TypeGuard[int | float]:
    """Whether a value is a number; true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def same(one: Scalar, other: Scalar) -> bool:
    """Whether two values are equal and of one kind: true is not 1, but 1.0 is."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other
