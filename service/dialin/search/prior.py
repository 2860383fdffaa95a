"""The prior of a search in the unit cube: draws from it, its density, and whether the results contradict it.

What is believed is in `planning.prior`. Here a range has a normal distribution about its centre, cut off at the ends of
its domain; a choice has a greater probability of its centre; knobs are independent, beside those that a centre depends
on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from dialin.planning.prior import KnobPrior, Prior, Scaling, depends_on, order_of
from dialin.search.models.encoding import Array, Columns, Encoding, position_of
from dialin.specification.domains import Choice, Condition, FloatRange, IntRange, Scalar, is_number
from dialin.specification.study_spec import StudySpec

SPREAD = 0.25
"""One standard deviation of a range about its centre, as a fraction of the range, where the prior states none."""
LEAST_SPREAD = 0.02
"""The smallest standard deviation, as a fraction of the range: a prior never is a fixed value."""
CHOICE_WEIGHT = 0.6
"""Probability with which a choice takes its centre; otherwise it takes any of its values."""
LEAST_TESTED = 6
"""Trials that must have a value before the prior is tested against them."""


@dataclass(frozen=True)
class _Belief:
    """The prior of one searched knob in the unit cube."""

    index: int
    """Of the knob among the searched ones."""
    name: str
    cases: Sequence[tuple[Condition, float]]
    """The centre beside the first condition that holds: a position, or the index of a choice's value; a value of the
    domain, where a scaling is to be applied first."""
    scaling: Scaling | None
    spread: float
    """One standard deviation, as a fraction of the range."""
    level: int
    """0 for a centre that depends on no other knob, else one more than those of the knobs that it depends on."""

    @property
    def is_constant(self) -> bool:
        """Whether the centre is the same in every configuration."""
        return self.scaling is None and not self.cases[0][0]


class SearchPrior:
    """The prior of one space. It is empty, and uniform, where no knob has one."""

    def __init__(self, spec: StudySpec, encoding: Encoding, prior: Prior) -> None:
        self._spec, self._encoding = spec, encoding
        levels: dict[str, int] = {}
        for name in order_of(spec, prior):
            needed = depends_on(prior.knobs[name]) if name in prior.knobs else set()
            levels[name] = max((1 + levels[other] for other in needed if other in levels), default=0)
        beliefs = (self._belief(name, known, levels[name]) for name, known in prior.knobs.items())
        self._beliefs = sorted(beliefs, key=lambda belief: (belief.level, belief.index))

    @property
    def is_empty(self) -> bool:
        """Whether no knob has a prior."""
        return not self._beliefs

    def draw(self, count: int, generator: np.random.Generator) -> Array:
        """(count, knobs) Points drawn from the prior; a knob without one is uniform."""
        points = generator.random((count, len(self._encoding.names)))
        columns, level = self._encoding.columns(points), 0
        for belief in self._beliefs:
            if belief.level != level:  # the values that its centre depends on have been drawn
                columns, level = self._encoding.columns(points), belief.level
            centres = self._centres(belief, columns, count)
            drawn = points[:, belief.index]
            domain = self._spec.space[belief.name]
            if isinstance(domain, Choice):
                kept = ~np.isnan(centres) & (generator.random(count) < CHOICE_WEIGHT)
                points[:, belief.index] = np.where(kept, (centres + 0.5) / len(domain.values), drawn)
            else:
                low, high = ndtr(-centres / belief.spread), ndtr((1 - centres) / belief.spread)
                normal = np.clip(centres + belief.spread * ndtri(low + drawn * (high - low)), 0.0, 1.0)
                points[:, belief.index] = np.where(np.isnan(centres), drawn, normal)
        return points

    def log_ratio(self, columns: Columns, count: int) -> Array:
        """(count,) The logarithm of the prior's density at configurations, relative to the uniform one. A knob that a
        configuration does not have adds nothing."""
        total = np.zeros(count)
        for belief in self._beliefs:
            centres = self._centres(belief, columns, count)
            domain, values = self._spec.space[belief.name], columns.values[belief.name]
            if isinstance(domain, Choice):
                other = (1 - CHOICE_WEIGHT) / len(domain.values)
                density = np.where(values == centres, CHOICE_WEIGHT + other, other)
                terms = np.log(density * len(domain.values))
            else:
                away = (self._encoding.units(belief.name, values) - centres) / belief.spread
                # One centre for all is usual, and its normalization is then computed once.
                of = centres[:1] if belief.is_constant else centres
                mass = ndtr((1 - of) / belief.spread) - ndtr(-of / belief.spread)
                terms = -0.5 * away**2 - np.log(belief.spread * math.sqrt(2 * math.pi) * mass)
            known = ~np.isnan(centres) & columns.exists[belief.name]
            total[known] += terms[known]
        return total

    def _centres(self, belief: _Belief, columns: Columns, count: int) -> Array:
        """(count,) The centre beside each configuration: a position, or the index of a choice's value; NaN where the
        prior says nothing."""
        if belief.is_constant:
            return np.full(count, belief.cases[0][1])
        centres = np.full(count, np.nan)
        undecided = np.ones(count, dtype=bool)
        for condition, value in belief.cases:
            here = undecided & self._encoding.condition_mask(condition, columns, count)
            undecided &= ~here
            if belief.scaling is None:
                centres[here] = value
            else:
                scaled = value * self._factors(belief.scaling, columns, count)
                centres[here] = self._position(belief.name, scaled)[here]
        return centres

    def _position(self, name: str, values: Array) -> Array:
        """(n,) The positions of a range's values, those beyond its ends at the ends."""
        domain = self._spec.space[name]
        if isinstance(domain, FloatRange | IntRange):
            values = np.clip(values, domain.low, domain.high)
        return self._encoding.units(name, values)

    def _factors(self, scaling: Scaling, columns: Columns, count: int) -> Array:
        """(count,) What a centre is multiplied by; 1 where the knob that it follows does not exist."""
        domain = self._spec.space[scaling.knob]
        values = columns.values[scaling.knob]
        if isinstance(domain, Choice):
            values = np.array([_number(value) for value in domain.values])[values.astype(int)]
        exponents = np.zeros(count)
        undecided = columns.exists[scaling.knob].copy()
        for condition, exponent in scaling.exponents:
            here = undecided & self._encoding.condition_mask(condition, columns, count)
            exponents[here] = exponent
            undecided &= ~here
        factors: Array = (values / scaling.reference) ** exponents
        return factors

    def _belief(self, name: str, known: KnobPrior, level: int) -> _Belief:
        domain, spread = self._spec.space[name], SPREAD
        if known.spread is not None and isinstance(domain, FloatRange | IntRange):
            width = math.log(domain.high / domain.low) if domain.log else domain.high - domain.low
            spread = (math.log(known.spread) if domain.log else known.spread) / width
        cases = [(condition, self._centre(name, value, known.scaling)) for condition, value in known.cases]
        index = self._encoding.names.index(name)
        return _Belief(index, name, cases, known.scaling, max(LEAST_SPREAD, spread), level)

    def _centre(self, name: str, value: Scalar, scaling: Scaling | None) -> float:
        """The centre as `_Belief.cases` has it."""
        domain = self._spec.space[name]
        if isinstance(domain, Choice):
            return float(position_of(domain, value))
        number = _number(value)
        return number if scaling is not None else float(self._position(name, np.array([number]))[0])


def contradicts(densities: Sequence[float], values: Sequence[float]) -> bool:
    """Whether results contradict a prior: the trials that it favours are no better than the others.

    `densities`: the logarithm of the prior's density at each trial, per knob that the trial has; `values`: what each
    has reached after the same number of epochs, larger is better, -inf where it diverged. It is so where Spearman's
    rank correlation of the two is negative. No level of significance is asked for: a prior that does not help may go,
    and a good one shows early (README.md has the figures).
    """
    if len(values) < LEAST_TESTED:
        return False
    one, other = rankdata(densities), rankdata(values)
    return float((one - one.mean()) @ (other - other.mean())) < 0


def _number(value: Scalar) -> float:
    assert is_number(value)  # the records of a prior give a range, and what follows a knob, numbers
    return float(value)
