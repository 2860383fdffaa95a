"""The probability that a configuration trains: without failures, after a few, after many, and after accidents."""

from __future__ import annotations

import numpy as np
import pytest

from dialin.lifecycle import TrialState
from dialin.search.models import feasibility
from dialin.search.models.feasibility import DIVERGED, FAILED, OK, Feasibility, outcome_of
from dialin.search.records import Observation

RADIUS = 0.7


def arcs(points):
    """(n, 2 d) Positions from 0 to 1 as arcs, as samplers give them."""
    return np.concatenate([RADIUS * np.cos(points / RADIUS), RADIUS * np.sin(points / RADIUS)], axis=1)


def drawn(count, knobs, seed=0):
    return np.random.default_rng(seed).random((count, knobs))


def brier(model, points, fails):
    return float(np.mean((model.probability(arcs(points)) - ~fails) ** 2))


def test_without_a_failure_the_model_has_no_effect():
    points = arcs(drawn(30, 8))
    assert Feasibility(points, [OK] * 30).probability(arcs(drawn(50, 8, 1))).tolist() == [1.0] * 50
    assert Feasibility(np.empty((0, 16)), []).probability(points).tolist() == [1.0] * 30


@pytest.mark.parametrize("knobs", [4, 8, 40])
def test_one_failure_is_a_dip_of_limited_width(knobs):
    points = drawn(20, knobs)
    model = Feasibility(arcs(points), [FAILED] + [OK] * 19)
    here, others = model.probability(arcs(points[:1]))[0], model.probability(arcs(drawn(500, knobs, 1)))
    assert 0.2 < here < 0.7
    assert np.median(others) > 0.8
    assert np.mean(others < 0.65) < 0.1


@pytest.mark.parametrize(
    "fails",
    [
        lambda points: points[:, 0] > 0.75,  # the learning rate
        lambda points: points[:, 1] + points[:, 2] > 1.35,  # width times batch size, on a log scale
        lambda points: (points[:, 3] > 0.5) & (points[:, 4] > 0.5),  # one knob, in one branch
    ],
    ids=["threshold", "product", "branch"],
)
def test_the_region_of_a_fault_is_found(fails):
    points, new = drawn(80, 8), drawn(500, 8, 1)
    model = Feasibility(arcs(points), np.where(fails(points), DIVERGED, OK))
    probability = model.probability(arcs(new))
    constant = np.mean((np.mean(~fails(points)) - ~fails(new)) ** 2)
    assert brier(model, new, fails(new)) < 0.45 * constant
    assert probability[fails(new)].mean() < 0.35
    assert probability[~fails(new)].mean() > 0.85


def test_two_faults_of_different_kinds_are_told_apart():
    points, new = drawn(120, 8), drawn(500, 8, 1)

    def diverges(at):
        return at[:, 0] > 0.8

    def fails(at):
        return at[:, 1] + at[:, 2] > 1.4

    outcomes = np.where(diverges(points), DIVERGED, np.where(fails(points), FAILED, OK))
    both = diverges(new) | fails(new)
    apart = brier(Feasibility(arcs(points), outcomes), new, both)
    as_one = brier(Feasibility(arcs(points), np.where(outcomes == OK, OK, FAILED)), new, both)
    assert apart < 0.9 * as_one


def test_an_accident_is_outweighed_by_trials_nearby_that_came_out_well():
    generator = np.random.default_rng(0)
    far, place = drawn(20, 8), drawn(1, 8, 1)
    near = np.clip(place + generator.normal(0, 0.03, (20, 8)), 0, 1)
    probabilities = [
        Feasibility(arcs(np.vstack([far, place, near[:count]])), [OK] * 20 + [FAILED] + [OK] * count).probability(
            arcs(place)
        )[0]
        for count in (0, 2, 5, 20)
    ]
    assert probabilities == sorted(probabilities)
    assert probabilities[0] < 0.7
    assert probabilities[-1] > 0.93


@pytest.mark.parametrize("count", [1, 6, 40, 200])
def test_when_all_have_failed_no_place_is_ruled_out(count):
    points = drawn(count, 8)
    probability = Feasibility(arcs(points), [FAILED] * count).probability(arcs(drawn(500, 8, 1)))
    assert (probability >= feasibility.LEAST).all()
    assert np.isfinite(probability).all()


def test_when_all_have_failed_the_best_places_lie_away_from_them():
    points = 0.3 * drawn(8, 4)
    new = drawn(500, 4, 1)
    probability = Feasibility(arcs(points), [DIVERGED] * 8).probability(arcs(new))
    distance = np.linalg.norm(new[:, None] - points[None], axis=2).min(axis=1)
    assert distance[np.argsort(-probability)[:50]].mean() > 1.2 * distance.mean()


def test_many_trials_count_by_their_number():
    points, new = drawn(2000, 4), drawn(300, 4, 1)
    outcomes = np.where(points[:, 0] > 0.9, FAILED, OK)
    model = Feasibility(arcs(points), outcomes)
    assert brier(model, new, new[:, 0] > 0.9) < 0.02
    assert len(model._x) == feasibility.MOST_FAILURES + feasibility.MOST_OTHERS


def test_the_same_trials_give_the_same_probabilities():
    points, new = arcs(drawn(60, 8)), arcs(drawn(100, 8, 1))
    outcomes = np.where(drawn(60, 8)[:, 0] > 0.7, FAILED, OK)
    one, two = (Feasibility(points, outcomes).probability(new) for _ in range(2))
    assert one.tolist() == two.tolist()


def test_constant_features_and_repeated_trials_are_no_trouble():
    points = np.repeat(drawn(1, 3), 12, axis=0)
    probability = Feasibility(points, [OK, FAILED] * 6).probability(points[:1])[0]
    assert 0.3 < probability < 0.8


def test_features_of_another_shape_or_not_finite_are_refused():
    with pytest.raises(ValueError, match="shape .2, 3. for 1 outcomes"):
        Feasibility(np.zeros((2, 3)), [OK])
    with pytest.raises(ValueError, match="not finite"):
        Feasibility(np.array([[0.0, np.nan]]), [FAILED])


@pytest.mark.parametrize(
    ("state", "values", "outcome"),
    [
        (TrialState.FAILED, {}, FAILED),
        (TrialState.FAILED, {1: 0.5}, FAILED),
        (TrialState.DIVERGED, {1: float("nan")}, DIVERGED),
        (TrialState.RUNNING, {1: 0.5}, None),
        (TrialState.WAITING, {}, None),
        (TrialState.WAITING, {1: 0.5}, OK),
        (TrialState.STOPPED, {}, None),
        (TrialState.STOPPED, {1: 0.5}, OK),
        (TrialState.COMPLETE, {1: 0.5}, OK),
    ],
)
def test_the_outcome_follows_from_the_state_and_the_values(state, values, outcome):
    assert outcome_of(Observation({}, values, state)) == outcome
