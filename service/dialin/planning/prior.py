"""What is believed about good values of the knobs before any trial: the prior of a search. Pure.

It comes from the catalogue's defaults, from the `prior` section of a specification, which has the last word, and from
the best trials of the studies that a search starts from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dialin.specification import searched
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import Condition, Scalar
from dialin.specification.study_spec import PythonSpec, StudySpec


@dataclass(frozen=True)
class Scaling:
    """How a centre follows another knob: it is multiplied by (value / reference) ** exponent."""

    knob: str
    """The knob that it follows, such as batch_size."""
    reference: float
    """The value of that knob at which the centre is as stated."""
    exponent: float
    """1: in proportion; 0.5: with the square root."""


@dataclass(frozen=True)
class KnobPrior:
    """The belief about one searched knob."""

    cases: tuple[tuple[Condition, Scalar], ...]
    """The centre: the value beside the first condition that holds in a configuration; none holds: no belief there."""
    source: str
    """Where the belief comes from, for people: an article, the space, a range test, a study."""
    spread: float | None = None
    """One standard deviation about the centre: a factor above 1 on a log scale, a difference on a linear one. None: a
    quarter of the knob's range."""
    scaling: Scaling | None = None
    """How the centre follows another knob; None: it does not."""


@dataclass(frozen=True)
class Prior:
    """The beliefs about the knobs of one space, independent of each other but for their conditions."""

    knobs: Mapping[str, KnobPrior] = field(default_factory=dict)
    """By the name of a searched knob; a knob that is not here has no prior. Empty: the search has none."""


def prior_of(spec: StudySpec) -> Prior:
    """The prior of a search over this space: the catalogue's defaults. A person's own function has none."""
    if isinstance(spec.objective, PythonSpec):
        return Prior()
    return Prior({name: KnobPrior(CATALOGUE[name].defaults, "the catalogue") for name in searched(spec)})
