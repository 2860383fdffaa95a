"""The features of configurations: their distances are those that the model means."""

from __future__ import annotations

import numpy as np
import pytest

from dialin.search.models.embedding import ARC_RADIUS, Embedding
from dialin.search.models.encoding import Encoding
from dialin.specification import active_params
from tests.factories import make_spec
from tests.search.models.test_encoding import SPACE


@pytest.fixture
def spec():
    return make_spec(space=SPACE)


@pytest.fixture
def encoding(spec):
    return Encoding(spec)


@pytest.fixture
def embedding(spec, encoding):
    return Embedding(spec, encoding)


def test_many_at_once_are_as_one_by_one(spec, encoding, embedding):
    points = np.random.default_rng(0).random((500, 8))
    single = [embedding.features(active_params(spec, encoding.decode(point))) for point in points]
    together = embedding.features_of(encoding.columns(points), len(points))
    np.testing.assert_allclose(together, np.stack(single), atol=1e-12)


def test_each_feature_belongs_to_its_knob(encoding, embedding):
    # A choice has a feature for each value, a conditional range two.
    widths = {"optimizer": 3, "momentum": 2, "nesterov": 2, "weight_decay": 2}
    expected = [index for index, name in enumerate(encoding.names) for _ in range(widths.get(name, 1))]
    assert embedding.groups.tolist() == expected
    assert embedding.count == len(expected)


def squared(spec, embedding, one, other):
    base = {"lr": 0.01, "batch_size": 32, "depth": 3, "dropout": 0.1}
    features = [embedding.features(active_params(spec, {**base, **each})) for each in (one, other)]
    return float(((features[0] - features[1]) ** 2).sum())


def test_two_values_of_a_choice_are_1_apart(spec, embedding):
    one = {"optimizer": "sgd", "momentum": 0.9, "nesterov": False}
    assert squared(spec, embedding, one, one) == 0.0
    assert squared(spec, embedding, one, {**one, "nesterov": True, "weight_decay": 0.0}) == pytest.approx(
        1.0 + ARC_RADIUS**2
    )


def test_a_knob_that_both_lack_does_not_set_them_apart(spec, embedding):
    assert squared(spec, embedding, {"optimizer": "adam"}, {"optimizer": "adam"}) == 0.0


def test_having_a_conditional_range_is_one_distance_whatever_its_value(spec, embedding):
    distances = {
        round(squared(spec, embedding, {"optimizer": "rmsprop", "momentum": momentum}, {"optimizer": "adam"}), 9)
        for momentum in (0.5, 0.7, 0.99)
    }
    assert distances == {round(1.0 + ARC_RADIUS**2, 9)}


def test_the_typical_square_is_that_of_random_configurations(encoding, embedding):
    points = np.random.default_rng(9).random((4000, 8))
    features = embedding.features_of(encoding.columns(points), len(points))
    mean = ((features[:2000] - features[2000:]) ** 2).sum(axis=1).mean()
    assert embedding.typical_square() == pytest.approx(mean, rel=0.1)
