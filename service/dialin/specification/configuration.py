"""Which knobs a configuration has, with conditions and defaults applied; and what the search moves."""

from __future__ import annotations

from collections.abc import Mapping

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import Domain, Fixed, RangeTested, Scalar, holds
from dialin.specification.study_spec import PythonSpec, StudySpec

PRIOR_SAMPLERS = ("gp",)
"""The samplers that begin about the centres of the prior. The others are uniform over the space."""


def ordered(spec: StudySpec) -> list[str]:
    """The knobs of the space, each after those that it depends on; otherwise as written."""
    order: list[str] = []
    pending = list(spec.space)
    while pending:  # ends, because the conditions of a specification form no circle
        undecided = set(pending)
        ready = [name for name in pending if not needed(spec.space[name]) & undecided]
        order.extend(ready)
        pending = [name for name in pending if needed(spec.space[name]) & undecided]
    return order


def needed(domain: Domain) -> set[str]:
    """The knobs whose values must be known before this one's."""
    return {*domain.when, *(domain.per if isinstance(domain, RangeTested) else ())}


def searched(spec: StudySpec) -> list[str]:
    """The knobs that the search moves, each after those that its condition names."""
    return [name for name in ordered(spec) if not isinstance(spec.space[name], Fixed)]


def sampler_of(spec: StudySpec) -> str:
    """The sampler of a study. `auto` is the Gaussian process over learning curves, whatever the space."""
    return "gp" if spec.search.sampler == "auto" else spec.search.sampler


def uses_prior(spec: StudySpec) -> bool:
    """Whether the sampler of a study begins about the centres of its prior."""
    return sampler_of(spec) in PRIOR_SAMPLERS


def active_params(spec: StudySpec, chosen: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The whole configuration of a trial: the fixed knobs whose condition holds, the chosen values, and the default of
    each knob of the catalogue that the space does not name, where that knob applies.

    `chosen`: the values that the search chose; those of knobs whose condition does not hold are left out. The order is
    the catalogue's. With a person's own function there are no defaults, and the order is the space's.
    """
    params = _params_of_space(spec, chosen)
    if isinstance(spec.objective, PythonSpec):
        return {name: params[name] for name in spec.space if name in params}
    for knob in CATALOGUE.values():  # ordered so that what a condition names is decided before it
        if knob.name not in spec.space and holds(knob.applies, params):
            params[knob.name] = knob.default(params)
    return {name: params[name] for name in CATALOGUE if name in params}


def _params_of_space(spec: StudySpec, chosen: Mapping[str, Scalar]) -> dict[str, Scalar]:
    params: dict[str, Scalar] = {}
    for name in ordered(spec):
        domain = spec.space[name]
        if not holds(domain.when, params):
            continue
        if isinstance(domain, Fixed):
            params[name] = domain.value
        elif name in chosen:
            params[name] = chosen[name]
    return params


def complete(params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A value for every knob of the catalogue: those of `params`, and the default of each that has none there."""
    full: dict[str, Scalar] = {}
    for name, knob in CATALOGUE.items():
        full[name] = params[name] if name in params else knob.default({**full, **params})
    return full
