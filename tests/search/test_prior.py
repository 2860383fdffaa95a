"""Draws from a prior and its density, against its definition; and when results contradict it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import truncnorm

from dialin.planning.prior import KnobPrior, Prior, prior_of
from dialin.search.models.encoding import Encoding
from dialin.search.prior import CHOICE_WEIGHT, SPREAD, SearchPrior, contradicts
from dialin.specification import active_params
from tests.factories import make_spec

SPACE = """
  optimizer: [sgd, adam, rmsprop]
  lr: {min: 1e-4, max: 1, log: true}
  momentum: {min: 0.5, max: 0.99, when: {optimizer: [sgd, rmsprop]}}
  batch_size: {min: 16, max: 256, log: true}
  dropout: {min: 0, max: 0.5}
"""
SPEC = make_spec(space=SPACE)
ENCODING = Encoding(SPEC)
COUNT = 4000


def search_prior(**knobs):
    return SearchPrior(SPEC, ENCODING, Prior({name: KnobPrior(**known) for name, known in knobs.items()}))


def drawn(prior):
    return [ENCODING.decode(point) for point in prior.draw(COUNT, np.random.default_rng(0))]


def density(prior, params):
    point = ENCODING.encode(active_params(SPEC, params))
    return float(prior.log_ratio(ENCODING.columns(point[None]), 1)[0])


def test_without_knobs_it_is_uniform():
    prior = SearchPrior(SPEC, ENCODING, Prior())
    assert prior.is_empty
    points = prior.draw(COUNT, np.random.default_rng(0))
    assert points.mean(axis=0) == pytest.approx(np.full(5, 0.5), abs=0.03)
    assert (prior.log_ratio(ENCODING.columns(points), COUNT) == 0).all()


def test_a_range_is_normal_about_its_centre_on_its_scale():
    prior = search_prior(lr={"cases": (({}, 0.1),), "source": "", "spread": 2.0})
    decades = np.array([math.log10(one["lr"]) for one in drawn(prior)])
    assert decades.mean() == pytest.approx(-1, abs=0.02)
    assert decades.std() == pytest.approx(math.log10(2), rel=0.05)


def test_without_a_spread_it_is_a_quarter_of_the_range_cut_off_at_its_ends():
    prior = search_prior(dropout={"cases": (({}, 0.1),), "source": ""})
    values = np.array([one["dropout"] for one in drawn(prior)]) / 0.5
    expected = truncnorm(-0.2 / SPREAD, 0.8 / SPREAD, 0.2, SPREAD)
    assert values.mean() == pytest.approx(expected.mean(), abs=0.01)
    assert values.std() == pytest.approx(expected.std(), abs=0.01)


def test_a_choice_keeps_its_centre_with_its_weight():
    prior = search_prior(optimizer={"cases": (({}, "adam"),), "source": ""})
    share = np.mean([one["optimizer"] == "adam" for one in drawn(prior)])
    assert share == pytest.approx(CHOICE_WEIGHT + (1 - CHOICE_WEIGHT) / 3, abs=0.02)


def test_a_centre_depends_on_what_was_drawn_before():
    cases = (({"optimizer": ("sgd",)}, 0.1), ({"optimizer": ("adam",)}, 0.001))
    prior = search_prior(lr={"cases": cases, "source": "", "spread": 1.5})
    chosen = drawn(prior)
    for optimizer, decade, spread in (("sgd", -1, 0.02), ("adam", -3, 0.02), ("rmsprop", -2, 0.1)):
        found = [math.log10(one["lr"]) for one in chosen if one["optimizer"] == optimizer]
        assert np.mean(found) == pytest.approx(decade, abs=spread)  # rmsprop: no case, so uniform over four decades


def test_the_catalogues_centre_of_the_learning_rate_follows_the_batch_size():
    prior = SearchPrior(SPEC, ENCODING, prior_of(SPEC))
    sgd = [one for one in drawn(prior) if one["optimizer"] == "sgd"]
    batch = np.log([one["batch_size"] for one in sgd])
    slope = np.polyfit(batch, np.log([one["lr"] for one in sgd]), 1)[0]
    assert 0.5 < slope < 1.1  # in proportion, less where the end of the range cuts it off


def test_the_density_is_that_of_the_draws():
    """The mean of exp(-log ratio) over draws is the volume that they cover, 1 where the density is right everywhere."""
    prior = SearchPrior(SPEC, ENCODING, prior_of(SPEC))
    points = np.random.default_rng(1).random((40_000, 5))
    assert np.exp(prior.log_ratio(ENCODING.columns(points), len(points))).mean() == pytest.approx(1.0, abs=0.05)


def test_a_knob_that_does_not_exist_adds_nothing():
    prior = search_prior(momentum={"cases": (({}, 0.9),), "source": ""})
    adam = {"optimizer": "adam", "lr": 0.01, "batch_size": 32, "dropout": 0.1}
    assert density(prior, adam) == 0.0
    assert density(prior, {**adam, "optimizer": "sgd", "momentum": 0.9}) > 0.3
    assert density(prior, {**adam, "optimizer": "sgd", "momentum": 0.5}) < -0.3


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], False),
        ([6, 5, 4, 3, 2, 1], True),
        ([6, 5, 4, 3, -math.inf, -math.inf], True),
        ([5, 5, 5, 5, 5, 5], False),
        ([5, 4, 3, 2, 1], False),  # too few
    ],
)
def test_results_contradict_a_prior_where_its_favourites_are_worse(values, expected):
    assert contradicts([-1.0, 0.0, 0.5, 1.0, 2.0, 3.0][: len(values)], values) is expected
