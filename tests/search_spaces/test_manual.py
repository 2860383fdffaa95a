"""The manual of the language: its examples are read, and it speaks of every key."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dialin.specification import parse_spec
from dialin.specification.domain_forms import FORMS, RangeTestOptions
from dialin.specification.schema import json_schema
from dialin.specification.study_spec import (
    AshaSpec,
    BudgetSpec,
    ClaimSpec,
    EarlyStoppingSpec,
    ObjectiveSpec,
    PythonSpec,
    ResourcesSpec,
    SearchSpec,
    StudySpec,
)
from dialin.specification.yaml_reader import read_yaml

MANUAL = (Path(__file__).parents[2] / "search_spaces" / "README.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", MANUAL, re.DOTALL)
HEAD = "name: x\nobjective: {dataset: digits}\nspace: {schedule: [fixed, cosine, one_cycle]}\n"
MODELS = (
    StudySpec,
    ObjectiveSpec,
    PythonSpec,
    SearchSpec,
    EarlyStoppingSpec,
    AshaSpec,
    BudgetSpec,
    ResourcesSpec,
    ClaimSpec,
    RangeTestOptions,
    *FORMS.values(),
)


def test_it_has_examples():
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize("text", EXAMPLES)
def test_its_examples_are_read_and_fit_the_schema(text):
    whole = text if "name:" in text else HEAD + text
    parse_spec(whole.replace("train.py:train", "/mine/train.py:train"))
    Draft202012Validator(json_schema()).validate(read_yaml(whole).data)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_it_speaks_of_every_key(model):
    missing = [key for key in model.model_fields if not re.search(rf"`{key}\b|\b{key}:", MANUAL)]
    assert missing == []
