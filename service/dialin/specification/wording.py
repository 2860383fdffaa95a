"""Domains and knobs in words, as tables, plans and the catalogue's page show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dialin.specification.catalogue import Knob
from dialin.specification.catalogue.knob import Scaling
from dialin.specification.domains import (
    Cases,
    Choice,
    Condition,
    Domain,
    Fixed,
    FloatRange,
    IntRange,
    RangeTested,
    Scalar,
)
from dialin.specification.metrics import BoundSpec
from dialin.texts import measure_text, scalar_text


def domain_text(domain: Domain) -> str:
    """The values that a domain allows: "0.001 to 0.1, log", "one of sgd, adam"."""
    match domain:
        case Fixed(value=value):
            return scalar_text(value)
        case Choice(values=values):
            return "one of " + ", ".join(scalar_text(value) for value in values)
        case RangeTested(method=method, per=per):
            each = f", for each {', '.join(per)}" if per else ""
            return f"about the rate of a range test ({method}{each})"
        case FloatRange() | IntRange():
            step = f", step {domain.step:g}" if domain.step not in (None, 1) else ""
            return f"{scalar_text(domain.low)} to {scalar_text(domain.high)}{', log' if domain.log else ''}{step}"


def when_text(domain: Domain) -> str:
    """The condition under which a knob is active: "when optimizer is sgd"; "" for a knob that always is."""
    text = condition_text(domain.when)
    return f"when {text}" if text else ""


def condition_text(when: Condition) -> str:
    """A condition: "optimizer is sgd or nesterov and schedule is step"; "" for one that always holds."""
    return " and ".join(f"{name} is {' or '.join(map(scalar_text, values))}" for name, values in when.items())


def goals_text(goals: Sequence[tuple[str, str]]) -> str:
    """What is looked for, of (name, mode) each: "maximize accuracy, minimize latency and minimize parameters"."""
    texts = [f"{mode}imize {name}" for name, mode in goals]
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))


def bound_text(name: str, bound: BoundSpec) -> str:
    """A constraint: "parameters at most 1,000,000", "accuracy at least 0.9"."""
    low = f"at least {measure_text(bound.min)}" if bound.min is not None else ""
    high = f"at most {measure_text(bound.max)}" if bound.max is not None else ""
    return f"{name} {' and '.join(filter(None, (low, high)))}"


def cases_text(cases: Sequence[tuple[Condition, Scalar]]) -> str:
    """Values with conditions: "0.1 where optimizer is sgd, else 0.001"."""
    texts = []
    for index, (when, value) in enumerate(cases):
        text = scalar_text(value)
        texts.append(f"{text} where {condition_text(when)}" if when else f"else {text}" if index else text)
    return ", ".join(texts)


def centre_text(domain: Domain, cases: Cases, scaling: Scaling | None = None) -> str:
    """The centre of the prior of a knob with this domain: "0.1 at batch_size 128; in proportion to it"."""
    if isinstance(domain, RangeTested):  # a position between bounds says nothing to a reader
        return "the rate that the range test finds"
    return _followed_text(cases, scaling)


def spread_text(spread: float | None, domain: Domain) -> str:
    """The spread of a prior: "2x" on a log scale, "0.1" on a linear one; "" for one that is not stated."""
    if spread is None:
        return ""
    return f"{spread:.3g}x" if isinstance(domain, FloatRange | IntRange) and domain.log else f"{spread:.3g}"


def _followed_text(cases: Cases, scaling: Scaling | None) -> str:
    text = cases_text(cases)
    if scaling is None:
        return text
    follows = cases_text([(when, _power_text(exponent)) for when, exponent in scaling.exponents])
    comma = ", " if (cases and cases[-1][0]) or len(cases) > 1 else " "
    return f"{text}{comma}at {scaling.knob} {scaling.reference:g}; {follows}"


def start_text(knob: Knob) -> str:
    """The value about which a search over a knob of the catalogue begins; "" where none is known."""
    if knob.start is None:
        return ""
    scaling = knob.start.scaling
    if scaling is not None:
        # What lr_scaling takes off the power would make it unreadable; the source of the value says it.
        plain = tuple((when, exponent) for when, exponent in scaling.exponents if "lr_scaling" not in when)
        scaling = replace(scaling, exponents=plain)
    return _followed_text(knob.start_cases(), scaling)


def _power_text(exponent: float) -> str:
    words = {1.0: "in proportion to it", 0.5: "with its square root", 0.0: "the same at any other"}
    return words.get(exponent, f"with its power of {exponent:g}")


def knob_text(knob: Knob) -> str:
    """The values that a knob of the catalogue can take."""
    if knob.choices:
        return ", ".join(scalar_text(value) for value in knob.choices)
    if knob.parts:
        return f"none, or some of {', '.join(knob.parts)} joined by +"
    kind = "whole number" if knob.kind == "int" else "number"
    low = _bound_text("above" if knob.low_open else "from", knob.low)
    high = _bound_text("below" if knob.high_open else "to", knob.high)
    return f"{kind}{low}{high}"


def _bound_text(word: str, bound: float | None) -> str:
    return "" if bound is None else f" {word} {bound:g}"
