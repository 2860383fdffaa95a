"""Which knobs a configuration has: conditions obeyed, defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import Choice, Domain, Fixed, RangeTested, Scalar, holds
from dialin.specification.study_spec import PythonSpec, StudySpec

MOST_GP_DIMENSIONS = 12


def ordered(spec: StudySpec) -> list[str]:
    """The knobs of the space, each after those that it depends on; otherwise as written."""
    order: list[str] = []
    pending = list(spec.space)
    while pending:
        ready = [
            name
            for name in pending
            if all(other in order or other not in spec.space for other in _needed(spec.space[name]))
        ]
        order.extend(ready)
        pending = [name for name in pending if name not in ready]
    return order


def _needed(domain: Domain) -> tuple[str, ...]:
    """The knobs that must be decided before this one."""
    return (*domain.when, *(domain.per if isinstance(domain, RangeTested) else ()))


def searched(spec: StudySpec) -> list[str]:
    """The knobs that move, each after those that its condition names."""
    return [name for name in ordered(spec) if not isinstance(spec.space[name], Fixed)]


def sampler_of(spec: StudySpec) -> str:
    """The sampler that `auto` stands for: the model of learning curves in a space of few dimensions (a choice has one a
    value), where a study soon has trials enough to fit it to; TPE in a larger one."""
    if spec.search.sampler != "auto":
        return spec.search.sampler
    domains = [spec.space[name] for name in searched(spec)]
    dimensions = sum(len(domain.values) if isinstance(domain, Choice) else 1 for domain in domains)
    return "gp" if dimensions <= MOST_GP_DIMENSIONS else "tpe"


def active_params(spec: StudySpec, chosen: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The whole configuration, in the catalogue's order: fixed knobs whose condition holds, the chosen values, and the
    catalogue's default of each knob that the space does not name, where that knob applies. Of a person's own function
    in the space's order, and no others."""
    params: dict[str, Scalar] = {}
    for name in ordered(spec):
        domain = spec.space[name]
        if not holds(domain.when, params):
            continue
        if isinstance(domain, Fixed):
            params[name] = domain.value
        elif name in chosen:
            params[name] = chosen[name]
    if isinstance(spec.objective, PythonSpec):
        return {name: params[name] for name in spec.space if name in params}
    for knob in CATALOGUE.values():  # in its order, what others depend on comes first
        if knob.name not in spec.space and holds(knob.applies, params):
            params[knob.name] = knob.default(params)
    return {name: params[name] for name in CATALOGUE if name in params}


def complete(params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A value for every knob of the catalogue: those of `params`, and the default of each that has none there."""
    full: dict[str, Scalar] = {}
    for name, knob in CATALOGUE.items():
        full[name] = params[name] if name in params else knob.default({**full, **params})
    return full
