"""The sampler with a model a metric: it finds the front, keeps to constraints, and depends on nothing but its study."""

from __future__ import annotations

import math

import numpy as np
import optuna
import pytest

from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.goals import Goals
from dialin.search.models.encoding import Encoding
from dialin.search.pareto import hypervolume
from dialin.search.samplers import make_sampler
from dialin.search.samplers.front_tpe import FrontTPESampler
from dialin.search.samplers.initial_design import InitialDesign
from dialin.search.samplers.learning_curve_gp import LearningCurveGPSampler
from dialin.search.samplers.multi_objective_gp import MultiObjectiveGPSampler
from dialin.search.study import Study
from dialin.search.trial_rows import read_finished
from dialin.specification import parse_spec

ONE = "{python: '/a/b.py:c', metric: one, mode: min}"
TWO = "{python: '/a/b.py:c', metrics: [{name: one, mode: min}, {name: two, mode: min}]}"


SPACE = "{a: {min: 0.0, max: 1.0}, b: {min: 0.0, max: 1.0}, c: {min: 0.0, max: 1.0, when: {d: [p]}}, d: [p, q]}"


def make_plan(*overrides, objective=TWO, constraints="{}", sampler="gp", space=SPACE):
    text = f"""
name: x
objective: {objective}
constraints: {constraints}
space: {space}
search: {{sampler: {sampler}}}
budget: {{trials: 40, epochs: 9}}
"""
    return plan_study(parse_spec(text, overrides=overrides), ClusterShape(2))


def metrics_of(params, epoch):
    """Two bowls about (0.2, 0.3) and (0.8, 0.3): the front lies between their centres, where b is 0.3."""
    a, b, late = params["a"], params["b"], 0.3 / epoch
    distances = [(a - centre) ** 2 + 2 * (b - 0.3) ** 2 + late + 0.1 * (params["d"] == "q") for centre in (0.2, 0.8)]
    return distances[0], {"two": distances[1], "size": a * 100, "three": b}


def train_all(plan, others=(), values=metrics_of):
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s", others)
    while (trial := study.ask()) is not None:
        for epoch in range(trial.epochs_done + 1, 10):
            decision = study.report(trial, epoch, *values(trial.params, epoch))
            study.record_checkpoint(trial, epoch, "x")
            if not decision.continues:
                study.tell(trial, decision)
                break
    return study


def volume_of(study):
    points = np.array([one.point.values for one in study.front()])
    return hypervolume(0.6 - points, np.zeros(2))


def test_the_samplers_of_a_study_with_several_metrics():
    for name, kind in (("gp", MultiObjectiveGPSampler), ("tpe", FrontTPESampler)):
        plan = make_plan(sampler=name)
        assert isinstance(make_sampler(name, plan, Encoding(plan.spec), ()), kind)
    one = make_plan(objective="{python: '/a/b.py:c', metric: one}")
    assert type(make_sampler("gp", one, Encoding(one.spec), ())) is LearningCurveGPSampler


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_it_finds_more_of_the_front_than_random_trials(sampler):
    found = [volume_of(train_all(make_plan(f"search.seed={seed}", sampler=sampler))) for seed in (0, 1)]
    random = [volume_of(train_all(make_plan(f"search.seed={seed}", sampler="random"))) for seed in (0, 1)]
    assert sum(found) > sum(random)


def test_its_trials_keep_to_the_constraints():
    study = train_all(make_plan(constraints="{size: {max: 40}}"))
    late = [record.params["a"] for record in study.trials()[15:]]
    assert sum(a <= 0.4 for a in late) / len(late) > 0.6
    assert all(one.point.is_feasible for one in study.front())


def test_while_nothing_meets_the_constraints_it_looks_for_what_does():
    study = train_all(make_plan(constraints="{size: {min: 61, max: 64}}"))
    late = [record.params["a"] for record in study.trials()[20:]]
    assert np.median([abs(a - 0.625) for a in late]) < 0.1


def test_with_one_metric_its_best_trial_keeps_to_the_constraint():
    study = train_all(make_plan(objective=ONE, constraints="{size: {min: 50}}"))
    best = study.best()
    assert best.params["a"] == pytest.approx(0.5, abs=0.1)
    assert best.params["a"] >= 0.5


def test_it_works_for_three_metrics():
    objective = (
        "{python: '/a/b.py:c', metrics: [{name: one, mode: min}, {name: two, mode: min}, {name: three, mode: min}]}"
    )
    study = train_all(make_plan("budget.trials=20", objective=objective))
    assert len(study.front()) >= 2
    assert len(Goals.of(make_plan(objective=objective).spec).metrics) == 3


@pytest.mark.parametrize(("objective", "constraints", "last"), [(TWO, "{}", 15), (ONE, "{size: {max: 90}}", 19)])
def test_in_a_large_space_the_models_of_several_metrics_are_used_early(monkeypatch, objective, constraints, last):
    drawn, point = [], InitialDesign.point
    monkeypatch.setattr(
        InitialDesign, "point", lambda self, number, *rest: drawn.append(number) or point(self, number, *rest)
    )
    knobs = ", ".join(f"k{index}: {{min: 0.0, max: 1.0}}" for index in range(30))
    train_all(make_plan(objective=objective, constraints=constraints, space=SPACE[:-1] + f", {knobs}}}"))
    assert max(drawn) == last


def test_the_same_seed_gives_the_same_trials():
    first, second = (train_all(make_plan("budget.trials=20")).trials() for _ in range(2))
    assert [record.params for record in first] == [record.params for record in second]


def test_it_learns_from_another_study_and_from_one_that_did_not_measure_what_is_bounded():
    storage = optuna.storages.InMemoryStorage()
    before = make_plan("early_stopping=off", sampler="random")
    study = Study.open(before, storage, "before")
    while (trial := study.ask()) is not None:
        for epoch in range(1, 10):
            decision = study.report(trial, epoch, *metrics_of(trial.params, epoch))
        study.tell(trial, decision)
    others = read_finished(storage, ["before"])
    study = train_all(make_plan("budget.trials=8", constraints="{size: {max: 90}}"), others)
    assert np.median([abs(record.params["b"] - 0.3) for record in study.trials()]) < 0.2


def test_divergence_and_a_constant_metric_do_no_harm():
    def values(params, epoch):
        return math.nan if params["a"] > 0.7 else params["a"], {"two": 1.0}

    study = train_all(make_plan("budget.trials=25"), values=values)
    late = [record.params["a"] for record in study.trials()[12:]]
    assert len(late) == 13
    assert sum(a > 0.7 for a in late) <= 4
