"""The Study with several metrics and with constraints, over the storages it is used with."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest

from dialin.lifecycle import TrialState
from dialin.paths import sqlite_url
from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.storage import opened_storage
from dialin.search.study import Study
from dialin.search.trial_rows import TrialReader, read_finished, read_study
from dialin.specification import parse_spec

TWO = "{python: '/a/b.py:c', metrics: [score, {name: cost, mode: min}]}"


def make_plan(*overrides, objective=TWO, constraints="{}"):
    text = f"""
name: several
objective: {objective}
constraints: {constraints}
space: {{a: {{min: 0.0, max: 1.0}}, b: {{min: 0.0, max: 1.0}}}}
search: {{sampler: random}}
budget: {{trials: 12, epochs: 9}}
"""
    return plan_study(parse_spec(text, overrides=overrides), ClusterShape(2))


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path):
    if request.param == "memory":
        yield optuna.storages.InMemoryStorage()
        return
    with opened_storage(sqlite_url(tmp_path / "studies.db")) as storage:
        yield storage


def metrics_of(trial, epoch):
    a, b = trial.params["a"], trial.params["b"]
    return a * (1 - 0.5**epoch), {"cost": a + b, "size": 10 * b}


def train_all(study, epochs=9, most=10**6):
    """Train trials until there are none, or so many epochs have been trained; the texts of the decisions."""
    said = []
    while (trial := study.ask()) is not None:
        for epoch in range(trial.epochs_done + 1, epochs + 1):
            with study.batch():
                decision = study.report(trial, epoch, *metrics_of(trial, epoch))
                study.record_checkpoint(trial, epoch, f"{trial.number}/{epoch}")
                if not decision.continues:
                    study.tell(trial, decision)
            said.append((trial.number, epoch, decision.text()))
            if not decision.continues:
                break
        if len(said) >= most:
            break
    return said


def test_all_values_of_each_epoch_are_stored_and_read_back(storage):
    study = Study.open(make_plan(constraints="{size: {max: 5}}"), storage, "s")
    trial = study.ask()
    assert study.report(trial, 1, 0.5, {"cost": 3.0, "size": 4.0, "unknown": 1.0}).action == "pause"
    assert study.trials()[0].others == {"cost": {1: 3.0}, "size": {1: 4.0}}
    assert study._state.observations[0].others == study.trials()[0].others
    again = Study.open(make_plan(constraints="{size: {max: 5}}"), storage, "s")
    assert again._state.observations[0].others == {"cost": {1: 3.0}, "size": {1: 4.0}}
    assert read_study(storage, "s") == study.trials() == list(TrialReader(storage, "s").read())


def test_a_report_needs_every_value(storage):
    study = Study.open(make_plan(), storage, "s")
    with pytest.raises(KeyError, match="cost"):
        study.report(study.ask(), 1, 0.5)
    assert study.trials()[0].values == {}


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_divergence_whichever_it_is(storage, wrong):
    study = Study.open(make_plan(), storage, "s")
    trial = study.ask()
    decision = study.report(trial, 1, 0.5, {"cost": wrong})
    assert (decision.action, decision.cause, decision.metric) == ("diverge", "not_finite", "cost")
    assert decision.text() == f"cost was {wrong} after epoch 1"
    study.tell(trial, decision)
    (record,) = Study.open(make_plan(), storage, "s").trials()
    assert record.state is TrialState.DIVERGED
    assert record.others["cost"][1] == pytest.approx(wrong, nan_ok=True)


def test_the_first_report_of_an_epoch_stays(storage):
    study = Study.open(make_plan("early_stopping=off"), storage, "s")
    trial = study.ask()
    study.report(trial, 1, 0.5, {"cost": 3.0})
    assert study.report(trial, 1, 0.9, {"cost": 1.0}).cause == "reported_before"
    assert study.trials()[0].others == {"cost": {1: 3.0}}


def test_the_best_is_a_front_and_optunas_own_tools_find_the_same(storage):
    study = Study.open(make_plan("early_stopping=off"), storage, "s")
    train_all(study)
    front = study.front()
    assert len(front) > 1
    assert study.best().number == front[0].record.number
    found = optuna.load_study(study_name="s", storage=storage)
    assert [direction.name for direction in found.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert found.metric_names == ["score", "cost"]
    assert sorted(trial.number for trial in found.best_trials) == sorted(one.record.number for one in front)
    for one in front:
        assert tuple(found.trials[one.record.number].values) == one.point.values
    assert found.trials[0].intermediate_values == pytest.approx(study.trials()[0].values)


def test_optunas_own_tools_know_which_trials_violate_a_constraint(storage):
    study = Study.open(make_plan("early_stopping=off", constraints="{size: {max: 5}}"), storage, "s")
    train_all(study)
    found = optuna.load_study(study_name="s", storage=storage)
    assert sorted(trial.number for trial in found.best_trials) == sorted(one.record.number for one in study.front())
    for trial in found.trials:
        assert trial.constraints["size"] == pytest.approx(10 * trial.params["b"] - 5)
    assert {one.point.is_feasible for one in study.front()} == {True}


def test_with_one_metric_and_a_constraint_the_best_holds_it(storage):
    plan = make_plan(
        "early_stopping=off", objective="{python: '/a/b.py:c', metric: score}", constraints="{size: {max: 5}}"
    )
    study = Study.open(plan, storage, "s")
    train_all(study)
    trials = study.trials()
    allowed = [record for record in trials if record.params["b"] <= 0.5]
    assert len(allowed) < len(trials)
    assert study.best().number == max(allowed, key=lambda record: record.params["a"]).number
    assert optuna.load_study(study_name="s", storage=storage).best_trial.number == study.best().number


def test_a_target_is_reached_only_where_the_constraints_hold(storage):
    plan = make_plan(
        "budget.target=0.1",
        "early_stopping=off",
        objective="{python: '/a/b.py:c', metric: score}",
        constraints="{size: {max: 5}}",
    )
    study = Study.open(plan, storage, "s")
    trial = study.ask()
    assert study.report(trial, 1, 0.5, {"size": 6.0}).continues
    assert study.report(trial, 2, 0.5, {"size": 5.0}).cause == "target_reached"


@pytest.mark.parametrize("kind", ["promotion", "stopping"])
@pytest.mark.parametrize("sampler", ["random", "tpe", "gp"])
def test_a_study_that_was_interrupted_goes_on_as_it_would_have(tmp_path, kind, sampler):
    plan = make_plan(f"early_stopping.asha.type={kind}", f"search.sampler={sampler}", constraints="{size: {max: 6}}")
    whole = train_all(Study.open(plan, optuna.storages.InMemoryStorage(), "s"))
    for stop in (1, 7, 20):
        with opened_storage(sqlite_url(tmp_path / f"{stop}.db")) as storage:
            first = train_all(Study.open(plan, storage, "s"), most=stop)
            rest = train_all(Study.open(plan, storage, "s"))
        assert first + rest == whole


def test_in_an_extended_study_the_best_of_the_front_go_on(storage):
    short = make_plan("early_stopping.asha.grace_epochs=3", "budget.trials=6")
    first = Study.open(short, storage, "s")
    train_all(first)
    complete = [record.number for record in first.trials() if record.state is TrialState.COMPLETE]
    for trial, decision in first.paused():
        first.tell(trial, decision)
    longer = make_plan("budget.trials=6", "budget.epochs=27", "early_stopping.asha.rungs=[3, 9]")
    second = Study.open(longer, storage, "s")
    train_all(second, 27)
    continued = [record for record in second.trials() if record.continues is not None]
    assert {record.continues for record in continued} <= set(complete)
    assert continued
    for record in continued:
        assert sorted(record.others["cost"]) == sorted(record.values) == list(range(10, 28))


def test_a_warm_start_has_every_curve(storage):
    study = Study.open(make_plan("early_stopping=off"), storage, "s")
    train_all(study)
    others = read_finished(storage, ["s"])
    assert [set(one.others) for one in others] == [{"cost"}] * 12
    for sampler in ("tpe", "gp"):
        Study.open(make_plan(f"search.sampler={sampler}"), optuna.storages.InMemoryStorage(), "t", others).ask()


def test_after_kill_9_no_epoch_has_a_part_of_its_values(tmp_path):
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(Path.cwd())!r})
        from tests.search.test_study_several import make_plan, train_all
        from dialin.search.storage import open_storage
        from dialin.search.study import Study
        plan = make_plan("budget.trials=100000", constraints="{{size: {{max: 5}}}}")
        study = Study.open(plan, open_storage({sqlite_url(tmp_path / "studies.db")!r}), "s")
        print("ready", flush=True)
        while True:
            train_all(study, most=50)
            print("more", flush=True)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with opened_storage(sqlite_url(tmp_path / "studies.db")) as storage:
        records = read_study(storage, "s")
        assert sum(len(record.values) for record in records) >= 100
        for record in records:
            if record.values:
                assert set(record.others) == {"cost", "size"}
                assert set(record.others["cost"]) == set(record.others["size"]) == set(record.values)
        study = Study.open(make_plan("budget.trials=200", constraints="{size: {max: 5}}"), storage, "s")
        assert study.ask() is not None
