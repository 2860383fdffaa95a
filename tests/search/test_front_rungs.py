"""ASHA over fronts: who is promoted, who is stopped, and the sentences."""

from __future__ import annotations

import numpy as np
import pytest

from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.asha import Asha
from dialin.search.decision import Decision
from dialin.search.early_stopping import make_early_stopping
from dialin.search.front_rungs import FrontPromoting, FrontPromotions, FrontStopping
from dialin.search.goals import Goals, Point
from dialin.specification import parse_spec
from dialin.specification.metrics import Metric

TWO = "{python: '/a/b.py:c', metrics: [score, {name: cost, mode: min}]}"


def make(kind="promotion", objective=TWO, constraints="{}"):
    text = f"""
name: x
objective: {objective}
constraints: {constraints}
space: {{a: {{min: 0.0, max: 1.0}}}}
early_stopping: {{asha: {{type: {kind}, rungs: [1, 3]}}}}
"""
    return make_early_stopping(plan_study(parse_spec(text), ClusterShape(2)))


def test_the_strategy_follows_from_the_specification():
    assert isinstance(make(), FrontPromoting)
    assert isinstance(make("stopping"), FrontStopping)
    assert isinstance(
        make(objective="{python: '/a/b.py:c', metric: score}", constraints="{x: {max: 1}}"), FrontPromoting
    )
    assert not isinstance(make(objective="{python: '/a/b.py:c', metric: score}"), FrontPromoting | FrontStopping)


def test_the_best_third_of_the_order_is_promoted_with_a_reason():
    rungs = make()
    points = [(0.5, 5.0), (0.9, 9.0), (0.6, 1.0), (0.5, 6.0), (0.4, 4.0), (0.3, 8.0)]
    decisions = [rungs.decide(number, 1, 1, score, {"cost": cost}) for number, (score, cost) in enumerate(points)]
    assert [decision.action for decision in decisions] == ["pause"] * 6
    assert decisions[2].text() == (
        "paused: score 0.6, cost 1: front 1 of 2, rank 2 of 3 at rung 1, where the best 1 continue"
    )
    assert decisions[5].text() == (
        "paused: score 0.3, cost 8: front 4 of 4, rank 6 of 6 at rung 1, where the best 2 continue"
    )
    assert (decisions[5].front, decisions[5].fronts, decisions[5].rank, decisions[5].of) == (4, 4, 6, 6)
    assert decisions[5].others == {"cost": 8.0}
    for number in (1, 2):  # the points of the first front
        assert rungs.next() == number
        rungs.remove(number)
    assert rungs.next() is None
    assert rungs.next(round_up=True) is None  # of six two go on
    assert set(rungs.paused) == {0, 3, 4, 5}
    better = rungs.decide(6, 1, 1, 0.95, {"cost": 0.5})
    assert better.text() == (
        "promoted: score 0.95, cost 0.5: front 1 of 5, rank 1 of 7 at rung 1, where the best 3 continue"
    )


def test_of_one_front_the_less_crowded_trials_are_promoted_first():
    goals = Goals((Metric("score", "max"), Metric("cost", "min")), {})
    promotions = FrontPromotions([1], 3.0, goals)
    for number, values in enumerate([(0.2, 2.0), (0.21, 2.1), (0.5, 5.0), (0.22, 2.2), (0.9, 9.0), (0.1, 1.0)]):
        promotions.record(1, number, Point(1, values, {}, 0.0))
    order = []
    while (number := promotions.next(round_up=True)) is not None:
        order.append(number)
        promotions.remove(number)
    assert order == [4, 5]  # the ends
    assert [promotions.place(1, number).rank for number in (4, 5, 2, 3, 0, 1)] == [1, 2, 3, 4, 5, 6]


def test_a_trial_that_violates_a_constraint_is_promoted_after_all_others():
    rungs = make(constraints="{size: {max: 10}}")
    first = rungs.decide(0, 1, 1, 0.9, {"cost": 1.0, "size": 20.0})
    assert first.text() == (
        "paused: score 0.9, cost 1, size 20: the constraint on size is violated, rank 1 of 1 at rung 1, where the best "
        "1 continue"
    )
    for number in (1, 2):
        rungs.decide(number, 1, 1, 0.1 * number, {"cost": 9.0 - number, "size": 5.0})
    assert rungs.next() is None  # trial 2 was promoted as it came
    decision = rungs.final_decision(0, 1, 0.9)
    assert (decision.cause, decision.rank, decision.of, decision.violated, decision.front) == ("rung_rank", 3, 3, "size", None)  # fmt: skip


def test_a_decision_with_these_fields_is_stored_and_read_back():
    rungs = make(constraints="{size: {max: 10}}")
    for size in (5.0, 20.0):
        decision = rungs.decide(int(size), 1, 1, 0.9, {"cost": 1.0, "size": size})
        assert Decision.from_data(decision.to_data()) == decision
        assert decision.summary() == "not among the best at rung 1"


def test_with_one_metric_the_stopping_form_stops_as_asha_does():
    """Up to the interpolation of the cutoff, which lies between two values."""
    rungs = make("stopping", objective="{python: '/a/b.py:c', metric: score}", constraints="{size: {max: 1}}")
    asha, generator = Asha([1], 3.0, maximize=True), np.random.default_rng(0)
    differ = 0
    for number, value in enumerate(generator.permutation(60) / 60):
        stops = rungs.decide(number, 1, 1, value, {"size": 0.0}).action == "stop"
        verdict = asha.judge(1, value)
        asha.record(1, value)
        differ += stops != verdict.stop
        assert not verdict.stop or stops or number == 0 or verdict.cutoff - value < 0.2
    assert differ <= 6


def test_the_stopping_form_stops_what_violates_most():
    rungs = make("stopping", constraints="{size: {max: 10}}")
    actions = [
        rungs.decide(number, 1, 1, 0.5, {"cost": 1.0, "size": size}).action
        for number, size in enumerate([20.0, 30.0, 5.0, 40.0])
    ]
    assert actions == ["continue", "stop", "continue", "stop"]


@pytest.mark.parametrize("kind", ["promotion", "stopping"])
def test_recovered_rungs_decide_as_those_that_saw_every_report(kind):
    generator = np.random.default_rng(1)
    points = generator.random((20, 2))
    seen, again = make(kind), make(kind)
    for number, (score, cost) in enumerate(points):
        seen.decide(number, 1, 1, score, {"cost": cost})
    for number, (score, cost) in enumerate(points):
        again.recover(number, {1: score}, 0, unfinished=True, can_grow=False, others={"cost": {1: cost}})
    for number in list(seen.paused):
        assert number in again.paused
    ours, theirs = (one.decide(99, 1, 1, 0.8, {"cost": 0.4}) for one in (seen, again))
    assert ours == theirs
