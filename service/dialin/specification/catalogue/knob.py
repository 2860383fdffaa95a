"""What a row of the catalogue of knobs says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dialin.specification.domains import ALWAYS, Condition, FloatRange, IntRange, Scalar, holds


@dataclass(frozen=True)
class Knob:
    """One row of the catalogue.

    `choices` lists the values of a knob of kind "choice"; `parts` those of kind "parts", whose value is "none" or
    some of them joined by "+"; one of kind "any" takes every value, and is of no catalogue. `low` and `high` are the
    hard bounds of a number. `typical` is a good range to search. `applies` says when the knob does anything at all;
    `defaults` are tried in order, the first whose condition holds.
    """

    name: str
    group: str
    kind: Literal["float", "int", "bool", "choice", "parts", "any"]
    summary: str
    source: str
    defaults: tuple[tuple[Condition, Scalar], ...]
    choices: tuple[Scalar, ...] = ()
    parts: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    typical: FloatRange | IntRange | None = None
    applies: Condition = field(default_factory=dict)

    def default(self, params: Mapping[str, Scalar]) -> Scalar:
        """The value that the knob takes beside `params` when a search space does not name it."""
        return next(value for when, value in self.defaults if holds(when, params))


def any_knob(name: str) -> Knob:
    """A knob of a person's own, of which only the name is known."""
    return Knob(name, "own", "any", "", "", ())


def always(value: Scalar) -> tuple[tuple[Condition, Scalar], ...]:
    return ((ALWAYS, value),)
