"""The `space` section: each knob's domain, and the conditions between them; every problem with its path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from dialin.errors import Problem, did_you_mean
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.catalogue.knob import Knob, any_knob
from dialin.specification.catalogue.values import coerce
from dialin.specification.domain_forms import KnobContext, Knobs, read_domain
from dialin.specification.domains import Domain, FloatRange, RangeTested, Scalar, same
from dialin.specification.problems import MOST_PROBLEMS, domain_problems
from dialin.texts import show_value

OWN_NAME = r"[A-Za-z_][A-Za-z0-9_-]{0,63}"
"""What a knob of a person's own function may be called: MLflow takes it, and so does --set space.NAME=..."""


def read_space(data: Any, own: bool, problems: list[Problem]) -> dict[str, Domain]:
    """The domains of a space. What is wrong is appended to `problems`, and that knob is left out.

    `own`: the knobs belong to a person's own function; they have any names, and the catalogue has no say.
    """
    if not isinstance(data, dict):
        problems.append(Problem("space", f"{show_value(data)} is not a mapping of knobs to their values"))
        return {}
    knobs = knobs_of(data, own)
    space: dict[str, Domain] = {}
    for name, written in data.items():
        # Every unknown name is compared with all known ones, so a hostile file must not have thousands of them.
        if len(problems) > MOST_PROBLEMS:
            return space
        if name not in knobs:
            problems.append(Problem(f"space.{name}", _unknown(name, own)))
            continue
        try:
            space[name] = read_domain(written, KnobContext(knobs[name], knobs))
        except ValidationError as error:
            problems += domain_problems(error, f"space.{name}")
    problems += _condition_problems(space, knobs, data.keys() & knobs.keys())
    # Contradictions follow conditions from knob to knob, which ends only without cycles and with every knob there.
    if not problems:
        problems += _contradictions(space)
    return space


def knobs_of(names: Iterable[str], own: bool) -> Knobs:
    """The knobs that a space with these names may have: the catalogue's, or those of a person's own function."""
    return {name: any_knob(name) for name in names if re.fullmatch(OWN_NAME, name)} if own else CATALOGUE


def _unknown(name: str, own: bool) -> str:
    if own:
        return f"{name!r} is not a name for a knob; allowed: 1 to 64 letters, digits, _ and -, no digit or - first"
    return f"unknown knob {name!r}; {did_you_mean(name, CATALOGUE)}"


def _condition_problems(space: Mapping[str, Domain], knobs: Knobs, named: set[str]) -> Iterator[Problem]:
    """What is wrong with each condition by itself, and with going round in a circle.

    `named`: the knobs that the space names; it has no domain of those that were refused.
    """
    for name, domain in space.items():
        for other, values in domain.when.items():
            path = f"space.{name}.when.{other}"
            if other in space:
                reasons = (why_never(knobs[other], space[other], value) for value in values)
                yield from (Problem(path, reason) for reason in reasons if reason)
            elif other not in named:
                near = did_you_mean(other, named - {name})
                yield Problem(path, f"the condition names {other!r}, which is not a knob of this space; {near}")
    if cycle := find_cycle({name: domain.when.keys() for name, domain in space.items()}):
        yield Problem(f"space.{cycle[0]}.when", f"the conditions form a circle: {' -> '.join(cycle)}")


def why_never(knob: Knob, domain: Domain, value: Scalar) -> str:
    """Why no search over this knob could ever have this value; empty when one could.

    A value that only this space leaves out is not a mistake, because `--set optimizer=adam` must not turn a condition
    on sgd into one. `lint` warns of it.
    """
    if isinstance(domain, RangeTested) or (isinstance(domain, FloatRange) and domain.step is None):
        return f"{knob.name} is drawn from a continuous range, so a condition on one of its values never holds"
    try:
        coerce(knob, value)
    except ValueError as error:
        return str(error)
    return ""


def _contradictions(space: Mapping[str, Domain]) -> list[Problem]:
    """The knobs that can never exist, because two conditions exclude each other."""
    found = ((name, _contradiction(name, space)) for name in space)
    return [Problem(f"space.{name}.when", message) for name, message in found if message]


def _contradiction(name: str, space: Mapping[str, Domain]) -> str:
    """Two conditions that exclude each other, among those of a knob, of the knobs that they name, and so on."""
    needed: dict[str, tuple[Scalar, ...]] = {}
    pending = [name]
    for current in pending:  # grows inside the loop, which ends because there is no cycle
        for other, values in space[current].when.items():
            if other not in needed:
                pending.append(other)
            before = needed.get(other, values)
            needed[other] = tuple(value for value in before if any(same(value, v) for v in values))
            if not needed[other]:
                one, two = (" or ".join(map(show_value, each)) for each in (before, values))
                return f"never holds: {other} would have to be {one} and {two}"
    return ""


def find_cycle(named: Mapping[str, Iterable[str]]) -> list[str]:
    """The knobs of one circle, its first again at the end; empty when there is none. `named`: those that each names."""
    done: set[str] = set()
    for start in named:
        trail = [start]
        stack = [iter(named[start])]
        while stack:
            other = next((name for name in stack[-1] if name in named and name not in done), None)
            if other is None:
                done.add(trail.pop())
                stack.pop()
            elif other in trail:
                return [*trail[trail.index(other) :], other]
            else:
                trail.append(other)
                stack.append(iter(named[other]))
    return []
