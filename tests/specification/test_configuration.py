from __future__ import annotations

import pytest

from dialin.specification import active_params, sampler_of, searched
from dialin.specification.catalogue import CATALOGUE
from tests.factories import make_spec

CHAIN = """
  momentum: {min: 0.5, max: 0.9, when: {nesterov: true}}
  nesterov: {choices: [true, false], when: {optimizer: sgd}}
  optimizer: [sgd, adam]
  width: 8
"""


def test_searched_knobs_come_after_those_their_condition_names():
    assert searched(make_spec(space=CHAIN)) == ["optimizer", "nesterov", "momentum"]


def test_a_condition_on_an_inactive_knob_does_not_hold():
    spec = make_spec(space=CHAIN)
    chosen = {"optimizer": "adam", "nesterov": True, "momentum": 0.7}
    params = active_params(spec, chosen)
    assert "nesterov" not in params
    assert "momentum" not in params


def test_defaults_fill_in_what_applies():
    params = active_params(make_spec(space="\n  optimizer: adam\n  model: resnet18\n"), {})
    assert params["lr"] == 1e-3
    assert params["width"] == 64
    assert not {"momentum", "nesterov", "depth"} & set(params)
    assert list(params) == [name for name in CATALOGUE if name in params]


def test_without_an_optimizer_sgds_knobs_apply():
    params = active_params(make_spec(space="\n  lr: 0.2\n"), {})
    assert (params["optimizer"], params["momentum"], params["nesterov"]) == ("sgd", 0.9, False)


@pytest.mark.parametrize(("sampler", "expected"), [("auto", "gp"), ("gp", "gp"), ("tpe", "tpe"), ("random", "random")])
def test_auto_is_the_model_of_learning_curves(sampler, expected):
    assert sampler_of(make_spec(f"search.sampler={sampler}")) == expected
