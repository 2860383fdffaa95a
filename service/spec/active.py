"""Which knobs a configuration has: conditions obeyed, defaults filled in."""

from __future__ import annotations

from collections.abc import Mapping

from service.spec.domains import Fixed, Scalar, holds
from service.spec.knobs import CATALOGUE
from service.spec.study_spec import StudySpec


def ordered(spec: StudySpec) -> list[str]:
    """The knobs of the space, each after those that its condition names; otherwise as written."""
    order: list[str] = []
    pending = list(spec.space)
    while pending:
        ready = [
            name
            for name in pending
            if all(other in order or other not in spec.space for other in spec.space[name].when)
        ]
        order.extend(ready)
        pending = [name for name in pending if name not in ready]
    return order


def searched(spec: StudySpec) -> list[str]:
    """The knobs that move, each after those that its condition names."""
    return [name for name in ordered(spec) if not isinstance(spec.space[name], Fixed)]


def active_params(spec: StudySpec, chosen: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The whole configuration, in the catalogue's order: fixed knobs whose condition holds, the chosen values, and the
    catalogue's default of each knob that the space does not name, where that knob applies."""
    params: dict[str, Scalar] = {}
    for name in ordered(spec):
        domain = spec.space[name]
        if not holds(domain.when, params):
            continue
        if isinstance(domain, Fixed):
            params[name] = domain.value
        elif name in chosen:
            params[name] = chosen[name]
    for knob in CATALOGUE.values():
        if knob.name not in spec.space and holds(knob.applies, _with_defaults(params)):
            params[knob.name] = knob.default(_with_defaults(params))
    return {name: params[name] for name in CATALOGUE if name in params}


def _with_defaults(params: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """The configuration with the two knobs that others depend on, whether or not the space names them."""
    missing = {name: CATALOGUE[name].default({}) for name in ("model", "optimizer") if name not in params}
    return {**missing, **params}
