"""Values with conditions, reduced to what a search can change: conditions on searched knobs only. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.catalogue.knob import DATASET, EPOCHS, METRIC, Scaling
from dialin.specification.domains import ALWAYS, Cases, Choice, Condition, Fixed, Scalar, allows, holds, is_number
from dialin.specification.study_spec import ObjectiveSpec, PythonSpec, StudySpec

T = TypeVar("T")
Pairs = tuple[tuple[Condition, T], ...]
"""Anything with conditions: the one beside the first condition that holds."""


def _facts_of(spec: StudySpec) -> Mapping[str, Scalar]:
    """The constants of a study that the catalogue's conditions may name beside knobs."""
    facts: dict[str, Scalar] = {EPOCHS: spec.budget.epochs, METRIC: spec.objective.metric}
    if isinstance(spec.objective, ObjectiveSpec):
        facts[DATASET] = spec.objective.dataset
    return facts


def reduced(pairs: Pairs[T], spec: StudySpec, when: Condition = ALWAYS) -> Pairs[T]:
    """The same values in every configuration of this space, with conditions on searched knobs only.

    Knobs with one value, knobs that the space does not name (they have the catalogue's defaults) and the constants of
    the study are looked up. `when`: the condition under which the values are asked for; what it implies is left out.
    """
    while name := _looked_up(pairs, spec):
        pairs = _without(pairs, name, _values_of(name, spec))
    return _merged(_pruned(pairs, spec, when))


def scaled_by_constant(cases: Cases, scaling: Scaling, spec: StudySpec) -> Cases:
    """The values multiplied by what `scaling` says of a knob that is not searched, or of a constant of the study."""
    others: Cases = (*_values_of(scaling.knob, spec), (ALWAYS, scaling.reference))
    exponents: Pairs[float] = (*scaling.exponents, (ALWAYS, 0.0))
    found: list[tuple[Condition, Scalar]] = []
    for (one, value), (two, exponent), (three, other) in itertools.product(cases, exponents, others):
        first = _both(one, two)
        when = None if first is None else _both(first, three)
        if when is not None and is_number(value) and is_number(other):
            found.append((when, value * (other / scaling.reference) ** exponent))
    return tuple(found)


def factor(scaling: Scaling | None, params: Mapping[str, Scalar]) -> float:
    """What a value is multiplied by beside `params`; 1 where it follows nothing, or the knob does not exist."""
    if scaling is None:
        return 1.0
    other, exponent = params.get(scaling.knob), holds_first(scaling.exponents, params)
    return float((other / scaling.reference) ** exponent) if is_number(other) and exponent is not None else 1.0


def holds_first(pairs: Pairs[T], params: Mapping[str, Scalar]) -> T | None:
    """The value beside the first condition that holds; None where none does."""
    return next((one for when, one in pairs if holds(when, params)), None)


def _looked_up(pairs: Pairs[T], spec: StudySpec) -> str:
    """A name in a condition that is no searched knob; empty when there is none."""
    named = (name for when, _ in pairs for name in when)
    return next((name for name in named if name not in spec.space or isinstance(spec.space[name], Fixed)), "")


def _values_of(name: str, spec: StudySpec) -> Cases:
    """The values of something that is not searched; a knob that does not exist has none."""
    facts, domain = _facts_of(spec), spec.space.get(name)
    if name in facts:
        return ((ALWAYS, facts[name]),)
    if isinstance(domain, Fixed):
        return ((domain.when, domain.value),)
    if isinstance(spec.objective, PythonSpec) or name not in CATALOGUE:
        return ()
    knob = CATALOGUE[name]
    found = ((_both(when, knob.applies), value) for when, value in knob.defaults)
    return tuple((when, value) for when, value in found if when is not None)


def _without(pairs: Pairs[T], name: str, values: Cases) -> Pairs[T]:
    """The values with the conditions on `name` replaced by those under which it has each of its values."""
    if len(values) < 2:
        return tuple(replaced for pair in pairs for replaced in _with_one_value(pair, name, values))
    found: list[tuple[Condition, T]] = []
    for (exists, value), (when, one) in itertools.product(values, pairs):
        both = _both(exists, _rest(when, name))
        if both is not None and value in when.get(name, (value,)):
            found.append((both, one))
    # Where the knob does not exist, no condition on it holds.
    return (*found, *((when, one) for when, one in pairs if name not in when))


def _with_one_value(pair: tuple[Condition, T], name: str, values: Cases) -> Pairs[T]:
    """One value with its condition, where `name` has one value or none: it stays, or goes, where it stands."""
    when, one = pair
    if name not in when:
        return (pair,)
    found = ((_both(exists, _rest(when, name)), one) for exists, value in values if value in when[name])
    return tuple((both, one) for both, one in found if both is not None)


def _rest(when: Condition, name: str) -> Condition:
    return {other: allowed for other, allowed in when.items() if other != name}


def _both(one: Condition, two: Condition) -> Condition | None:
    """The condition that both hold; None when they exclude each other."""
    both = {**one, **two}
    for name in one.keys() & two.keys():
        both[name] = tuple(value for value in one[name] if value in two[name])
    return both if all(both.values()) else None


def _pruned(pairs: Pairs[T], spec: StudySpec, known: Condition) -> Pairs[T]:
    """Without values that no configuration has, and conditions that always hold."""
    found: list[tuple[Condition, T]] = []
    for when, one in pairs:
        short = {name: _possible(values, name, spec, known) for name, values in when.items()}
        if not all(short.values()):
            continue
        left = {name: values for name, values in short.items() if not _is_certain(values, name, spec, known)}
        found.append((left, one))
        if not left:
            break
        known = _beyond(left, spec, known)
    return tuple(found)


def _beyond(when: Condition, spec: StudySpec, known: Condition) -> Condition:
    """What is known where a condition does not hold: of one on a single choice, the other values."""
    name, *more = when
    if more or not (everything := _certain_values(name, spec, known)):
        return known
    return {**known, name: tuple(value for value in everything if value not in when[name])}


def _possible(values: Sequence[Scalar], name: str, spec: StudySpec, known: Condition) -> tuple[Scalar, ...]:
    """Of some values of a searched knob, those that it can have where `known` holds."""
    inside = (value for value in values if allows(spec.space[name], value))
    return tuple(value for value in inside if name not in known or value in known[name])


def _is_certain(values: Sequence[Scalar], name: str, spec: StudySpec, known: Condition) -> bool:
    """Whether a searched knob always has one of some values where `known` holds."""
    everything = _certain_values(name, spec, known)
    return bool(everything) and all(value in values for value in everything)


def _certain_values(name: str, spec: StudySpec, known: Condition) -> tuple[Scalar, ...]:
    """The values of which a searched choice has one where `known` holds; empty: it may not exist, or is a range."""
    domain = spec.space[name]
    if not isinstance(domain, Choice) or (domain.when and name not in known):
        return ()
    return _possible(domain.values, name, spec, known)


def _merged(pairs: Pairs[T]) -> Pairs[T]:
    """Neighbours with one value and conditions on one knob as one; those before a last one with the same value go."""
    found: list[tuple[Condition, T]] = []
    for when, one in pairs:
        while not when and found and _is_same(found[-1][1], one):
            found.pop()
        if found and _is_same(found[-1][1], one) and len(when) == 1 and found[-1][0].keys() == when.keys():
            name, before = next(iter(when)), found.pop()[0]
            when = {name: tuple(dict.fromkeys((*before[name], *when[name])))}
        found.append((when, one))
    return tuple(found)


def _is_same(one: object, two: object) -> bool:
    return type(one) is type(two) and one == two
