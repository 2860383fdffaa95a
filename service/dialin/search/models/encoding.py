"""A search space as points of the unit cube. Pure.

The *point* of a configuration has one coordinate from 0 to 1 for each searched knob, and every point is a
configuration: samplers draw points and move them. What a model measures distances in is another view (`embedding`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dialin.specification import active_params, searched
from dialin.specification.configuration import ordered
from dialin.specification.domains import (
    Choice,
    Condition,
    Domain,
    Fixed,
    FloatRange,
    IntRange,
    RangeTested,
    Scalar,
    allows,
    holds,
)
from dialin.specification.range_tests import Calibration, RateBounds
from dialin.specification.study_spec import StudySpec

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Chosen = dict[str, Scalar]
Key = tuple[int | None, ...]
TOLERANCE = 1e-6
"""Fraction of a range: two values nearer than this are the same."""


@dataclass(frozen=True)
class Columns:
    """The configurations of n points, knob by knob.

    `exists`: by knob, whether each configuration has it, (n,). `values`: by searched knob, its values, (n,): of a
    choice the index of the value, of a range the value as rounded by its domain, of a range-tested rate its position
    between the bounds, from 0 to 1. Where a configuration does not have the knob its value says nothing.
    """

    exists: Mapping[str, Mask]
    values: Mapping[str, Array]


class Encoding:
    """Converts between configurations and points of one space.

    `calibration`: the bounds of the learning rate that range tests have found. Raises ValueError where the space asks
    for range tests and there is no calibration.
    """

    def __init__(self, spec: StudySpec, calibration: Calibration | None = None) -> None:
        self._spec, self._calibration = spec, calibration
        self.names = searched(spec)
        if calibration is None and any(isinstance(spec.space[name], RangeTested) for name in self.names):
            raise ValueError(
                "the space takes the bounds of the learning rate from a range test, and the plan has no calibration"
            )
        self._ordered = ordered(spec)
        self.choices = np.array([isinstance(spec.space[name], Choice) for name in self.names], dtype=bool)

    def decode(self, point: Sequence[float] | Array) -> Chosen:
        """The searched knobs of a point's configuration: those whose conditions hold."""
        units = dict(zip(self.names, point, strict=True))
        decided: Chosen = {}
        for name in self._ordered:
            domain = self._spec.space[name]
            if not holds(domain.when, decided):
                continue
            if isinstance(domain, Fixed):
                decided[name] = domain.value
            elif isinstance(domain, RangeTested):  # its bounds are those of the whole configuration
                decided[name] = self._value(domain, float(units[name]), active_params(self._spec, decided))
            else:
                decided[name] = self._value(domain, float(units[name]), decided)
        return {name: decided[name] for name in self.names if name in decided}

    def value_at(self, name: str, unit: float, chosen: Mapping[str, Scalar]) -> Scalar:
        """A knob's value at a position from 0 to 1 of its domain; `chosen`: the searched knobs before it."""
        return self._value(self._spec.space[name], unit, active_params(self._spec, chosen))

    def encode(self, params: Mapping[str, Scalar]) -> Array:
        """(knobs,) The point of a configuration; 0.5 for a knob that it does not have."""
        return np.array([self.unit(name, params) if name in params else 0.5 for name in self.names], dtype=float)

    def columns(self, points: Array) -> Columns:
        """The configurations of points (n, knobs), as `decode` gives them, for many at once."""
        positions = dict(zip(self.names, points.T, strict=True))
        exists: dict[str, Mask] = {}
        values: dict[str, Array] = {}
        columns = Columns(exists, values)
        for name in self._ordered:
            domain = self._spec.space[name]
            exists[name] = self.condition_mask(domain.when, columns, len(points))
            if isinstance(domain, Choice):
                values[name] = np.minimum((positions[name] * len(domain.values)).astype(int), len(domain.values) - 1)
            elif isinstance(domain, FloatRange | IntRange):
                values[name] = _from_units(domain, positions[name])
            elif isinstance(domain, RangeTested):
                values[name] = np.clip(positions[name], 0.0, 1.0)
        return columns

    def units(self, name: str, values: Array) -> Array:
        """(n,) The positions, from 0 to 1, of a range's values, as `columns` gives them."""
        domain = self._spec.space[name]
        return _to_units(domain, values) if isinstance(domain, FloatRange | IntRange) else values

    def condition_mask(self, when: Condition, columns: Columns, count: int) -> Mask:
        """(n,) Where a condition on knobs of the space holds, for `count` configurations."""
        mask = np.ones(count, dtype=bool)
        for name, allowed in when.items():
            domain = self._spec.space[name]
            if isinstance(domain, Fixed):
                met = np.full(count, domain.value in allowed)
            elif isinstance(domain, Choice):
                indices = [index for index, value in enumerate(domain.values) if value in allowed]
                met = np.isin(columns.values[name], indices)
            else:
                numbers = [float(value) for value in allowed if isinstance(value, int | float)]
                met = np.isin(columns.values[name], numbers)
            mask &= columns.exists[name] & met
        return mask

    def key_of(self, chosen: Chosen) -> Key:
        """`key` of the configuration that these searched knobs make."""
        return self.key(active_params(self._spec, chosen))

    def key(self, params: Mapping[str, Scalar]) -> Key:
        """Equal for two configurations that are the same up to `TOLERANCE` of each range."""
        return tuple(self._rounded(name, params) if name in params else None for name in self.names)

    def size(self, most: int) -> int | None:
        """The number of configurations; None when there are more than `most`."""
        if any(_values(self._spec.space[name]) is None for name in self.names):
            return None
        count = sum(1 for _ in itertools.islice(self.all(), most + 1))
        return count if count <= most else None

    def all(self) -> Iterator[Chosen]:
        """Every configuration of a finite space once, the last knob fastest."""
        yield from self._combinations({}, self.names)

    def contains(self, params: Mapping[str, Scalar]) -> bool:
        """Whether a configuration of another space is one of this space: it has every searched knob whose condition
        holds here, with a value that this space allows."""
        chosen: Chosen = {}
        for name in self.names:
            domain, known = self._spec.space[name], active_params(self._spec, chosen)
            if not holds(domain.when, known):
                continue
            if (
                name not in params
                or not allows(domain, params[name])
                or not self._is_within_bounds(domain, params, known)
            ):
                return False
            chosen[name] = params[name]
        return True

    def _combinations(self, chosen: Chosen, names: Sequence[str]) -> Iterator[Chosen]:
        if not names:
            yield dict(chosen)
            return
        domain = self._spec.space[names[0]]
        values = _values(domain) if holds(domain.when, active_params(self._spec, chosen)) else None
        if values is None:
            yield from self._combinations(chosen, names[1:])
            return
        for value in values:
            yield from self._combinations({**chosen, names[0]: value}, names[1:])

    def _value(self, domain: Domain, unit: float, params: Mapping[str, Scalar]) -> Scalar:
        match domain:
            case Choice(values=values):
                return values[min(len(values) - 1, int(unit * len(values)))]
            case IntRange():
                return int(_from_units(domain, np.array([unit]))[0])
            case FloatRange():
                return float(_from_units(domain, np.array([unit]))[0])
            case _:
                return self._bounds(params).rate_at(min(1.0, max(0.0, unit)))

    def unit(self, name: str, params: Mapping[str, Scalar]) -> float:
        """The position of a knob's value in its domain, from 0 to 1; for a choice the middle of its interval."""
        domain, value = self._spec.space[name], params[name]
        if isinstance(domain, Choice):
            return (position_of(domain, value) + 0.5) / len(domain.values)
        if isinstance(domain, FloatRange | IntRange):
            return float(_to_units(domain, np.array([_float(value)]))[0])
        return self._bounds(params).unit_of(_float(value))

    def _rounded(self, name: str, params: Mapping[str, Scalar]) -> int:
        domain = self._spec.space[name]
        return (
            position_of(domain, params[name])
            if isinstance(domain, Choice)
            else round(self.unit(name, params) / TOLERANCE)
        )

    def _is_within_bounds(self, domain: Domain, params: Mapping[str, Scalar], known: Mapping[str, Scalar]) -> bool:
        """Whether the learning rate lies within the bounds of its range test, where the domain has one."""
        if not isinstance(domain, RangeTested):
            return True
        bounds = self._bounds(known)
        return bounds.low <= _float(params["lr"]) <= bounds.high

    def _bounds(self, params: Mapping[str, Scalar]) -> RateBounds:
        assert self._calibration is not None  # the constructor refuses a space that needs one without it
        return self._calibration.bounds_for(params)


def position_of(domain: Choice, value: Scalar) -> int:
    """The index of a value among those of a choice, compared by type first: true is not 1."""
    same = (index for index, other in enumerate(domain.values) if type(other) is type(value) and other == value)
    position = next(same, None)
    return domain.values.index(value) if position is None else position


def _edges(domain: FloatRange | IntRange) -> tuple[float, float, bool]:
    """The ends of the interval that is mapped to 0 and 1, and whether on a log scale. They lie half a step beyond the
    outermost values, so that every value has an interval of the same width."""
    step = domain.step if domain.step is not None else 0.0
    if isinstance(domain, FloatRange) and domain.step is not None:
        steps = math.floor((domain.high - domain.low) / domain.step + 1e-9)
        return domain.low - step / 2, domain.low + step * (steps + 0.5), False
    return domain.low - step / 2, domain.high + step / 2, domain.log


def _from_units(domain: FloatRange | IntRange, units: Array) -> Array:
    """(n,) The values at positions from 0 to 1, rounded to what the domain allows."""
    low, high, log = _edges(domain)
    units = np.clip(units, 0.0, 1.0)
    values: Array = low * (high / low) ** units if log else low + (high - low) * units
    if domain.step is not None:
        values = domain.low + domain.step * np.round((values - domain.low) / domain.step)
        last = domain.low + domain.step * math.floor((domain.high - domain.low) / domain.step + 1e-9)
        return np.clip(values, domain.low, last)
    return np.clip(values, domain.low, domain.high)


def _to_units(domain: FloatRange | IntRange, values: Array) -> Array:
    """(n,) The positions of values, from 0 to 1: the inverse of `_from_units`."""
    low, high, log = _edges(domain)
    units: Array = np.log(values / low) / math.log(high / low) if log else (values - low) / (high - low)
    return np.clip(units, 0.0, 1.0)


def _values(domain: Domain) -> Sequence[Scalar] | None:
    """The values of a finite domain; None for a continuous one."""
    match domain:
        case Choice(values=values):
            return values
        case IntRange(low=low, high=high, step=step):
            return range(low, high + 1, step)
        case FloatRange(low=low, high=high, step=step) if step is not None:
            return [low + step * index for index in range(math.floor((high - low) / step + 1e-9) + 1)]
        case _:
            return None


def _float(value: Scalar) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
