"""The `prior` section: where a person believes good values of the knobs to lie; every problem with its path.

prior: off                                              no prior at all
prior:
  lr: 1e-3                                              one value: the centre
  batch_size: {around: 64, spread: 2x}                  a factor on a log scale, a difference on a linear one
  momentum: {around: 0.95, when: {optimizer: sgd}}      elsewhere as the catalogue says
  dropout: [{around: 0.3, when: {model: resnet18}}, {around: 0.1}]      the first whose condition holds
  width: off                                            no prior for this knob
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dialin.errors import Problem, did_you_mean
from dialin.specification.catalogue.values import coerce
from dialin.specification.domain_forms import Knobs, read_condition
from dialin.specification.domains import (
    ALWAYS,
    Belief,
    Choice,
    Condition,
    Domain,
    Fixed,
    RangeTested,
    Scalar,
    StatedPrior,
    allows,
    is_number,
)
from dialin.specification.problems import MOST_PROBLEMS
from dialin.specification.space import find_cycle, why_never
from dialin.specification.study_spec import is_off
from dialin.specification.wording import domain_text
from dialin.texts import show_value

CASE_KEYS = ("around", "spread", "when")
"""The keys of a centre that is written as a mapping."""
MOST_CASES = 20
"""A knob has at most so many cases."""
_FACTOR = re.compile(r"([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?) ?x")


@dataclass(frozen=True)
class SpaceContext:
    """What the reader knows of the space.

    space: the domains of its knobs.
    knobs: the knobs that it may have.
    written: the names that it has, among them those whose domain was refused.
    """

    space: Mapping[str, Domain]
    knobs: Knobs
    written: frozenset[str]


class _MistakeError(ValueError):
    """What is wrong, and where below the knob: its path without the knob's own."""

    def __init__(self, message: str, *path: str) -> None:
        super().__init__(message)
        self.path = path


def read_prior(data: Any, context: SpaceContext, problems: list[Problem]) -> StatedPrior:
    """What a specification says about good values of its knobs. What is wrong is appended to `problems`, the first
    mistake of each knob."""
    if is_off(data):
        return StatedPrior(off=True)
    if not isinstance(data, dict):
        message = f"{show_value(data)} is not a mapping of knobs to values, such as {{lr: 1e-3}}; to have no prior: off"
        problems.append(Problem("prior", message))
        return StatedPrior()
    beliefs: dict[str, Belief] = {}
    wrong: list[Problem] = []
    for name, written in data.items():
        try:
            if (belief := _belief(name, written, context)) is not None:
                beliefs[name] = belief
        except _MistakeError as error:
            wrong.append(Problem(".".join(("prior", str(name), *error.path)), str(error)))
        if len(wrong) > MOST_PROBLEMS:  # each unknown name is compared with all known ones
            break
    problems += wrong or _circle(context.space, beliefs)
    return StatedPrior(beliefs)


def _belief(name: str, written: Any, context: SpaceContext) -> Belief | None:
    """What is written of one knob; None where its domain was refused."""
    domain = context.space.get(name)
    if domain is None:
        if name in context.written:
            return None
        raise _MistakeError(_unknown(name, context))
    if is_off(written) and (written == "off" or not allows(domain, written)):
        return Belief(())
    _check_is_searched(name, domain)
    if not isinstance(written, list):
        when, value, spread = _case(name, domain, written, context)
        return Belief(((when, value),), spread)
    if not 0 < len(written) <= MOST_CASES:
        raise _MistakeError(f"{len(written)} cases; allowed: 1 to {MOST_CASES}")
    return _several(name, domain, written, context)


def _several(name: str, domain: Domain, written: list[Any], context: SpaceContext) -> Belief:
    """A list of cases."""
    cases: list[tuple[Condition, Scalar]] = []
    spreads: set[float] = set()
    for index, data in enumerate(written):
        try:
            when, value, spread = _listed(name, domain, data, context)
            if cases and not cases[-1][0]:
                raise _MistakeError("never holds, because the case before it has no `when`")
        except _MistakeError as error:
            raise _MistakeError(str(error), str(index), *error.path) from None
        cases.append((when, value))
        if spread is not None:
            spreads.add(spread)
    if len(spreads) > 1:
        raise _MistakeError("the cases of one knob have one spread; write it in one of them")
    return Belief(tuple(cases), next(iter(spreads), None))


def _listed(name: str, domain: Domain, data: Any, context: SpaceContext) -> tuple[Condition, Scalar, float | None]:
    if not isinstance(data, dict):
        case = "{around: VALUE, when: {KNOB: VALUE}}"
        raise _MistakeError(
            f"{show_value(data)} is not a case; write one value without a list, or cases such as {case}"
        )
    return _case(name, domain, data, context)


def _case(name: str, domain: Domain, written: Any, context: SpaceContext) -> tuple[Condition, Scalar, float | None]:
    """One centre: its condition, its value, and the spread that is written beside it."""
    if not isinstance(written, dict):
        return ALWAYS, _value(name, domain, written, context), None
    for key in written:
        if key not in CASE_KEYS:
            raise _MistakeError(f"unknown key {key!r}; {did_you_mean(str(key), CASE_KEYS)}", str(key))
    if "around" not in written:
        raise _MistakeError("'around' is missing: the value about which to search first")
    try:
        value = _value(name, domain, written["around"], context)
    except _MistakeError as error:
        raise _MistakeError(str(error), "around") from None
    spread = _spread(name, domain, written["spread"]) if "spread" in written else None
    when = _when(name, written["when"], context) if "when" in written else ALWAYS
    return when, value, spread


def _value(name: str, domain: Domain, written: Any, context: SpaceContext) -> Scalar:
    try:
        value = coerce(context.knobs[name], written)
    except ValueError as error:
        raise _MistakeError(str(error)) from None
    if not allows(domain, value):
        raise _MistakeError(f"{show_value(value)} is not a value of {name} in this space: {domain_text(domain)}")
    return value


def _spread(name: str, domain: Domain, written: Any) -> float:
    if isinstance(domain, Choice):
        raise _MistakeError(f"{name} is a choice, which has no spread; leave it out", "spread")
    if not isinstance(domain, Fixed | RangeTested) and domain.log:
        found = _FACTOR.fullmatch(written) if isinstance(written, str) else None
        if found is None:
            message = f"{name} is searched on a log scale, where a spread is a factor such as 2x"
            raise _MistakeError(f"{show_value(written)}: {message}", "spread")
        return _above(1.0, float(found[1]), f"{show_value(written)} is not above 1x")
    if not is_number(written):
        message = f"{name} is searched on a linear scale, where a spread is a number such as 0.1"
        raise _MistakeError(f"{show_value(written)}: {message}", "spread")
    return _above(0.0, float(written), f"{show_value(written)} is not above 0")


def _above(least: float, spread: float, message: str) -> float:
    if not least < spread < math.inf:
        raise _MistakeError(message if spread <= least else f"{spread} is not a finite number", "spread")
    return spread


def _when(name: str, written: Any, context: SpaceContext) -> Condition:
    try:
        when = read_condition(written, context.knobs)
    except ValueError as error:
        raise _MistakeError(str(error), "when") from None
    for other, values in when.items():
        if reason := _why_no_condition(name, other, values, context):
            raise _MistakeError(reason, "when", other)
    return when


def _why_no_condition(name: str, other: str, values: Sequence[Scalar], context: SpaceContext) -> str:
    if other == name or other not in context.written:
        near = did_you_mean(other, context.written - {name})
        return f"the condition names {other!r}, which is no other knob of this space; {near}"
    if other not in context.space:  # its domain was refused
        return ""
    reasons = (why_never(context.knobs[other], context.space[other], value) for value in values)
    return next(filter(None, reasons), "")


def _unknown(name: str, context: SpaceContext) -> str:
    if name in context.knobs:
        return f"{name} is not in this space, so that it is not searched; a prior is about a knob of `space`"
    return f"unknown knob {name!r}; {did_you_mean(str(name), context.written)}"


def _check_is_searched(name: str, domain: Domain) -> None:
    if isinstance(domain, Fixed):
        value = show_value(domain.value)
        raise _MistakeError(
            f"{name} has one value in this space, {value}, and is not searched; leave it out, or write off"
        )
    if isinstance(domain, RangeTested):
        raise _MistakeError(
            f"the range test finds the centre of {name}; leave it out, or write {name} as a range in `space`"
        )


def _circle(space: Mapping[str, Domain], beliefs: Mapping[str, Belief]) -> Iterator[Problem]:
    """Centres that depend on each other, perhaps by the conditions of the knobs themselves."""
    named = {name: set(domain.when) for name, domain in space.items()}
    for name, belief in beliefs.items():
        named[name] |= {other for when, _ in belief.cases for other in when}
    if cycle := find_cycle(named):
        name = next(one for one in cycle if one in beliefs)
        yield Problem(f"prior.{name}", f"the conditions form a circle: {' -> '.join(cycle)}")
