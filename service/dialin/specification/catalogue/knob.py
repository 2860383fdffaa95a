"""What a row of the catalogue of knobs says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dialin.specification.domains import ALWAYS, Condition, FloatRange, IntRange, Scalar, holds

Kind = Literal["float", "int", "bool", "choice", "parts", "any"]
"""What a knob's values are: numbers, whole numbers, true and false, words, words joined by "+", or anything."""


@dataclass(frozen=True)
class Knob:
    """One row of the catalogue of knobs."""

    name: str
    """The name in search spaces, in results and in MLflow."""
    group: str
    """The heading under which `dialin knobs` lists it."""
    kind: Kind
    """What its values are; "any" for a knob of a person's own function, of which no more is known."""
    summary: str
    """What it does, in a line."""
    source: str
    """The article or manual that describes it."""
    defaults: tuple[tuple[Condition, Scalar], ...]
    """Its values where a space does not name it: the first whose condition holds."""
    choices: tuple[Scalar, ...] = ()
    """The values of a knob of kind "choice" or "bool"."""
    parts: tuple[str, ...] = ()
    """The words of a knob of kind "parts"; its value is "none" or some of them, each once, in this order."""
    low: float | None = None
    """The lower bound of a number; None: none."""
    high: float | None = None
    """The upper bound of a number; None: none."""
    low_open: bool = False
    """Whether the lower bound itself is excluded."""
    high_open: bool = False
    """Whether the upper bound itself is excluded."""
    typical: FloatRange | IntRange | None = None
    """A good range to search."""
    applies: Condition = field(default_factory=dict)
    """The condition under which it has any effect."""

    def default(self, params: Mapping[str, Scalar]) -> Scalar:
        """The value that the knob takes beside `params` when a search space does not name it."""
        return next(value for when, value in self.defaults if holds(when, params))

    def within_bounds(self, value: float) -> bool:
        """Whether a number lies between the bounds; one that is excluded does not."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return (low < value if self.low_open else low <= value) and (value < high if self.high_open else value <= high)


def any_knob(name: str) -> Knob:
    """A knob of a person's own function, of which only the name is known."""
    return Knob(name, "own", "any", "", "", ())


def always(value: Scalar) -> tuple[tuple[Condition, Scalar], ...]:
    """The defaults of a knob whose default depends on no other knob."""
    return ((ALWAYS, value),)
