"""Specifications with a training function of one's own: any knobs, and what else may be said."""

from __future__ import annotations

import pytest

from service.errors import SpecError
from service.spec import active_params, lint, load_spec, parse_spec, to_yaml
from service.spec.domains import Choice, Fixed, FloatRange, IntRange

OWN = """
name: own
objective: {python: "train.py:train"}
space:
  rate: {min: 1e-3, max: 1, log: true}
  layers: {min: 1, max: 4}
  lr: [fast, slow]
  extra: {min: 0.0, max: 1.0, when: {lr: slow}}
  fixed: true
"""


def test_knobs_are_what_they_are_written_as():
    spec = parse_spec(OWN)
    assert spec.space == {
        "rate": FloatRange(1e-3, 1.0, log=True),
        "layers": IntRange(1, 4),
        "lr": Choice(("fast", "slow")),
        "extra": FloatRange(0.0, 1.0, when={"lr": ("slow",)}),
        "fixed": Fixed(True),
    }
    assert (spec.objective.metric, spec.objective.mode) == ("value", "max")
    assert lint(spec) == []


def test_a_configuration_has_them_and_nothing_of_the_catalogue():
    spec = parse_spec(OWN)
    assert active_params(spec, {"rate": 0.1, "layers": 2, "lr": "fast"}) == {
        "rate": 0.1,
        "layers": 2,
        "lr": "fast",
        "fixed": True,
    }


def test_it_reads_back_as_itself():
    spec = parse_spec(OWN, overrides=["objective.metric=val_loss", "rate=[0.1, 0.2]"])
    assert spec.objective.mode == "min"
    assert parse_spec(to_yaml(spec)) == spec
    assert "validation_fraction" not in to_yaml(spec)


def test_the_file_is_looked_for_beside_the_specification(tmp_path):
    (tmp_path / "own.yaml").write_text(OWN)
    assert load_spec(tmp_path / "own.yaml").objective.python == f"{tmp_path / 'train.py'}:train"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("train.py:train", "train.py"), "line 3: objective.python: 'train.py' is not FILE:FUNCTION"),
        (("train.py:train", "train.py:"), "line 3: objective.python: 'train.py:' is not FILE:FUNCTION"),
        (('"}', '", dataset: digits}'), "line 3: objective.dataset: a training function of one's own has none"),
        (('"}', '", samples: 100}'), "line 3: objective.samples: a training function of one's own has none"),
        (('"}', '", metric: "a b"}'), "line 3: objective.metric: 'a b' is no name"),
        (("rate:", "a-b:"), "line 5: space.a-b: unknown knob 'a-b'; a name is a letter"),
        (("{min: 1, max: 4}", "{range_test: {}}"), "line 6: space.layers.range_test: a training function of one's own"),
        (("{min: 1, max: 4}", "{min: 4, max: 1}"), "line 6: space.layers: min 4 is not below max 1"),
        (("[fast, slow]", "[fast, fast]"), "line 7: space.lr: the value 'fast' stands twice"),
        (("when: {lr: slow}", "when: {speed: slow}"), "line 8: space.extra.when.speed: the condition names 'speed'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(change, message):
    with pytest.raises(SpecError) as raised:
        parse_spec(OWN.replace(*change))
    assert str(raised.value).startswith(message)


def test_without_either_the_data_set_is_what_is_missing():
    with pytest.raises(SpecError, match="'dataset' is missing"):
        parse_spec(OWN.replace('{python: "train.py:train"}', "{metric: val_accuracy}").replace("rate", "lr2"))
