"""Domination, fronts, crowding and hypervolume against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dialin.search.pareto import crowding_of, fronts_of, hypervolume, order_of


def dominates(one, two):
    return bool((one >= two).all() and (one > two).any())


def fronts_by_definition(values):
    fronts, left, number = np.full(len(values), -1), set(range(len(values))), 0
    while left:
        best = {one for one in left if not any(dominates(values[two], values[one]) for two in left)}
        fronts[list(best)] = number
        left -= best
        number += 1
    return fronts


# Few different numbers, so that there are ties and equal points.
points = st.integers(1, 4).flatmap(
    lambda metrics: st.integers(0, 25).flatmap(
        lambda count: arrays(np.float64, (count, metrics), elements=st.integers(0, 4).map(float))
    )
)


@given(points)
def test_fronts_are_those_of_the_definition(values):
    assert fronts_of(values).tolist() == fronts_by_definition(values).tolist()


def test_fronts_of_many_points_are_those_of_the_definition():
    values = np.random.default_rng(0).normal(size=(300, 3))
    assert fronts_of(values).tolist() == fronts_by_definition(values).tolist()


@pytest.mark.parametrize("metrics", [2, 3, 4])
def test_five_thousand_trials_are_sorted(metrics):
    values = np.random.default_rng(1).normal(size=(5000, metrics))
    order, fronts = order_of(values, np.zeros(5000))
    assert sorted(order) == list(range(5000))
    assert (np.diff(fronts[order]) >= 0).all()


def test_the_crowding_distance_is_that_of_the_article():
    values = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0]])
    assert crowding_of(values).tolist() == [math.inf, 0.4 + 0.5, 0.9 + 0.6, math.inf]


def test_of_equal_points_only_the_first_counts():
    values = np.array([[0.0, 2.0], [1.0, 1.0], [1.0, 1.0], [2.0, 0.0]])
    assert crowding_of(values).tolist() == [math.inf, 2.0, 0.0, math.inf]


def test_trials_that_violate_a_constraint_come_last_by_how_much():
    values = np.array([[9.0, 9.0], [1.0, 1.0], [8.0, 8.0], [2.0, 2.0]])
    order, fronts = order_of(values, np.array([0.5, 0.0, 0.1, 0.0]))
    assert order.tolist() == [3, 1, 2, 0]
    assert fronts.tolist() == [3, 1, 2, 0]


def test_in_a_front_the_point_with_more_room_comes_first():
    values = np.array([[0.0, 10.0], [1.0, 6.0], [4.0, 5.0], [10.0, 0.0], [0.0, 0.0]])
    order, _ = order_of(values, np.zeros(5))
    assert order.tolist() == [0, 3, 2, 1, 4]


def test_the_first_points_are_the_same_where_only_so_many_are_needed():
    values, violations = np.random.default_rng(3).normal(size=(60, 2)), np.repeat([0.0, 1.0], 30)
    order, fronts = order_of(values, violations)
    for enough in (1, 8, 29, 45):
        some, same = order_of(values, violations, enough)
        assert some[:enough].tolist() == order[:enough].tolist()
        assert sorted(some) == list(range(60))
        assert same.tolist() == fronts.tolist()


def test_with_one_metric_the_order_is_that_of_the_values():
    values = np.random.default_rng(2).permutation(20)[:, None].astype(float)
    order, _ = order_of(values, np.zeros(20))
    assert order.tolist() == np.argsort(-values[:, 0]).tolist()


def test_the_hypervolume_of_known_fronts():
    assert hypervolume(np.array([[2.0], [3.0]]), np.zeros(1)) == 3
    assert hypervolume(np.array([[1.0, 3.0], [2.0, 2.0], [3.0, 1.0], [1.0, 1.0]]), np.zeros(2)) == 6
    assert hypervolume(np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]), np.zeros(3)) == 2
    assert hypervolume(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]), np.zeros(3)) == 10
    assert hypervolume(np.array([[-1.0, 5.0], [0.0, 5.0]]), np.zeros(2)) == 0
    assert hypervolume(np.zeros((0, 2)), np.zeros(2)) == 0
    with pytest.raises(ValueError, match="4 metrics; at most 3"):
        hypervolume(np.ones((1, 4)), np.zeros(4))


@pytest.mark.parametrize("metrics", [2, 3])
def test_the_hypervolume_is_what_a_random_point_finds(metrics):
    generator = np.random.default_rng(3)
    values, reference = generator.random((12, metrics)), np.full(metrics, -0.2)
    sample = generator.uniform(-0.2, 1.0, (200_000, metrics))
    inside = (sample[:, None] <= values[None]).all(2).any(1).mean() * 1.2**metrics
    assert hypervolume(values, reference) == pytest.approx(inside, rel=0.01)
