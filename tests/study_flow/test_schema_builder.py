"""What people are told of a study of several metrics, or with constraints: the models of the API."""

from __future__ import annotations

import pytest

from dialin.errors import NoResultError, UsageError
from dialin.lifecycle import StudyState, TrialState
from dialin.results.looks import Look
from dialin.results.summary import summarize
from dialin.search.goals import Goals
from dialin.search.records import TrialRecord
from dialin.specification import parse_spec, to_yaml
from dialin.store.entries import Entry
from dialin.store.studies import StudyRow
from dialin.study_flow import schema_builder
from dialin.study_flow.snapshot import StudySnapshot
from dialin.tracking.lag import Lag

TWO = """
name: two
objective: {dataset: synthetic, metrics: [val_accuracy, parameters]}
constraints: {memory: {max: 100}}
space: {lr: {min: 1e-4, max: 1, log: true}}
"""
ONE = "name: one\nobjective: {dataset: synthetic}\nspace: {lr: {min: 1e-4, max: 1, log: true}}\n"
BOUNDED = ONE.replace("space", "constraints: {memory: {max: 100, min: 1}}\nspace")


def record(number, accuracies, parameters, memory=50.0, state=TrialState.COMPLETE):
    epochs = range(1, len(accuracies) + 1)
    others = {"parameters": dict.fromkeys(epochs, parameters), "memory": dict.fromkeys(epochs, memory)}
    values = dict(zip(epochs, accuracies, strict=True))
    return TrialRecord(number, state, {"lr": 0.1 / (number + 1)}, 7, values, others=others)


RECORDS = [
    record(0, [0.5, 0.8, 0.7], 200.0),
    record(1, [0.6], 50.0),
    record(2, [0.7], 300.0),  # dominated by trial 0
    record(3, [0.9], 10.0, memory=150.0),  # violates the constraint
    record(4, [0.95], 10.0, state=TrialState.FAILED),
    record(5, [float("nan")], 1.0, state=TrialState.DIVERGED),
]


def snapshot(text, records, state=StudyState.COMPLETE, looks=()):
    spec = parse_spec(text)
    row = StudyRow("two-abc", spec.name, state, spec=to_yaml(spec), created_at=1.0, ended_at=2.0, reason="", summary={})
    return StudySnapshot(row, spec, records, summarize(spec, row.id, row.state.value, records, looks=looks))


def in_full(shot):
    outcome = schema_builder.outcome_of_trials(shot.spec, shot.trials)
    short = schema_builder.study(Entry(shot.row, None), outcome, Lag(), now=3.0)
    violated = schema_builder.violations(shot.spec, shot.trials)
    return schema_builder.study_in_full(short, shot.row, shot, violated=violated)


def test_a_study_of_several_metrics_lists_its_front_and_what_violates_the_constraints():
    study = in_full(snapshot(TWO, RECORDS, looks=[Look(0, {"accuracy": 0.7}), Look(1, {"accuracy": 0.5})]))
    assert [(metric.name, metric.mode) for metric in study.metrics] == [("val_accuracy", "max"), ("parameters", "min")]
    assert study.constraints["memory"].model_dump() == {"min": None, "max": 100}
    assert (study.metric, study.mode, study.best, study.front) == ("val_accuracy", "max", 0.8, 2)
    assert study.violations == {"memory": 1}
    assert [point.model_dump() for point in study.pareto] == [
        {
            "trial": 0,
            "values": {"val_accuracy": 0.8, "parameters": 200.0},
            "bounded": {"memory": 50.0},
            "epoch": 2,
            "params": {"lr": 0.1},
            "link": None,
        },
        {
            "trial": 1,
            "values": {"val_accuracy": 0.6, "parameters": 50.0},
            "bounded": {"memory": 50.0},
            "epoch": 1,
            "params": {"lr": 0.05},
            "link": None,
        },
    ]
    assert "2 on the Pareto front, best val_accuracy 0.8" in study.line()


def test_with_one_metric_nothing_is_added():
    study = in_full(snapshot(ONE, RECORDS[:3]))
    added = ("metrics", "constraints", "front", "pareto", "violations")
    assert {name: getattr(study, name) for name in added} == dict.fromkeys(added)
    (trial, *_) = [schema_builder.trial(each, Goals.of(parse_spec(ONE))) for each in RECORDS]
    assert (trial.metrics, trial.violated, trial.others, trial.is_feasible) == (None, None, None, None)
    assert (trial.value, trial.best_epoch) == (0.8, 2)
    best = schema_builder.best(snapshot(ONE, RECORDS[:3]))
    assert (best.trial, best.values, best.bounded) == (0, None, None)
    assert [point.values for point in schema_builder.pareto(snapshot(ONE, RECORDS[:3]))] == [{"val_accuracy": 0.8}]


def test_a_trial_has_every_metric_of_the_epoch_that_counts_and_says_what_it_violates():
    goals = Goals.of(parse_spec(TWO))
    kept, broken = (schema_builder.trial(RECORDS[number], goals) for number in (0, 3))
    assert (kept.value, kept.best_epoch) == (0.8, 2)
    assert kept.metrics == {"val_accuracy": 0.8, "parameters": 200.0, "memory": 50.0}
    assert kept.others["parameters"] == {"1": 200.0, "2": 200.0, "3": 200.0}
    assert (kept.violated, kept.is_feasible) == ([], True)
    assert (broken.violated, broken.is_feasible) == (["memory"], False)
    assert schema_builder.trial(RECORDS[5], goals).metrics is None


def test_one_trial_of_the_front_is_asked_for_with_its_own_test_score():
    shot = snapshot(TWO, RECORDS, looks=[Look(0, {"accuracy": 0.7}), Look(1, {"accuracy": 0.5})])
    assert schema_builder.best(shot).trial == 0
    found = schema_builder.best(shot, 1)
    assert (found.trial, found.value, found.values["parameters"], found.test) == (1, 0.6, 50.0, {"accuracy": 0.5})
    with pytest.raises(UsageError, match=r"^trial 2 is not on the Pareto front of study two-abc; allowed: 0, 1$"):
        schema_builder.best(shot, 2)
    with pytest.raises(UsageError, match=r"^trial 1 is not the best one of study two-abc; allowed: 0$"):
        schema_builder.best(snapshot(ONE, RECORDS[:3]), 1)


@pytest.mark.parametrize(
    ("text", "records", "reason"),
    [
        (TWO, RECORDS[3:], "no trial that has not failed meets the constraints (1 violates memory)"),
        (BOUNDED, [record(n, [0.5], 1.0, memory=0.5) for n in range(2)], "meets the constraints (2 violate memory)"),
        (TWO, [], "no trial has reported a finite value"),
    ],
)
def test_without_a_trial_that_meets_the_constraints_there_is_no_best_one(text, records, reason):
    shot = snapshot(text, records)
    with pytest.raises(NoResultError) as raised:
        schema_builder.best(shot)
    assert str(raised.value).endswith(reason)
    assert (in_full(shot).best, schema_builder.pareto(shot)) == (None, [])
    with pytest.raises(NoResultError, match="running, and no trial"):
        schema_builder.best(snapshot(text, records, StudyState.RUNNING))


def test_a_constraint_decides_the_best_of_one_metric():
    study = in_full(snapshot(BOUNDED, RECORDS))
    assert (study.metrics, study.front, study.pareto, study.best, study.violations) == (
        None,
        None,
        None,
        0.8,
        {"memory": 1},
    )


def test_the_stored_outcome_is_that_of_the_trials():
    shot = snapshot(TWO, RECORDS)
    row = StudyRow(**{**vars(shot.row), "summary": shot.result.to_data()})
    assert schema_builder.outcome_in_summary(row) == schema_builder.outcome_of_trials(shot.spec, shot.trials)
