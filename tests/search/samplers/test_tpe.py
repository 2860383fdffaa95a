from __future__ import annotations

import statistics
from dataclasses import replace

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from dialin.lifecycle import TrialState
from dialin.objectives.synthetic import Synthetic
from dialin.planning.plan import ClusterShape, Plan, plan_study
from dialin.search.records import Observation
from dialin.search.study import Study
from dialin.search.suggester import Suggester
from dialin.specification import active_params, load_spec
from tests.factories import make_plan

TRIALS, FROM = 130, 60


def plan_of(sampler: str, seed: int) -> Plan:
    overrides = [f"search.sampler={sampler}", f"search.seed={seed}", f"budget.trials={TRIALS}"]
    return plan_study(load_spec("synthetic", overrides), ClusterShape(cpus=2))


def reached_at_full_length(plan: Plan) -> list[float]:
    """The accuracy that each configuration of a study reaches when it is trained to the end, whatever became of it."""
    objective, epochs = Synthetic.from_spec(plan.spec), plan.spec.budget.epochs
    study, courses = Study.open(plan, InMemoryStorage(), "s"), {}
    while (trial := study.ask()) is not None:
        if trial.number not in courses:
            run = objective.start(trial.params, trial.seed, plan.resources)
            courses[trial.number] = [run.epoch()["val_accuracy"] for _ in range(epochs)]
        for epoch in range(len(study.values(trial)) + 1, epochs + 1):
            decision = study.report(trial, epoch, courses[trial.number][epoch - 1])
            if not decision.continues:
                study.tell(trial, decision)
                break
    return [0.0 if np.isnan(course).any() else course[-1] for course in courses.values()]


def test_where_trials_wait_at_rungs_its_suggestions_are_far_better_than_random_ones():
    found = {
        sampler: [statistics.median(reached_at_full_length(plan_of(sampler, seed))[FROM:]) for seed in range(3)]
        for sampler in ("tpe", "random")
    }
    gains = [tpe - random for tpe, random in zip(found["tpe"], found["random"], strict=True)]
    assert min(gains) > 0.1, found


def many(count: int, plan: Plan) -> dict[int, Observation]:
    """Trials of which one in five is complete and the others wait."""
    encoding, generator = Suggester(plan).encoding, np.random.default_rng(0)
    seen = {}
    for number in range(count):
        params = active_params(plan.spec, encoding.decode(generator.random(len(encoding.names))))
        values = dict.fromkeys(range(1, 1 if number % 5 else 10), 0.5) | {
            9 if number % 5 == 0 else 1: generator.random()
        }
        seen[number] = Observation(params, values, TrialState.WAITING if number % 5 else TrialState.COMPLETE)
    return seen


@pytest.mark.parametrize("count", [40, 700], ids=["all shown", "a part shown"])
def test_a_suggestion_does_not_depend_on_how_often_the_process_was_restarted(count):
    plan = make_plan("search.sampler=tpe")
    seen, old = many(count, plan), Suggester(plan)
    for number in range(20, count, 20):
        old.suggest(number, {other: seen[other] for other in range(number)})
    assert old.suggest(count, seen) == Suggester(plan).suggest(count, seen)


def test_a_waiting_trial_counts_by_what_it_has_reported_since():
    plan = make_plan("search.sampler=tpe")
    seen, suggester = many(40, plan), Suggester(plan)
    suggester.suggest(40, seen)
    for number, one in seen.items():
        if one.state is TrialState.WAITING:
            factor = 0.1 if one.params["optimizer"] == "sgd" else 1.0
            seen[number] = replace(one, values={**one.values, 3: one.values[1] * factor})
    assert suggester.suggest(40, seen) == Suggester(plan).suggest(40, seen)
