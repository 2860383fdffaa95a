"""Domains and knobs in words, as tables, plans and the catalogue's page show them."""

from __future__ import annotations

from dialin.specification.catalogue import Knob
from dialin.specification.domains import Cases, Choice, Condition, Domain, Fixed, FloatRange, IntRange, RangeTested
from dialin.texts import scalar_text


def domain_text(domain: Domain) -> str:
    """The values that a domain allows: "0.001 to 0.1, log", "one of sgd, adam"."""
    match domain:
        case Fixed(value=value):
            return scalar_text(value)
        case Choice(values=values):
            return "one of " + ", ".join(scalar_text(value) for value in values)
        case RangeTested(method=method, per=per):
            each = f", for each {', '.join(per)}" if per else ""
            return f"between the bounds of a range test ({method}{each})"
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


def cases_text(cases: Cases) -> str:
    """Values with conditions: "0.1 where optimizer is sgd, else 0.001"."""
    texts = []
    for index, (when, value) in enumerate(cases):
        otherwise = "else " if index else ""
        texts.append(
            f"{scalar_text(value)} where {condition_text(when)}" if when else f"{otherwise}{scalar_text(value)}"
        )
    return ", ".join(texts)


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
