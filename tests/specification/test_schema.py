"""The JSON Schema takes what the reader takes, and refuses what a schema can see."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from jsonschema import Draft202012Validator

from dialin.errors import SpecError
from dialin.specification import load_spec, parse_spec, shipped, to_data
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.schema import json_schema
from dialin.specification.study_spec import StudySpec
from dialin.specification.yaml_reader import read_yaml
from tests.specification.test_parsing import HEAD, specs

SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def is_valid(text):
    return VALIDATOR.is_valid(read_yaml(text).data)


def test_it_is_a_schema_of_its_draft():
    Draft202012Validator.check_schema(SCHEMA)
    assert json.loads(json.dumps(SCHEMA, allow_nan=False)) == SCHEMA


@pytest.mark.parametrize("name", shipped.names())
def test_it_takes_every_shipped_space(name):
    VALIDATOR.validate(read_yaml(shipped.read(name)).data)
    VALIDATOR.validate(to_data(load_spec(name)))


@given(specs())
def test_it_takes_what_is_written_of_any_specification(spec):
    VALIDATOR.validate(to_data(spec))


@pytest.mark.parametrize(
    "text",
    [
        "early_stopping: off",
        "early_stopping: {asha: none}",
        "early_stopping: {asha: false, doctor: warn}",
        "budget: {trials: 1e2, epoch_minutes: off}",
        "claim: {says: x, better: {lr: 1}, than: {lr: [2]}}",
        "search: {enqueue: [{lr: 1, optimizer: sgd, nesterov: true}]}",
        "version: 1",
    ],
)
def test_it_takes_every_way_to_write_a_section(text):
    parse_spec(f"{HEAD}space: {{lr: [1, 2], optimizer: sgd, nesterov: true}}\n{text}")
    assert is_valid(f"{HEAD}space: {{lr: [1, 2], optimizer: sgd, nesterov: true}}\n{text}")


@pytest.mark.parametrize(
    "text",
    [
        "lr: 1e-3",
        "optimizer: [sgd, adam]",
        "batch_size: {min: 16, max: 64, step: 16}",
        "augmentation: flip+crop",
        "augmentation: [none, flip]",
        "nesterov: [true, false]",
        "{optimizer: [sgd, adam], dropout: {value: 0.1, when: {optimizer: sgd}}}",
        "lr: {range_test: }",
        "lr: {range_test: {method: third, per: [optimizer], min: 1e-5, max: 5, steps: 50, seeds: 3}}",
    ],
)
def test_it_takes_every_way_to_write_a_knob(text):
    parse_spec(f"{HEAD}space:\n  {text}\n")
    assert is_valid(f"{HEAD}space:\n  {text}\n")


@pytest.mark.parametrize(
    "space",
    [
        "lrr: 3",
        "lr: 0",
        "lr: {max: 1}",
        "lr: {min: 0, max: 1, log: true}",
        "lr: {low: 0.1, high: 1}",
        "lr: {min: 0.1, max: 1, step: 0}",
        "lr: true",
        "lr: fast",
        "batch_size: {min: 1.5, max: 30}",
        "optimizer: [sdg, adam]",
        "optimizer: {values: [sgd]}",
        "width: [8, 8]",
        "depth: []",
        "normalization: {min: 1, max: 2}",
        "activation: {value: relu, wen: {}}",
        "nesterov: 1",
        "lr: {range_test: {methd: knees}}",
        "lr: {range_test: {steps: 5}}",
        "dropout: {range_test: {}}",
        "momentum: 1.0",
        "augmentation: crop+flop",
        "{optimizer: sgd, lr: {value: 1, when: {}}}",
    ],
)
def test_spaces_that_it_refuses(space):
    text = f"{HEAD}space:\n  {space}\n"
    with pytest.raises(SpecError):
        parse_spec(text)
    assert not is_valid(text)


@pytest.mark.parametrize(
    "rest",
    [
        "budjet: 3",
        "budget: {trials: x}",
        "budget: {epochs: 0}",
        "budget: {trials: 1.5}",
        "budget: {epoch_minutes: -1}",
        "early_stopping: {hyperband: {}}",
        "early_stopping: {asha: {reduction_factor: 1}}",
        "early_stopping: {doctor: nurse}",
        "early_stopping: 0",
        "search: {sampler: tpf}",
        "search: fast",
        "resources: {gpus: -1}",
        "version: 2",
        "claim: {says: x}",
    ],
)
def test_sections_that_it_refuses(rest):
    text = f"{HEAD}space: {{lr: 1}}\n{rest}\n"
    with pytest.raises(SpecError):
        parse_spec(text)
    assert not is_valid(text)


@pytest.mark.parametrize(
    "objective", ["{dataset: mnits}", "{dataset: 'npz:'}", "{metric: val_loss}", "{dataset: 3}", "digits"]
)
def test_objectives_that_it_refuses(objective):
    assert not is_valid(f"name: x\nobjective: {objective}\nspace: {{lr: 1}}")


def test_a_function_of_your_own_has_knobs_of_any_name():
    head = "name: x\nobjective: {python: 'train.py:train', metric: loss}\n"
    assert is_valid(f"{head}space: {{anything-at_all: [1, x, true], other: {{min: 0, max: 1.0, step: 0.1}}}}")
    for wrong in ("{1x: 1}", "{lr: {range_test: {}}}", "{lr: {min: a, max: b}}"):
        assert not is_valid(f"{head}space: {wrong}")
    assert not is_valid(f"{HEAD}space: {{anything-at_all: 1}}")


def test_every_key_is_described_and_every_knob_is_there():
    assert set(SCHEMA["properties"]) == set(StudySpec.model_fields)
    assert list(SCHEMA["$defs"]["Space"]["properties"]) == list(CATALOGUE)
    described = [
        SCHEMA,
        *(SCHEMA["$defs"][name] for name in SCHEMA["$defs"] if name not in ("OwnSpace", "Condition", "Spread")),
    ]
    for schema in described:
        for key, found in schema["properties"].items():
            assert found["description"], key
    assert SCHEMA["$defs"]["BudgetSpec"]["properties"]["trials"]["default"] == 30
    assert SCHEMA["$defs"]["Space"]["properties"]["dropout"]["default"] == 0.0


def test_its_references_lead_where_the_caller_puts_the_definitions():
    text = json.dumps(json_schema("#/components/schemas"))
    assert "#/$defs/" not in text
    assert "#/components/schemas/BudgetSpec" in text
