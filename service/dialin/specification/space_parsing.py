"""The `space` section: plain data becomes domains, and everything wrong with it becomes a problem with its path."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

from dialin.errors import Problem, did_you_mean
from dialin.specification.catalogue.knob import Knob, any_knob
from dialin.specification.catalogue.knobs import CATALOGUE
from dialin.specification.domains import (
    ALWAYS,
    Choice,
    Condition,
    Domain,
    Fixed,
    FloatRange,
    IntRange,
    RangeTested,
    Scalar,
)

_MOST_STEPS = 1_000_000
_ROUNDING = Fraction(1, 10**9)  # of a step; so that a range read again stays as it is
_RANGE_KEYS = {"min", "max", "log", "step", "when"}
_FORMS = {
    "value": {"value", "when"},
    "choices": {"choices", "when"},
    "range_test": {"range_test", "when"},
    "range": _RANGE_KEYS,
}
# How W&B, Optuna, Ray Tune and Hydra say it, and what it is called here.
_ELSEWHERE = {
    "values": "choices: [...]",
    "low": "min",
    "high": "max",
    "lower": "min",
    "upper": "max",
    "distribution": "min and max, and log: true for a range over orders of magnitude",
    "q": "step",
    "q_step": "step",
}
_TEST_KEYS = ("method", "per", "min", "max", "steps", "seeds")
_METHODS = ("knees", "third")
_OWN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")  # MLflow takes it, and --set space.NAME=...
MOST_PROBLEMS = 100  # that are told: finding the name that was meant takes time, and nobody reads more
Knobs = Mapping[str, Knob]


class _WrongError(Exception):
    """A problem with one knob, on the way up to where its path is known."""

    def __init__(self, message: str, below: str = "") -> None:
        super().__init__(message)
        self.below = below


def parse_space(data: Any, problems: list[Problem], own: bool = False) -> dict[str, Domain]:
    """The domains of a space. What is wrong is appended to `problems`, and the knob is left out. `own`: the knobs are
    a person's own, of any names, and the catalogue has no say."""
    if not isinstance(data, dict):
        problems.append(Problem("space", f"{_show(data)} is not a mapping of knobs to their values"))
        return {}
    space: dict[str, Domain] = {}
    knobs = {name: any_knob(name) for name in data if _OWN_NAME.fullmatch(name)} if own else CATALOGUE
    for name, value in data.items():
        if len(problems) > MOST_PROBLEMS:
            return space
        path = f"space.{name}"
        if name not in knobs:
            problems.append(Problem(path, _unknown(name, own)))
            continue
        try:
            space[name] = parse_domain(knobs[name], value, knobs)
        except _WrongError as wrong:
            problems.append(Problem(f"{path}.{wrong.below}" if wrong.below else path, str(wrong)))
    known = {name for name in data if name in knobs}
    _check_conditions(space, known, knobs, problems)
    return space


def _unknown(name: str, own: bool) -> str:
    if own:
        return f"{name!r} is no name of a knob; allowed: 1 to 64 letters, digits, _ and -, no digit or - first"
    return f"unknown knob {name!r}; {did_you_mean(name, CATALOGUE)}"


def parse_domain(knob: Knob, data: Any, knobs: Knobs = CATALOGUE) -> Domain:
    """The domain of one knob from a plain value, a list, or a mapping; `knobs`: those that a condition may name."""
    if isinstance(data, list):
        return _choice(knob, data, ALWAYS, "")
    if not isinstance(data, dict):
        return Fixed(_value(knob, data))
    form = next((form for form in ("value", "choices", "range_test") if form in data), "range")
    unknown = sorted(set(data) - _FORMS[form])
    if unknown:
        raise _WrongError(f"unknown key {unknown[0]!r}; {_meant(unknown[0], form)}", unknown[0])
    when = _condition(data["when"], knobs) if "when" in data else ALWAYS
    if form == "value":
        return Fixed(_value(knob, data["value"], "value"), when)
    if form == "choices":
        if not isinstance(data["choices"], list):
            raise _WrongError(f"{_show(data['choices'])} is not a list", "choices")
        return _choice(knob, data["choices"], when, "choices")
    if form == "range_test":
        return _range_test(knob, data["range_test"], when)
    return _range(knob, data, when)


def _meant(key: str, form: str) -> str:
    """What to write for a key that a domain does not have; words of other tools have their own answer."""
    if key in _ELSEWHERE:
        return f"write {_ELSEWHERE[key]}"
    allowed = _FORMS[form] if form != "range" else {*_FORMS["range"], "choices", "value"}
    return did_you_mean(key, allowed)


def _range_test(knob: Knob, data: Any, when: Condition) -> Domain:
    if knob.kind == "any":
        message = "a function of one's own has no range test; write the range, as in {min: 1e-4, max: 1.0, log: true}"
        raise _WrongError(message, "range_test")
    if knob.name != "lr":
        raise _WrongError(f"only lr has a range test, not {knob.name}", "range_test")
    options = data if isinstance(data, dict) else {} if data is None else None
    if options is None:
        raise _WrongError(f"{_show(data)} is not a mapping such as {{method: knees, per: [optimizer]}}", "range_test")
    unknown = [key for key in options if key not in _TEST_KEYS]
    if unknown:
        near = did_you_mean(unknown[0], _TEST_KEYS)
        raise _WrongError(f"unknown key {unknown[0]!r}; {near}", f"range_test.{unknown[0]}")
    method, per = options.get("method", "knees"), options.get("per", [])
    if method not in _METHODS:
        raise _WrongError(f"{_show(method)}; allowed: {', '.join(_METHODS)}", "range_test.method")
    if not isinstance(per, list) or any(name not in CATALOGUE or name == "lr" for name in per):
        raise _WrongError(f"{_show(per)} is not a list of other knobs, as in [optimizer, batch_size]", "range_test.per")
    low = cast("float", _value(knob, options.get("min", 1e-5), "range_test.min"))
    high = cast("float", _value(knob, options.get("max", 10.0), "range_test.max"))
    if low >= high:
        raise _WrongError(f"min {low:g} is not below max {high:g}", "range_test")
    steps = _whole(options["steps"], 10, 10_000, "range_test.steps") if options.get("steps") is not None else None
    seeds = _whole(options.get("seeds", 2), 1, 20, "range_test.seeds")
    return RangeTested(method, tuple(dict.fromkeys(per)), low, high, steps, seeds, when)


def _whole(value: Any, least: int, most: int, below: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _WrongError(f"{_show(value)} is not a whole number from {least} to {most}", below)
    return value


def _choice(knob: Knob, values: list[Any], when: Condition, below: str) -> Domain:
    if not values:
        raise _WrongError("an empty list; name at least one value", below)
    chosen: dict[tuple[bool, Scalar], Scalar] = {}  # true is not 1
    for index, value in enumerate(values):
        scalar = _value(knob, value, f"{below}.{index}".lstrip("."))
        key = (isinstance(scalar, bool), scalar)
        if key in chosen:
            raise _WrongError(f"the value {_show(scalar)} stands twice", below)
        chosen[key] = scalar
    distinct = tuple(chosen.values())
    return Fixed(distinct[0], when) if len(distinct) == 1 else Choice(distinct, when)


def _range(knob: Knob, data: Mapping[str, Any], when: Condition) -> Domain:
    if knob.kind == "any":
        knob = _numeric(knob, data)
    if knob.kind not in ("float", "int"):
        raise _WrongError(f"{knob.name} is no number and has no range; {_allowed(knob)}")
    for key in ("min", "max"):
        if key not in data:
            raise _WrongError(f"a range needs {key!r} (or write a value, a list, or {{value: ...}})")
    log = data.get("log", False)
    if not isinstance(log, bool):
        raise _WrongError(f"{_show(log)} is not true or false", "log")
    low = cast("float", _value(knob, data["min"], "min"))
    high = cast("float", _value(knob, data["max"], "max"))
    if low >= high:
        raise _WrongError(f"min {low:g} is not below max {high:g}")
    if log and low <= 0:
        raise _WrongError(f"a log range cannot touch 0, and min is {low:g}", "min")
    step = data.get("step")
    if step is not None:
        step = _step(knob, step, log, low, high)
        high = last_step(low, high, step)
    if knob.kind == "int":
        return IntRange(int(low), int(high), log, 1 if step is None else int(step), when)
    return FloatRange(float(low), float(high), log, None if step is None else float(step), when)


def _numeric(knob: Knob, data: Mapping[str, Any]) -> Knob:
    """A knob of one's own as the number that its range is written in: whole when all of it is."""
    numbers = [data.get("min"), data.get("max"), data.get("step") or 1]
    return replace(knob, kind="int" if all(isinstance(number, int) for number in numbers) else "float")


def last_step(low: float, high: float, step: float) -> float:
    """The largest low + k * step up to `high`, reckoned as written: 0.1 + 0.2 reaches 0.3."""
    start, end, stride = (Fraction(str(number)) for number in (low, high, step))
    steps = math.floor((end - start) / stride + _ROUNDING)
    return min(high, float(start + steps * stride))


def _step(knob: Knob, step: Any, log: bool, low: float, high: float) -> float:
    if isinstance(step, bool) or not isinstance(step, int | float) or not math.isfinite(step) or step <= 0:
        raise _WrongError(f"{_show(step)} is not a number above 0", "step")
    if knob.kind == "int" and step != int(step):
        raise _WrongError(f"{step:g} is not whole, and {knob.name} is", "step")
    if log and not (knob.kind == "int" and step == 1):
        raise _WrongError("log and step exclude each other", "step")
    width = Fraction(str(high)) - Fraction(str(low))
    if Fraction(str(step)) > width:
        raise _WrongError(f"{step:g} is wider than the range, {float(width):g}", "step")
    if width / Fraction(str(step)) > _MOST_STEPS:
        raise _WrongError(f"{step:g} makes more than {_MOST_STEPS} steps; leave it out", "step")
    return float(step)


def _value(knob: Knob, value: Any, below: str = "") -> Scalar:
    """The value in the knob's own type. Raises when the knob cannot take it."""
    try:
        return coerce(knob, value)
    except ValueError as error:
        raise _WrongError(str(error), below) from None


def coerce(knob: Knob, value: Any) -> Scalar:
    """`value` as the knob takes it: 1e3 becomes 1000 for a whole number, flip+crop becomes crop+flip.

    Raises ValueError, which names the value and what is allowed.
    """
    if knob.kind in ("choice", "bool"):
        if not any(_same(value, choice) for choice in knob.choices):
            near = did_you_mean(value, map(str, knob.choices)) if isinstance(value, str) else _allowed(knob)
            raise ValueError(f"{_show(value)} is no value of {knob.name}; {near}")
        return value  # type: ignore[no-any-return]
    if knob.kind == "parts":
        return _parts(knob, value)
    if knob.kind == "any" and isinstance(value, bool | str):
        return value
    if knob.kind == "any" and not isinstance(value, int | float):
        raise ValueError(f"{_show(value)} is no value; allowed: numbers, text, true and false")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{_show(value)} is not a number")
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError(f"a number of {value.bit_length()} bits is out of bounds")
    if not math.isfinite(value):
        raise ValueError(f"{value} is not finite")
    if knob.kind == "int" and value != int(value):
        raise ValueError(f"{value:g} is not whole, and {knob.name} is")
    _check_bounds(knob, value)
    if knob.kind == "any":
        return value
    return int(value) if knob.kind == "int" else float(value)


def _parts(knob: Knob, value: Any) -> str:
    if value == "none":
        return "none"
    named = str(value).split("+") if isinstance(value, str) else []
    wrong = [part for part in named if part not in knob.parts]
    if not named or wrong or len(set(named)) < len(named):
        near = f"; {did_you_mean(wrong[0], knob.parts)}" if wrong else ""
        raise ValueError(f"{_show(value)} is no value of {knob.name}{near}; {_allowed(knob)}")
    return "+".join(part for part in knob.parts if part in named)


def _check_bounds(knob: Knob, value: float) -> None:
    below = knob.low is not None and (value < knob.low or (knob.low_open and value == knob.low))
    above = knob.high is not None and (value > knob.high or (knob.high_open and value == knob.high))
    if below or above:
        low = f"{'above' if knob.low_open else 'at least'} {knob.low:g}"
        high = f"{'below' if knob.high_open else 'at most'} {knob.high:g}"
        raise ValueError(f"{value:g} is out of bounds; {knob.name} is {low} and {high}")


def _allowed(knob: Knob) -> str:
    if knob.kind == "parts":
        return f"allowed: none, or some of {', '.join(knob.parts)} joined by +"
    return f"allowed: {', '.join(_show(choice) for choice in knob.choices)}"


def _condition(data: Any, knobs: Knobs) -> Condition:
    if not isinstance(data, dict) or not data:
        raise _WrongError(f"{_show(data)} is not a mapping such as {{optimizer: [sgd, rmsprop]}}", "when")
    condition: dict[str, tuple[Scalar, ...]] = {}
    for name, values in data.items():
        listed = values if isinstance(values, list) else [values]
        if not listed or any(isinstance(value, list | dict) for value in listed):
            raise _WrongError(f"{_show(values)} is not a value or a list of values", f"when.{name}")
        condition[name] = tuple(_as_taken(name, value, knobs) for value in listed)
    return condition


def _as_taken(name: str, value: Any, knobs: Knobs) -> Scalar:
    """The value as the knob would have it, flip+crop as crop+flip; one that it cannot take is left for later."""
    try:
        return coerce(knobs[name], value) if name in knobs else value
    except ValueError:
        return cast("Scalar", value)


def _check_conditions(space: dict[str, Domain], known: set[str], knobs: Knobs, problems: list[Problem]) -> None:
    for name, domain in space.items():
        for other, values in domain.when.items():
            path = f"space.{name}.when.{other}"
            if other in space:
                never = (_never(knobs[other], space[other], value) for value in values)
                problems += [Problem(path, wrong) for wrong in never if wrong]
            elif other not in known:
                near = did_you_mean(other, [knob for knob in known if knob != name])
                message = f"the condition names {other!r}, which is no knob of this space; {near}"
                problems.append(Problem(path, message))
    cycle = find_cycle(space)
    if cycle:
        problems.append(Problem(f"space.{cycle[0]}.when", f"conditions go round in a circle: {' -> '.join(cycle)}"))
    elif not problems:
        problems += [found for name in space for found in _contradiction(name, space)]


def _never(knob: Knob, domain: Domain, value: Scalar) -> str:
    """Why no search over this knob could ever have this value; empty when one could. A value that only this space
    leaves out is no mistake: `--set optimizer=adam` must not make a condition on sgd one. `lint` speaks of it."""
    if isinstance(domain, RangeTested) or (isinstance(domain, FloatRange) and domain.step is None):
        return f"{knob.name} is drawn from a continuous range, so a condition on one of its values never holds"
    try:
        coerce(knob, value)
    except ValueError as error:
        return str(error)
    return ""


def _contradiction(name: str, space: Mapping[str, Domain]) -> list[Problem]:
    """Conditions of a knob, and of the knobs that they name, and so on, of which two exclude each other."""
    needed: dict[str, tuple[Scalar, ...]] = {}
    pending = [name]
    for current in pending:  # grows while it is walked; there are no cycles
        for other, values in space[current].when.items():
            both = tuple(value for value in needed.get(other, values) if any(_same(value, v) for v in values))
            if not both:
                one = " or ".join(map(_show, needed[other]))
                message = f"never holds: {other} would have to be {one} and {' or '.join(map(_show, values))}"
                return [Problem(f"space.{name}.when", message)]
            if other not in needed:
                pending.append(other)
            needed[other] = both
    return []


def _same(one: Scalar, other: Scalar) -> bool:
    """Equal, and not true for 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def find_cycle(space: Mapping[str, Domain]) -> list[str]:
    """The knobs of one cycle of conditions, its first again at the end; empty when there is none."""
    done: set[str] = set()
    for start in space:
        trail: list[str] = []
        stack = [(start, iter(space[start].when))]
        trail.append(start)
        while stack:
            name, others = stack[-1]
            other = next((o for o in others if o in space and o not in done), None)
            if other is None:
                done.add(name)
                stack.pop()
                trail.pop()
            elif other in trail:
                return [*trail[trail.index(other) :], other]
            else:
                trail.append(other)
                stack.append((other, iter(space[other].when)))
    return []


def _show(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
