"""Configurations and points agree with each other and with the space, whatever the space."""

from __future__ import annotations

import numpy as np
import pytest

from dialin.search.models.encoding import Encoding
from dialin.specification import active_params
from dialin.specification.domains import allows
from tests.factories import make_spec

SPACE = """
  optimizer: [sgd, adam, rmsprop]
  lr: {min: 1e-4, max: 1, log: true}
  momentum: {min: 0.5, max: 0.99, when: {optimizer: [sgd, rmsprop]}}
  nesterov: {choices: [true, false], when: {optimizer: sgd}}
  batch_size: {min: 16, max: 128, log: true}
  depth: {min: 2, max: 6}
  dropout: {min: 0, max: 0.5, step: 0.1}
  weight_decay: {min: 0, max: 0.01, when: {nesterov: true}}
"""
SMALL = (
    "\n  optimizer: [sgd, adam]\n  depth: {min: 2, max: 4}\n  momentum: {choices: [0.5, 0.9], when: {optimizer: sgd}}\n"
)


@pytest.fixture
def encoding():
    return Encoding(make_spec(space=SPACE))


@pytest.fixture
def points():
    return np.random.default_rng(0).random((500, 8))


def test_a_point_decodes_to_values_of_the_space_under_its_conditions(encoding, points):
    spec = make_spec(space=SPACE)
    for point in points:
        chosen = encoding.decode(point)
        assert ("momentum" in chosen) is (chosen["optimizer"] != "adam")
        assert ("nesterov" in chosen) is (chosen["optimizer"] == "sgd")
        assert ("weight_decay" in chosen) is (chosen.get("nesterov") is True)
        assert all(allows(spec.space[name], value) for name, value in chosen.items() if name != "dropout")
        assert round(chosen["dropout"] * 10) / 10 == pytest.approx(chosen["dropout"])


def test_encoding_again_gives_the_same_configuration(encoding, points):
    spec = make_spec(space=SPACE)
    for point in points[:100]:
        params = active_params(spec, encoding.decode(point))
        assert encoding.key_of(encoding.decode(encoding.encode(params))) == encoding.key(params)


def test_every_value_of_a_range_of_whole_numbers_is_as_likely_as_another(encoding):
    def depth_at(share):
        return encoding.decode([share if name == "depth" else 0.5 for name in encoding.names])["depth"]

    depths = [depth_at(share) for share in np.linspace(0.001, 0.999, 1000)]
    assert all(abs(depths.count(depth) - 200) <= 2 for depth in range(2, 7))


def test_the_same_up_to_a_tolerance_is_the_same(encoding):
    params = {"optimizer": "adam", "lr": 0.01, "batch_size": 32, "depth": 3, "dropout": 0.1}
    assert encoding.key({**params, "lr": 0.01 * (1 + 1e-9)}) == encoding.key(params)
    assert encoding.key({**params, "lr": 0.01 * (1 + 1e-3)}) != encoding.key(params)
    assert encoding.key({**params, "optimizer": "sgd", "momentum": 0.9}) != encoding.key(params)


def test_a_finite_space_is_counted_and_listed():
    encoding = Encoding(make_spec(space=SMALL))
    every = list(encoding.all())
    assert encoding.size(100) == len(every) == 3 * 2 + 3
    assert len({encoding.key_of(chosen) for chosen in every}) == 9
    assert encoding.size(8) is None
    assert Encoding(make_spec(space=SPACE)).size(10**6) is None


@pytest.mark.parametrize(
    ("params", "inside"),
    [
        ({"optimizer": "adam", "depth": 3, "momentum": 0.0}, True),  # momentum plays no part there
        ({"optimizer": "sgd", "depth": 3, "momentum": 0.9}, True),
        ({"optimizer": "sgd", "depth": 3, "momentum": 0.7}, False),
        ({"optimizer": "sgd", "depth": 3}, False),
        ({"optimizer": "adam", "depth": 7}, False),
        ({"optimizer": "adamw", "depth": 3}, False),
    ],
)
def test_contains(params, inside):
    assert Encoding(make_spec(space=SMALL)).contains(params) is inside
