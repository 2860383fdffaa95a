"""What counts of a trial with several metrics, and the order of the trials."""

from __future__ import annotations

import math

import pytest

from dialin.lifecycle import TrialState
from dialin.search.front import best_of, front_of, placed
from dialin.search.goals import Goals, violation_of
from dialin.search.records import TrialRecord
from dialin.specification import parse_spec
from dialin.specification.metrics import BoundSpec

TWO = "{python: '/a/b.py:c', metrics: [score, {name: cost, mode: min}]}"


def goals_of(objective=TWO, constraints="{}"):
    return Goals.of(parse_spec(f"name: x\nobjective: {objective}\nspace: {{a: [1, 2]}}\nconstraints: {constraints}\n"))


def trial(number, scores, costs=None, state=TrialState.COMPLETE, loss=None, **others):
    curves = {"cost": costs if isinstance(costs, list) else [costs or 0.0] * len(scores), **others}
    return TrialRecord(
        number,
        state,
        {},
        0,
        dict(enumerate(scores, 1)),
        metrics={} if loss is None else {"val_loss": loss},
        others={name: dict(enumerate(values, 1)) for name, values in curves.items()},
    )


def numbers(found):
    return [one.record.number for one in found]


def test_a_trial_counts_with_one_epoch_that_is_best_by_the_first_metric():
    point = goals_of().point_of(trial(0, [0.5, 0.9, 0.9, 0.7], [1.0, 4.0, 3.0, 2.0]))
    assert (point.epoch, point.values) == (2, (0.9, 4.0))


def test_an_epoch_counts_only_with_all_its_values_finite():
    point = goals_of().point_of(trial(0, [0.5, 0.9, 0.8], [1.0, math.nan, 3.0]))
    assert (point.epoch, point.values) == (3, (0.8, 3.0))
    assert goals_of().point_of(trial(0, [0.5], [math.inf])) is None
    assert goals_of().point_of(TrialRecord(0, TrialState.COMPLETE, {}, 0, {1: 0.5})) is None


def test_violations_are_fractions_of_their_bounds_and_add_up():
    goals = goals_of(constraints="{size: {max: 100}, cost: {min: 2}}")
    point = goals.point_of(trial(0, [0.5], [1.0], size=[150.0]))
    assert point.violation == pytest.approx(0.5 + 0.5)
    assert goals.violated(point) == ("size", "cost")
    assert goals.further == ("cost", "size")
    assert violation_of(BoundSpec(max=0.0), 0.25) == 0.25


def test_the_front_has_the_trials_that_none_dominates():
    records = [trial(0, [0.9], 5.0), trial(1, [0.8], 2.0), trial(2, [0.7], 3.0), trial(3, [0.95], 9.0)]
    assert numbers(front_of(records, goals_of())) == [3, 0, 1]
    assert {one.record.number: one.front for one in placed(records, goals_of())} == {3: 1, 0: 1, 1: 1, 2: 2}
    assert numbers(placed(records, goals_of()))[-1] == 2
    assert best_of(records, goals_of()).number == 3


def test_of_equal_points_the_lower_loss_then_the_earlier_epoch_then_the_lower_number_is_on_the_front():
    equal = [trial(0, [0.9], 1.0, loss=0.5), trial(1, [0.9], 1.0, loss=0.4)]
    assert numbers(front_of(equal, goals_of())) == [1]
    assert numbers(front_of([trial(0, [0.1, 0.9], 1.0), trial(1, [0.9, 0.1], 1.0)], goals_of())) == [1]
    assert numbers(front_of([trial(0, [0.9], 1.0), trial(1, [0.9], 1.0)], goals_of())) == [0]


def test_complete_trials_come_first_and_failed_ones_are_never_the_best():
    records = [
        trial(0, [0.99], 1.0, TrialState.FAILED),
        trial(1, [0.95], 1.0, TrialState.DIVERGED),
        trial(2, [0.9], 1.0, TrialState.STOPPED),
        trial(3, [0.1], 9.0),
    ]
    assert numbers(placed(records, goals_of())) == [3, 2, 1, 0]
    assert numbers(front_of(records, goals_of())) == [3]
    assert numbers(front_of(records[:3], goals_of())) == [2]
    assert numbers(front_of(records[:2], goals_of())) == [1]
    assert front_of(records[:1], goals_of()) == []
    assert front_of(records[:3], goals_of(), complete_only=True) == []


def test_a_trial_that_violates_a_constraint_is_never_on_the_front():
    goals = goals_of(constraints="{size: {max: 10}}")
    records = [trial(0, [0.9], 1.0, size=[30.0]), trial(1, [0.1], 9.0, size=[5.0]), trial(2, [0.8], 1.0, size=[20.0])]
    assert numbers(placed(records, goals)) == [1, 2, 0]
    assert numbers(front_of(records, goals)) == [1]
    assert front_of([records[0], records[2]], goals) == []
    assert best_of([records[0]], goals) is None


def test_with_one_metric_and_a_constraint_the_best_is_the_best_that_holds_it():
    goals = goals_of("{python: '/a/b.py:c', metric: score}", "{cost: {max: 4}}")
    records = [trial(0, [0.9], 5.0), trial(1, [0.8], 2.0), trial(2, [0.85], 3.0)]
    assert numbers(placed(records, goals)) == [2, 1, 0]
    assert numbers(front_of(records, goals)) == [2]


def test_with_one_metric_alone_it_is_the_order_of_ranking():
    goals = goals_of("{python: '/a/b.py:c', metric: loss}")
    assert goals.is_single
    assert best_of([trial(0, [0.9]), trial(1, [0.8])], goals).number == 1
