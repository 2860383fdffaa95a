"""Several metrics and constraints in the language."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from dialin.errors import SpecError
from dialin.specification import parse_spec, to_data, to_yaml
from dialin.specification.metrics import BoundSpec, Metric
from dialin.specification.schema import json_schema
from dialin.specification.yaml_reader import read_yaml

VALIDATOR = Draft202012Validator(json_schema())


def text_of(objective, more=""):
    return f"name: x\nobjective: {objective}\nspace: {{lr: [1, 2]}}\n{more}\n"


def parsed(objective, more="", *overrides):
    return parse_spec(text_of(objective, more), overrides=overrides)


def message(objective, more="", *overrides):
    with pytest.raises(SpecError) as raised:
        parsed(objective, more, *overrides)
    return str(raised.value)


def test_several_metrics_have_the_modes_that_follow_from_their_names():
    spec = parsed("{dataset: digits, metrics: [val_accuracy, {name: val_loss}, parameters, {name: memory, mode: min}]}")
    assert spec.metrics == (
        Metric("val_accuracy", "max"),
        Metric("val_loss", "min"),
        Metric("parameters", "min"),
        Metric("memory", "min"),
    )
    assert spec.has_front
    assert (spec.objective.metric, spec.objective.mode) == ("val_accuracy", "max")
    assert spec.further == ("val_loss", "parameters", "memory")


def test_what_a_function_reports_has_any_name_and_mode():
    spec = parsed("{python: '/a/b.py:c', metrics: [{name: latency, mode: min}, score, memory]}")
    assert spec.metrics == (Metric("latency", "min"), Metric("score", "max"), Metric("memory", "min"))


@pytest.mark.parametrize("metrics", ["[val_loss]", "[{name: val_loss}]", "[{name: val_loss, mode: min}]"])
def test_a_list_of_one_is_the_same_as_metric(metrics):
    assert parsed(f"{{dataset: digits, metrics: {metrics}}}") == parsed("{dataset: digits, metric: val_loss}")
    assert not parsed(f"{{dataset: digits, metrics: {metrics}}}").has_front


def test_an_empty_list_is_none():
    assert parsed("{dataset: digits, metrics: []}") == parsed("{dataset: digits}")


def test_with_one_metric_nothing_is_written_that_was_not_before():
    assert to_data(parsed("{dataset: digits}"))["objective"] == {"dataset": "digits", "mode": "max"}
    assert "constraints" not in to_data(parsed("{dataset: digits}"))
    assert parsed("{dataset: digits}").further == ()


@pytest.mark.parametrize(
    ("objective", "more"),
    [
        ("{dataset: digits, metrics: [val_accuracy, parameters]}", ""),
        ("{dataset: digits, metrics: [val_loss, val_accuracy]}", "constraints: {memory: {min: 1, max: 1e3}}"),
        ("{dataset: digits}", "constraints: {epoch_seconds: {max: 2}, val_accuracy: {min: 0.9}}"),
        ("{python: '/a/b.py:c', metrics: [good, {name: cost, mode: min}]}", "constraints: {size: {max: 3}}"),
    ],
)
def test_what_is_written_reads_back_and_fits_the_schema(objective, more):
    spec = parsed(objective, more)
    assert parse_spec(to_yaml(spec)) == spec
    VALIDATOR.validate(to_data(spec))
    VALIDATOR.validate(read_yaml(text_of(objective, more)).data)


@pytest.mark.parametrize(
    ("objective", "more", "expected"),
    [
        ("{dataset: digits, metric: val_loss, metrics: [val_accuracy, memory]}", "", "line 2: objective: metric beside metrics; name either one metric, or all of them in metrics"),
        ("{dataset: digits, mode: max, metrics: [val_accuracy]}", "", "line 2: objective: mode beside metrics; name either one metric, or all of them in metrics"),
        ("{dataset: digits, metrics: [parameters, val_accuracy]}", "", "line 2: objective.metrics: 'parameters' comes first; the first one is val_accuracy or val_loss, which tells a trial's best epoch"),
        ("{dataset: digits, metrics: [val_accuracy, size]}", "", "line 2: objective.metrics.1.name: 'size'; allowed: 'val_accuracy', 'val_loss', 'parameters', 'epoch_seconds', 'memory'"),
        ("{dataset: digits, metrics: [{name: val_accuracy, mode: min}, memory]}", "", "line 2: objective.metrics.0.mode: 'min' of val_accuracy finds the worst; use 'max'"),
        ("{dataset: digits, metrics: [val_loss, {nam: memory}]}", "", "line 2: objective.metrics.1.name: 'name' is missing\nline 2: objective.metrics.1.nam: unknown key 'nam'; did you mean 'name'?"),
        ("{dataset: digits, metrics: [val_loss, memory, memory]}", "", "line 2: objective.metrics: 'memory' is named twice"),
        ("{dataset: digits, metrics: 3}", "", "line 2: objective.metrics: 3 is not a list"),
        ("{dataset: digits, metrics: [val_loss, 3]}", "", "line 2: objective.metrics.1: 3 is not a mapping; keys: name, mode"),
        ("{python: '/a/b.py:c', metrics: [1x, b]}", "", "line 2: objective.metrics.0.name: '1x'; allowed: 1 to 64 letters, digits and _, no digit first"),
        ("{python: '/a/b.py:c', metrics: [a, b, c, d, e]}", "", "line 2: objective.metrics: 5 of them; at most 4 are taken"),
        ("{dataset: digits, metrics: [val_loss, memory]}", "budget: {target: 1}", "line 4: budget.target: several metrics have no one value to reach; leave it out, or bound a metric in constraints"),
        ("{dataset: digits}", "constraints: {memry: {max: 1}}", "line 4: constraints.memry: 'memry' is not measured by a trial; did you mean 'memory'?"),
        ("{dataset: digits}", "constraints: {memory: {}}", "line 4: constraints.memory: names no bound; write min, max or both"),
        ("{dataset: digits}", "constraints: {memory: {min: 3, max: 1}}", "line 4: constraints.memory: min 3 is above max 1"),
        ("{dataset: digits}", "constraints: {memory: 3}", "line 4: constraints.memory: 3 is not a mapping; keys: min, max"),
        ("{dataset: digits}", "constraints: {memory: {mx: 3}}", "line 4: constraints.memory.mx: unknown key 'mx'; did you mean 'max'?"),
        ("{dataset: digits}", "constraints: {memory: {max: .inf}}", "line 4: constraints.memory.max: inf is not a finite number"),
        ("{python: '/a/b.py:c'}", "constraints: {a b: {max: 1}}", "line 4: constraints.a b: 'a b'; allowed: 1 to 64 letters, digits and _, no digit first"),
    ],
)  # fmt: skip
def test_a_mistake_in_metrics_or_constraints_is_explained(objective, more, expected):
    assert message(objective, more) == expected


def test_bounds_and_metrics_can_be_set_from_the_command_line():
    spec = parsed("{dataset: digits}", "", "constraints.parameters.max=1e6", "objective.metrics=[val_loss, memory]")
    assert spec.constraints == {"parameters": BoundSpec(max=1e6)}
    assert [metric.name for metric in spec.metrics] == ["val_loss", "memory"]


def test_an_override_of_one_form_replaces_the_other():
    several = "{dataset: digits, metrics: [val_accuracy, parameters]}"
    spec = parsed("{dataset: digits, metric: val_loss, mode: min}", "", "objective.metrics=[val_accuracy, parameters]")
    assert spec == parsed(several)
    assert parsed(several, "", "objective.metric=val_loss") == parsed("{dataset: digits, metric: val_loss}")


@pytest.mark.parametrize(
    ("bound", "value", "excess"),
    [({"max": 3.0}, 5.0, 2.0), ({"max": 3.0}, 2.0, -1.0), ({"min": 3.0}, 1.0, 2.0), ({"min": 1.0, "max": 3.0}, 3.0, 0.0)],
)  # fmt: skip
def test_how_far_a_value_is_outside(bound, value, excess):
    assert BoundSpec(**bound).excess(value) == excess
