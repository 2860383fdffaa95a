"""Acquisition functions for several metrics against simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dialin.search.pareto import hypervolume
from dialin.search.samplers.multi_acquisition import (
    expected_hypervolume_improvement,
    log_probability_within,
    non_dominated,
    reference_of,
    scaled_improvement,
)


def test_the_expected_hypervolume_improvement_is_what_draws_find():
    generator = np.random.default_rng(0)
    front, reference = np.array([[0.1, 0.9], [0.5, 0.6], [0.8, 0.2]]), np.array([-0.1, 0.0])
    before = hypervolume(front, reference)
    for mean, deviation in [((0.6, 0.7), (0.3, 0.2)), ((0.2, 0.1), (0.1, 0.4)), ((1.5, -0.5), (0.2, 0.3))]:
        draws = np.array(mean) + np.array(deviation) * generator.normal(size=(20_000, 2))
        found = np.mean([hypervolume(np.vstack([front, draw]), reference) - before for draw in draws])
        ours = expected_hypervolume_improvement(np.array([mean]), np.array([deviation]), front, reference)
        assert ours[0] == pytest.approx(found, rel=0.05, abs=2e-3)


def test_without_a_front_beyond_the_reference_it_is_the_expected_box():
    ours = expected_hypervolume_improvement(
        np.array([[2.0, 3.0]]), np.full((1, 2), 1e-6), np.array([[-1.0, 5.0]]), np.zeros(2)
    )
    assert ours[0] == pytest.approx(6.0)


def test_a_certain_point_that_is_dominated_adds_nothing():
    front = np.array([[1.0, 1.0]])
    means, deviations = np.array([[0.5, 0.5], [1.5, 0.5]]), np.full((2, 2), 1e-6)
    improvement = expected_hypervolume_improvement(means, deviations, front, np.zeros(2))
    assert improvement == pytest.approx([0.0, 0.25], abs=1e-6)


def test_the_scaling_prefers_what_its_weights_want():
    front = np.array([[0.0, 1.0, 0.5], [1.0, 0.0, 0.5]])
    means, deviations = np.array([[1.5, 0.9, 0.6], [0.9, 1.5, 0.6]]), np.full((2, 3), 0.05)
    for weights, better in (((0.9, 0.05, 0.05), 0), ((0.05, 0.9, 0.05), 1)):
        found = scaled_improvement(means, deviations, front, np.array(weights), np.random.default_rng(0))
        assert int(found.argmax()) == better


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(-math.inf, 0.0, 0.5), (0.0, math.inf, 0.5), (-1.0, 1.0, 0.6827), (-9.0, -8.0, 0.0)]
)
def test_the_probability_within_bounds(low, high, expected):
    found = log_probability_within(np.zeros(1), np.ones(1), low, high)
    assert math.exp(found[0]) == pytest.approx(expected, abs=1e-4)
    assert np.isfinite(found).all()


def test_the_reference_lies_beyond_the_worst_of_the_front():
    values = np.array([[1.0, 3.0], [3.0, 1.0], [1.0, 1.0], [3.0, 1.0]])
    assert non_dominated(values).tolist() == [[1.0, 3.0], [3.0, 1.0]]
    assert reference_of(non_dominated(values), list(values)) == pytest.approx([0.8, 0.8])
    alone = reference_of(np.array([[3.0, 3.0]]), [np.array([1.0, 1.0]), np.array([3.0, 3.0])])
    assert (alone < 3.0).all()
