"""A specification of an older version is brought to this one; of a newer, refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dialin.errors import SpecError, UnreadableError
from dialin.specification import damage_of, parse_spec, spec_of_study, stored_spec, to_data, to_yaml, versions
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.study_spec import VERSION
from dialin.specification.versions import STEPS, upgrade
from tests.factories import make_spec

SPEC = "name: x\nobjective: {dataset: digits}\nspace: {lr: 1}\n"


def test_what_is_written_names_its_version():
    assert to_yaml(make_spec()).startswith(f"version: {VERSION}\n")
    assert parse_spec(f"{SPEC}version: {VERSION}") == parse_spec(SPEC)


def test_a_step_leads_to_each_version():
    assert sorted(STEPS) == list(range(VERSION))


def test_steps_are_taken_one_after_the_other(monkeypatch):
    monkeypatch.setattr(versions, "VERSION", 3)
    monkeypatch.setattr(
        versions,
        "STEPS",
        {number: lambda data, at=number: {**data, "taken": [*data["taken"], at]} for number in range(3)},
    )
    assert upgrade({"taken": []}, missing=0) == {"taken": [0, 1, 2], "version": 3}
    assert upgrade({"taken": [], "version": 2}) == {"taken": [2], "version": 3}
    assert upgrade({"taken": []}, missing=3) == {"taken": [], "version": 3}


def test_what_was_stored_before_versions_had_numbers_is_read():
    """As commit 9fc48be wrote it: every default, and no version."""
    text = """name: small
objective: {dataset: digits, metric: val_accuracy, mode: max, validation_fraction: 0.2, split_seed: 0, epoch_seconds: 0.0,
  compile: false, precision: auto}
space:
  lr: {min: 0.001, max: 1.0, log: true}
  momentum:
    min: 0.5
    max: 0.9
    when:
      optimizer: [sgd]
  optimizer: [sgd, adam]
search: {sampler: auto, seed: 0, enqueue: [], warm_start: []}
early_stopping: {asha: 'off', doctor: stop}
budget: {trials: 30, epochs: 9, failures: 10}
resources: {cpus: 1.0}
"""
    spec = stored_spec(text)
    assert (spec.version, spec.early_stopping.asha, spec.budget.trials) == (VERSION, None, 30)
    assert stored_spec(to_yaml(spec)) == spec


def test_a_newer_version_is_refused_with_what_can_read_it():
    text = f"version: {VERSION + 1}\nspace: 3\nfrom_the_future: {{}}\n"
    message = (
        f"version: version {VERSION + 1} was written by a newer dialin; this one reads versions up to {VERSION}: use the "
        "dialin that wrote it, or a newer one"
    )
    with pytest.raises(SpecError) as caught:
        parse_spec(text)
    assert str(caught.value) == f"line 1: {message}"  # and nothing of the keys that it does not know
    with pytest.raises(UnreadableError, match="study a-123 cannot be read as it is stored: the specification: line 1"):
        spec_of_study("a-123", text)
    assert message in damage_of(text)


@pytest.mark.parametrize("version", ["x", "1.5", "true", "-1", "[1]", "null"])
def test_what_is_no_version_is_refused(version):
    with pytest.raises(SpecError, match=r"line 4: version: .* is not a version; this dialin reads versions up to 1"):
        parse_spec(f"{SPEC}version: {version}")


def test_defaults_are_left_out():
    assert to_data(parse_spec(SPEC)) == {
        "version": VERSION,
        "name": "x",
        "objective": {"dataset": "digits", "mode": "max"},
        "space": {"lr": 1.0},
    }


def test_the_defaults_belong_to_the_version():
    """A stored specification leaves them out. One that changes needs a new version, and a step that writes the old one
    into what was stored; then there is a new file of defaults."""
    spec = parse_spec(SPEC)
    sections = ("objective", "search", "early_stopping", "budget", "resources")
    knobs = {name: [[dict(when), value] for when, value in knob.defaults] for name, knob in CATALOGUE.items()}
    found = {**{name: getattr(spec, name).model_dump() for name in sections}, "knobs": knobs}
    expected = json.loads((Path(__file__).parent / f"defaults_of_version_{VERSION}.json").read_text())
    assert json.loads(json.dumps(found)) == expected
