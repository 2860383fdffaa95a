"""What a row of the catalogue of knobs says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dialin.specification.domains import ALWAYS, Cases, Condition, FloatRange, IntRange, Scalar, holds

Kind = Literal["float", "int", "bool", "choice", "parts", "any"]
"""What a knob's values are: numbers, whole numbers, true and false, words, words joined by "+", or anything."""

EPOCHS, METRIC, DATASET = "budget.epochs", "objective.metric", "objective.dataset"
"""What the conditions and the scaling of a `Start` may name beside knobs: constants of a study."""


@dataclass(frozen=True)
class Scaling:
    """How a value follows another knob: it is multiplied by (other / reference) ** exponent."""

    knob: str
    """The knob that it follows, such as batch_size."""
    reference: float
    """The value of that knob at which the value is as stated."""
    exponents: tuple[tuple[Condition, float], ...]
    """1: in proportion; 0.5: with the square root. The one beside the first condition that holds; none holds: 0."""


@dataclass(frozen=True)
class Start:
    """The value from which an expert would start a search over a knob: the centre of its prior."""

    source: str
    """Where the value comes from, and why it is not the default where it differs from it."""
    cases: Cases = ()
    """The values; empty: they are the defaults of the knob."""
    then: tuple[Scalar, ...] = ()
    """Of a choice, the next best values, for a space that does not have the best one."""
    scaling: Scaling | None = None
    """How the value follows another knob; None: it does not."""


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
    defaults: Cases
    """Its values where a space does not name it: the first whose condition holds."""
    start: Start | None = None
    """The value from which an expert would start to search it; None: only of a person's own function."""
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

    def start_cases(self) -> Cases:
        """The values from which an expert would start to search it; empty: none is known."""
        return () if self.start is None else self.start.cases or self.defaults

    def within_bounds(self, value: float) -> bool:
        """Whether a number lies between the bounds; one that is excluded does not."""
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return (low < value if self.low_open else low <= value) and (value < high if self.high_open else value <= high)


def any_knob(name: str) -> Knob:
    """A knob of a person's own function, of which only the name is known."""
    return Knob(name, "own", "any", "", "", ())


def always(value: Scalar) -> Cases:
    """The defaults of a knob whose default depends on no other knob."""
    return ((ALWAYS, value),)
