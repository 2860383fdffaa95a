"""From a StudySpec back to plain data and YAML, which read back as the same specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from dialin.errors import SpecError
from dialin.specification.domains import (
    Belief,
    Choice,
    Condition,
    Domain,
    Fixed,
    FloatRange,
    IntRange,
    RangeTested,
    StatedPrior,
)
from dialin.specification.study_spec import StudySpec
from dialin.specification.yaml_reader import read_value


def to_data(spec: StudySpec) -> dict[str, Any]:
    """Plain data that reads back as the same specification; defaults are left out, except for the mode.

    So an older dialin reads what uses nothing new, and a default that changes is a new version of the language, whose
    step writes the old default in (`versions`).
    """
    data = {"version": spec.version, **spec.model_dump(exclude={"space", "prior"}, exclude_defaults=True)}
    # The mode's default depends on the metric, so that it can equal the field's default and still not be derived.
    data["objective"] = _objective(spec, data["objective"])
    data["space"] = {name: domain_data(domain) for name, domain in spec.space.items()}
    if spec.prior != StatedPrior():
        data["prior"] = _prior_data(spec)
    stopping = data.get("early_stopping", {})
    if "asha" in stopping and stopping["asha"] is None:
        data["early_stopping"] = {**stopping, "asha": "off"}
    return {key: data[key] for key in _ORDER if key in data}


def _objective(spec: StudySpec, written: Mapping[str, Any]) -> dict[str, Any]:
    if not spec.has_front:
        return {**written, "mode": spec.objective.mode}
    metrics = [{"name": metric.name, "mode": metric.mode} for metric in spec.metrics]
    return {**{key: value for key, value in written.items() if key not in ("metric", "mode")}, "metrics": metrics}


_ORDER = ("version", *(name for name in StudySpec.model_fields if name != "version"))


def to_yaml(spec: StudySpec) -> str:
    """YAML that reads back as the same specification; defaults are left out as in `to_data`."""
    return _dump(to_data(spec), None)


def to_block_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML with one key a line."""
    return _dump(data, False)


def domain_data(domain: Domain) -> Any:
    """Plain data that reads back as the same domain."""
    when = _when_data(domain.when)
    match domain:
        case Fixed(value=value):
            return {"value": value, **when} if when else value
        case Choice(values=values):
            return {"choices": list(values), **when} if when else list(values)
        case RangeTested():
            # The default method is left out, so that versions before 2026-11-26, which lack it, read such a space.
            method = {} if domain.method == RangeTested.method else {"method": domain.method}
            options = {**method, "per": list(domain.per), "min": domain.low, "max": domain.high}
            steps = {"steps": domain.steps} if domain.steps is not None else {}
            return {"range_test": {**options, **steps, "seeds": domain.seeds}, **when}
        case FloatRange() | IntRange():
            return {"min": domain.low, "max": domain.high, **_log_and_step(domain), **when}


def _when_data(when: Condition) -> dict[str, Any]:
    return {"when": {name: list(values) for name, values in when.items()}} if when else {}


def _prior_data(spec: StudySpec) -> Any:
    beliefs = spec.prior.knobs.items()
    return "off" if spec.prior.off else {name: _belief_data(belief, spec.space[name]) for name, belief in beliefs}


def _belief_data(belief: Belief, domain: Domain) -> Any:
    """What is written of one knob's prior: off, a value, a mapping, or a list of mappings."""
    if not belief.cases:
        return "off"
    is_factor = isinstance(domain, FloatRange | IntRange) and domain.log
    spread = {} if belief.spread is None else {"spread": f"{belief.spread!r}x" if is_factor else belief.spread}
    cases = [{"around": value, **spread, **_when_data(when)} for when, value in belief.cases]
    if len(cases) > 1:
        return cases
    only = cases[0]
    # A value that is the word off is written as a mapping, because the word alone means no prior.
    return only["around"] if only.keys() == {"around"} and only["around"] != "off" else only


def _log_and_step(domain: FloatRange | IntRange) -> dict[str, Any]:
    log = {"log": True} if domain.log else {}
    stepless = domain.step is None or (isinstance(domain, IntRange) and domain.step == 1)
    return log if stepless else {**log, "step": domain.step}


def _dump(data: Mapping[str, Any], flow: bool | None) -> str:
    """Sections stay in their order, and no letter is escaped. `flow`: PyYAML's `default_flow_style`."""
    return yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=100, allow_unicode=True
    )


class _Dumper(yaml.SafeDumper):
    # Our reader refuses aliases, which PyYAML writes for an object that it meets twice.
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    """Text, quoted wherever our own reader would take the plain word for something else."""
    try:
        plain = read_value(text, "") == text
    except SpecError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _dump_text)
