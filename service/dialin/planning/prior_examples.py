"""What the best configurations of earlier studies say about good values of one knob. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from dialin.planning.prior_cases import factor
from dialin.specification.catalogue.knob import Scaling
from dialin.specification.domains import (
    ALWAYS,
    Cases,
    Choice,
    FloatRange,
    IntRange,
    Scalar,
    allows,
    holds,
    is_number,
)

MOST_EXAMPLES = 5
"""The best so many configurations speak for each case of a centre."""
LEAST_FREEDOM = 2
"""Degrees of freedom from which a scatter is a spread: three examples about one centre."""
LEAST_SPREAD, MOST_SPREAD = 0.1, 0.25
"""Of a range: the bounds of the spread that is taken from the scatter of examples. A few examples lie close together by
chance too; and a spread is no wider than where nothing is known."""


def cases_of_examples(
    name: str,
    domain: Choice | FloatRange | IntRange,
    cases: Cases,
    scaling: Scaling | None,
    examples: Sequence[Mapping[str, Scalar]],
) -> Cases:
    """The cases of a centre with the values of those examples that each of them holds for; a case that no example has
    stays as it is. Empty: no example has the knob.

    `cases`, `scaling`: what is believed otherwise; without cases the examples make one. `examples`: the best first.
    """
    known = cases or ((ALWAYS, None),)
    groups = _groups(name, known, scaling, examples)
    if not any(groups):
        return ()
    found = (
        (when, _centre(domain, group) if group else value) for (when, value), group in zip(known, groups, strict=True)
    )
    return tuple((when, value) for when, value in found if value is not None)


def spread_of_examples(
    name: str,
    domain: FloatRange | IntRange,
    cases: Cases,
    scaling: Scaling | None,
    examples: Sequence[Mapping[str, Scalar]],
) -> float | None:
    """The scatter of the examples about their centres, as the spread of a prior; None where it is as wide as that of a
    knob of which nothing is known, or the examples are fewer than three."""
    groups = [_points(domain, group) for group in _groups(name, cases, scaling, examples)]
    freedom = sum(len(group) - 1 for group in groups if group)
    if freedom < LEAST_FREEDOM:
        return None
    squares = sum((point - statistics.fmean(group)) ** 2 for group in groups for point in group)
    width = math.log(domain.high / domain.low) if domain.log else float(domain.high - domain.low)
    deviation = max(LEAST_SPREAD * width, math.sqrt(squares / freedom))
    if deviation >= MOST_SPREAD * width:
        return None
    return math.exp(deviation) if domain.log else deviation


def _points(domain: FloatRange | IntRange, values: Sequence[Scalar]) -> list[float]:
    """Values on the scale on which a range is searched."""
    numbers = [float(value) for value in values if is_number(value)]
    return [math.log(number) for number in numbers if number > 0] if domain.log else numbers


def _groups(
    name: str, cases: Cases, scaling: Scaling | None, examples: Sequence[Mapping[str, Scalar]]
) -> list[list[Scalar]]:
    """The values of the examples, by the case that holds for each, brought to the reference of the scaling."""
    groups: list[list[Scalar]] = [[] for _ in cases]
    for example in examples:
        index = next((index for index, (when, _) in enumerate(cases) if holds(when, example)), None)
        if index is None or name not in example or len(groups[index]) == MOST_EXAMPLES:
            continue
        value = example[name]
        groups[index].append(value / factor(scaling, example) if is_number(value) and scaling is not None else value)
    return groups


def _centre(domain: Choice | FloatRange | IntRange, values: Sequence[Scalar]) -> Scalar:
    """The median of a range, the most frequent value of a choice; of equally frequent ones that of the best example."""
    if isinstance(domain, Choice):
        allowed = [value for value in values if allows(domain, value)]
        return statistics.mode(allowed) if allowed else None
    numbers = [value for value in values if is_number(value)]
    return statistics.median_low(numbers) if numbers else None
