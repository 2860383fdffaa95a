"""Whole studies: real trials, real storage, real MLflow; in process and on Ray."""

from __future__ import annotations

import math
import os
import re
import shutil
import signal
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dialin.cli.render import mirror_line
from dialin.client.local import LocalStudies
from dialin.errors import ConflictError, DataError, NotFoundError, SpecError, UsageError
from dialin.events.log import read_events
from dialin.events.types import EpochReported, TrialEnded
from dialin.execution import inline
from dialin.execution.checkpoints import checkpoint_folder
from dialin.execution.executor import executor_of
from dialin.execution.trial_run import evaluate_checkpoint
from dialin.lifecycle import TrialState
from dialin.paths import OutputFolder
from dialin.results.looks import Look
from dialin.results.summary import summarize
from dialin.search.records import TrialRecord
from dialin.settings import Settings
from dialin.specification import load_spec, parse_spec
from dialin.store.studies import Studies
from dialin.study_flow import session
from dialin.study_flow.mirror import ending_event, sync_study
from dialin.study_flow.read_back import list_rows, load_study
from dialin.study_flow.run import extend_study, resume_study, run_study
from dialin.study_flow.snapshot import mirror_lag_of
from tests import others
from tests.conftest import ROOT
from tests.factories import make_spec
from tests.tracking.studies import wait_for

pytestmark = others.RAY


class Silent:
    def __init__(self):
        self.notes, self.ends = [], []

    def note(self, text):
        self.notes.append(text)

    def planned(self, study_id, plan, trials): ...

    def receive(self, event):
        if isinstance(event, TrialEnded) and event.state != "interrupted":
            self.ends.append(TrialState(event.state))


@pytest.fixture
def settings(tmp_path):
    return Settings.read({}, out=str(tmp_path / "out"))


@pytest.fixture(autouse=True)
def environment(tmp_path):
    """As before each test, and without the modules of its folder: other tests have others of the same names."""
    before, path = dict(os.environ), [*sys.path]
    yield
    os.environ.clear()
    os.environ.update(before)
    sys.path[:] = path
    for name, module in [*sys.modules.items()]:
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def mlflow_runs(settings, experiment):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{settings.out / 'mlflow.db'}")
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id], max_results=1000)


@pytest.mark.parametrize("runner", ["inline", "ray"])
def test_a_study_from_beginning_to_end(settings, runner):
    spec = make_spec("budget.trials=15", "resources.concurrency=2")
    result = run_study(spec, settings, Silent(), runner).result
    assert result.state == "complete"
    assert sum(result.trials.values()) == 15
    assert result.trials["failed"] == 0
    assert result.best.value > 0.7
    assert abs(result.test["accuracy"] - result.best.value) < 0.05
    assert result.epochs["trained"] < result.epochs["full"] == 135
    # The disk says the same.
    back = load_study(settings, "small")
    assert back.result == result
    assert [row.id for row in list_rows(settings)] == [result.study_id]
    assert Counter(trial.state.value for trial in back.trials) == {k: v for k, v in result.trials.items() if v}
    assert all(trial.reason for trial in back.trials)
    # And so does MLflow.
    client, runs = mlflow_runs(settings, "small")
    children = {run.data.tags["dialin.trial"]: run for run in runs if "dialin.trial" in run.data.tags}
    parent = next(run for run in runs if "dialin.trial" not in run.data.tags)
    status = {"complete": "FINISHED", "stopped": "KILLED", "diverged": "KILLED", "failed": "FAILED"}
    assert parent.info.status == "FINISHED"
    assert len(children) == 15
    for trial in back.trials:
        run = children[str(trial.number)]
        assert run.info.status == status[trial.state.value]
        assert (run.data.tags["dialin.state"], run.data.tags["dialin.reason"]) == (trial.state.value, trial.reason)
        assert run.data.params == {name: _text(value) for name, value in trial.params.items()}
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        accuracy = {point.step: point.value for point in client.get_metric_history(run.info.run_id, "val_accuracy")}
        finite = {epoch: value for epoch, value in trial.values.items() if value == value}
        assert {epoch: accuracy[epoch] for epoch in finite} == pytest.approx(finite)
        assert set(accuracy) == set(trial.values)
        names = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
        assert set(run.data.metrics) == names
    assert parent.data.metrics["best_val_accuracy"] == pytest.approx(result.best.value)
    assert [entry.path for entry in client.list_artifacts(parent.info.run_id)] == ["best_config.yaml"]


def _text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def lag_line(settings, reference):
    """What the commands print about how far MLflow is behind a study."""
    with LocalStudies(settings) as studies:
        return mirror_line(studies.study(reference))


def test_what_a_driver_returns_is_what_is_read_back(settings):
    """Commands show a finished run from what the driver returns, and `dialin show` from the disk."""
    for drive in (
        lambda: run_study(make_spec("budget.trials=3"), settings, Silent(), "inline"),
        lambda: extend_study("last", settings, Silent(), "inline", trials="+1"),
    ):
        snapshot = drive()
        stored = load_study(settings, "last")
        assert stored.row.ended_at == pytest.approx(snapshot.row.ended_at, abs=5)
        row = replace(snapshot.row, ended_at=stored.row.ended_at)
        assert replace(stored, trials=()) == replace(snapshot, row=row, trials=())
        ends = [[(trial.number, trial.state, trial.params) for trial in each.trials] for each in (stored, snapshot)]
        assert ends[0] == ends[1]


def test_the_test_split_is_read_once_for_each_best_trial(settings, monkeypatch):
    tested = []

    def evaluate(plan, trial, checkpoint):
        tested.append(trial.number)
        return evaluate_checkpoint(plan, trial, checkpoint)

    monkeypatch.setattr(inline, "evaluate_checkpoint", evaluate)
    middling, bad, good = ({"lr": lr} for lr in (0.01, 1e-4, 0.1))
    spec = make_spec(f"search.enqueue={[middling, bad, good]}", "budget.trials=1", space="\n  lr: [1e-4, 0.01, 0.1]\n")
    results = [run_study(spec, settings, Silent(), "inline").result]
    for _ in range(2):
        results.append(extend_study(results[0].study_id, settings, Silent(), "inline", trials="+1").result)
    result = results[-1]
    assert [one.best.trial for one in results] == [0, 0, 2]
    assert tested == [0, 2]
    assert [one.test_trial for one in results] == [0, 0, 2]
    assert [one.test_count for one in results[:2]] == ["the only look"] * 2
    assert [look.trial for look in result.looks] == [0, 2]
    assert result.test_count.startswith("look 2; look 1 was ")
    assert load_study(settings, result.study_id).result == result


@pytest.mark.parametrize("runner", ["inline", "ray"])
def test_range_tests_come_before_the_search(settings, runner):
    space = "\n  optimizer: [sgd, adam]\n  lr: {range_test: {per: [optimizer], steps: 60}}\n"
    listener = Silent()
    result = run_study(make_spec("budget.trials=6", space=space), settings, listener, runner).result
    back = load_study(settings, result.study_id)
    assert len(back.calibration.bounds) == 2
    for trial in back.trials:
        bounds = back.calibration.bounds_for(trial.params)
        assert bounds.low <= trial.params["lr"] <= bounds.high
    assert any("range tests cost as much as" in note for note in listener.notes)
    assert load_spec(result.paths["best_config"]).space["lr"].value == result.best.params["lr"]
    client, runs = mlflow_runs(settings, "small")
    parent = next(run for run in runs if "dialin.trial" not in run.data.tags)
    files = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert files == {"best_config.yaml", "calibration.json", "range_tests.svg"}


def test_the_best_configuration_trains_to_the_same_result(settings, tmp_path):
    spec = load_spec(
        "digits",
        ["budget.trials=3", "budget.epochs=2", "objective.samples=300", "width=8", "early_stopping=off"],
    )
    first = run_study(spec, settings, Silent(), "inline").result
    again = run_study(load_spec(first.paths["best_config"]), settings, Silent(), "inline").result
    assert again.best.value == first.best.value
    assert again.best.params == first.best.params
    assert again.test == first.test


def test_one_seed_gives_the_same_study(settings):
    results = [run_study(make_spec("search.seed=5"), settings, Silent(), "inline").result for _ in range(2)]
    assert results[0].study_id != results[1].study_id
    trials = [load_study(settings, result.study_id).trials for result in results]
    assert [(t.params, t.values, t.state) for t in trials[0]] == [(t.params, t.values, t.state) for t in trials[1]]


def broken_spec(tmp_path, failures):
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    path = tmp_path / "small.npz"
    np.savez(path, x_train=images, y_train=np.arange(40) % 2, x_test=images, y_test=np.arange(40) % 2)
    text = f"name: broken\nobjective: {{dataset: 'npz:{path}'}}\nspace: {{width: 4, lr: {{min: 0.01, max: 0.1}}}}\n"
    return parse_spec(text + f"budget: {{trials: 8, epochs: 2, failures: {failures}}}\nearly_stopping: off\n")


def test_trials_that_raise_fail_alone_and_too_many_end_the_study(settings, tmp_path, monkeypatch):
    def explode(self):
        raise MemoryError("out of memory, on purpose")

    monkeypatch.setattr("dialin.training.run.ImageRun.epoch", explode)
    listener = Silent()
    result = run_study(broken_spec(tmp_path, failures=3), settings, listener, "inline").result
    assert result.state == "failed"
    assert result.reason == (
        "3 of 3 trials failed: MemoryError: out of memory, on purpose "
        "(none had reported an epoch, so no more were tried)"
    )
    assert result.trials["failed"] == 3
    back = load_study(settings, "broken")
    assert back.trials[0].reason == "MemoryError: out of memory, on purpose"
    log = OutputFolder(settings.out).study(result.study_id).logs / "trial-0000.log"
    assert "in explode" in log.read_text()
    _, runs = mlflow_runs(settings, "broken")
    assert {run.info.status for run in runs} == {"FAILED"}


def test_an_interrupt_closes_the_trials_and_keeps_the_best_so_far(settings, monkeypatch):
    from dialin.objectives.synthetic import SyntheticRun

    train = SyntheticRun.epoch
    trained = []

    def interrupted(self):
        trained.append(1)
        if len(trained) == 25:
            raise KeyboardInterrupt
        return train(self)

    monkeypatch.setattr(SyntheticRun, "epoch", interrupted)
    result = run_study(make_spec(), settings, Silent(), "inline").result
    assert (result.state, result.epochs["trained"]) == ("interrupted", 24)
    assert result.best is not None
    back = load_study(settings, result.study_id)
    assert "running" not in {trial.state.value for trial in back.trials}
    assert back.row.state == "interrupted"
    monkeypatch.undo()
    resumed = resume_study("last", settings, Silent(), "inline").result
    assert (resumed.study_id, resumed.state) == (result.study_id, "complete")
    assert sum(resumed.trials.values()) == 12
    _, runs = mlflow_runs(settings, "small")
    assert len(runs) == 13
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}
    with pytest.raises(ConflictError, match="is complete; add to its budget with: dialin extend"):
        resume_study("last", settings, Silent(), "inline")


def test_a_resumed_study_comes_to_what_it_would_have_come_to(settings, tmp_path, monkeypatch):
    """Random search proposes the same whatever happens in between, so every trial is as it would have been."""
    from dialin.objectives.synthetic import SyntheticRun

    spec, train, trained = make_spec("search.sampler=random"), SyntheticRun.epoch, []
    straight = run_study(spec, Settings.read({}, out=str(tmp_path / "straight")), Silent(), "inline").result

    def interrupted(self):
        trained.append(1)
        if len(trained) in (4, 11, 23):
            raise KeyboardInterrupt
        return train(self)

    monkeypatch.setattr(SyntheticRun, "epoch", interrupted)
    result = run_study(spec, settings, Silent(), "inline").result
    for _ in range(3):
        assert result.state == "interrupted"
        result = resume_study("last", settings, Silent(), "inline").result
    assert result.state == "complete"
    assert result.best == straight.best
    assert result.trials == straight.trials
    assert result.test == straight.test


def test_an_extended_study_goes_on(settings):
    first = run_study(make_spec("early_stopping.doctor=off"), settings, Silent(), "inline").result
    second = extend_study("last", settings, Silent(), "inline", trials="+4", epochs="27").result
    assert second.state == "complete"
    back = load_study(settings, first.study_id)
    fresh = [trial for trial in back.trials if trial.continues is None]
    longer = [trial for trial in back.trials if trial.continues is not None]
    assert len(fresh) == 16
    assert longer
    for trial in longer:
        assert trial.began == 9
        assert back.trials[trial.continues].state.value == "complete"
        assert trial.params == back.trials[trial.continues].params
        assert min(trial.values) == 10
    assert second.best.value >= first.best.value
    _, runs = mlflow_runs(settings, "small")
    assert len(runs) == len(back.trials) + 1
    assert {run.info.status for run in runs} == {"FINISHED", "KILLED"}


def test_a_study_learns_from_another_and_keeps_its_id(settings):
    first = run_study(make_spec("search.sampler=random"), settings, Silent(), "inline").result
    second = run_study(make_spec("search.warm_start=[small]", "budget.trials=4"), settings, Silent(), "inline").result
    assert load_study(settings, second.study_id).spec.search.warm_start == [first.study_id]
    with pytest.raises(NotFoundError, match="no study 'smoll'"):
        run_study(make_spec("search.warm_start=[smoll]"), settings, Silent(), "inline")


def test_a_second_driver_is_refused_while_the_first_lives(settings):
    class Second(Silent):
        error = None

        def receive(self, event):
            if isinstance(event, EpochReported) and self.error is None:
                with pytest.raises(ConflictError, match=f"is being driven by process {os.getpid()} on") as caught:
                    resume_study("last", settings, Silent(), "inline")
                self.error = caught.value
                with pytest.raises(ConflictError, match="which writes it"):
                    sync_study(settings, "last")

    listener = Second()
    assert run_study(make_spec(), settings, listener, "inline").result.state == "complete"
    assert listener.error is not None
    assert not sync_study(settings, "last")


def test_a_study_whose_spool_is_gone_is_in_mlflow_once_all_the_same(settings):
    from mlflow import MlflowClient

    study = run_study(make_spec("budget.trials=3"), settings, Silent(), "inline").result.study_id
    shutil.rmtree(settings.out / "studies" / study / "spool")
    back = load_study(settings, study)
    assert "the study's event log is gone" in lag_line(settings, study)
    assert f"`dialin sync {study}` writes what is missing" in lag_line(settings, study)
    client = MlflowClient(tracking_uri=f"sqlite:///{settings.out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("small").experiment_id
    before = {run.info.run_id: run.data.params for run in client.search_runs([experiment])}
    (first, *_) = client.search_runs([experiment], "tags.`dialin.trial` = '0'")
    client.delete_run(first.info.run_id)  # as a person might: it stays deleted
    assert not sync_study(settings, study)
    after = {run.info.run_id: run for run in client.search_runs([experiment])}
    assert set(after) == set(before) - {first.info.run_id}
    for run in after.values():
        trial = run.data.tags.get("dialin.trial")
        assert run.info.status in ("FINISHED", "KILLED")
        if trial is not None:
            points = client.get_metric_history(run.info.run_id, "val_accuracy")
            values = back.trials[int(trial)].values
            assert sorted((point.step, point.value) for point in points) == sorted(values.items())
    assert lag_line(settings, study) == ""


def test_two_extensions_that_have_read_the_same_budget_do_not_both_count_as_done(settings, monkeypatch):
    study = run_study(make_spec(), settings, Silent(), "inline").result.study_id
    acquire = session.acquire

    def acquire_late(*arguments):
        """Another one is through between the look at the study and the lease."""
        monkeypatch.setattr(session, "acquire", acquire)
        extend_study(study, settings, Silent(), "inline", trials="+1")
        return acquire(*arguments)

    monkeypatch.setattr(session, "acquire", acquire_late)
    with pytest.raises(
        ConflictError,
        match=f"study {study} was changed by another command at the same time; check its state and try again",
    ):
        extend_study(study, settings, Silent(), "inline", trials="+1")
    with Studies(settings.database) as studies:
        assert studies.find(study).state == "complete"
    extended = extend_study(study, settings, Silent(), "inline", trials="+1").result
    assert sum(extended.trials.values()) == make_spec().budget.trials + 2


@pytest.mark.parametrize(
    ("limit", "is_said"), [("budget.hours=1", True), ("budget.epoch_minutes=5", True), ("", False)]
)
def test_without_ray_a_study_says_which_limits_do_not_hold(settings, limit, is_said):
    listener = Silent()
    run_study(make_spec("budget.trials=1", *filter(None, [limit])), settings, listener, "inline")
    assert any("a trial cannot be ended from outside" in note for note in listener.notes) is is_said


def test_the_hours_and_the_target_end_a_study(settings):
    result = run_study(make_spec("budget.target=0.3"), settings, Silent(), "inline").result
    assert result.state == "complete"
    assert result.reason.startswith("budget.target: 0.3 was reached by trial")
    assert result.best.value >= 0.3
    assert result.test is not None


@pytest.mark.parametrize(
    ("overrides", "runner", "error"),
    [
        (("objective.dataset='npz:/nowhere.npz'",), "inline", DataError),
        (("resources.cpus=4096",), "inline", SpecError),
        ((), "rya", UsageError),
    ],
)
def test_what_cannot_start_leaves_nothing_behind(settings, overrides, runner, error):
    with pytest.raises(error):
        run_study(make_spec(*overrides), settings, Silent(), runner)
    assert not (settings.out / "dialin.db").exists()


def test_an_error_in_the_middle_marks_the_study_failed(settings, monkeypatch):
    monkeypatch.setattr("dialin.study_flow.finish.write_best_config", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_study(make_spec("budget.trials=2"), settings, Silent(), "inline")
    row = load_study(settings, "small").row
    assert (row.state, row.reason) == ("failed", "ZeroDivisionError: division by zero")


def test_mlflow_that_cannot_be_had_does_not_stop_a_study(settings, monkeypatch):
    settings.out.mkdir()
    (settings.out / "mlflow.db").mkdir()  # no database can be made here
    monkeypatch.setattr("dialin.study_flow.finish.MIRROR_SECONDS", 3.0)
    listener = Silent()
    result = run_study(make_spec("budget.trials=3"), settings, listener, "inline").result
    assert result.state == "complete"
    assert any("MLflow lags by" in note for note in listener.notes)
    wait_for(lambda: "(" in lag_line(settings, "last"))  # the recorder goes on, and says why it cannot
    line = lag_line(settings, "last")
    assert line.startswith(f"MLflow lags by {mirror_lag_of(settings, list_rows(settings)[0]).events} events (")
    assert line.endswith(f"; `dialin sync {result.study_id}` writes what is missing")
    shutil.rmtree(settings.out / "mlflow.db")


def example(tmp_path):
    """The example of the language's manual as files, word for word; its specification's path."""
    section = (ROOT / "search_spaces" / "README.md").read_text().partition("## A function of your own")[2]
    specification, train = (part.partition("```")[0] for part in re.split(r"```(?:yaml|python)\n", section)[1:3])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "train.py").write_text(train)
    (folder / "mine.yaml").write_text(specification)
    return folder / "mine.yaml"


@pytest.mark.parametrize("runner", ["inline", "ray"])
def test_the_manuals_function_of_your_own(settings, tmp_path, runner):
    file = example(tmp_path)
    result = run_study(load_spec(file), settings, Silent(), runner).result
    assert (result.state, result.metric, result.test, result.trials["failed"]) == ("complete", "accuracy", None, 0)
    assert result.best.value > 0.9
    back = load_study(settings, result.study_id)
    assert [list(trial.params) for trial in back.trials] == [["lr", "batch_size", "decay"]] * 8
    client, runs = mlflow_runs(settings, "logistic")
    parent = next(run for run in runs if "dialin.trial" not in run.data.tags)
    assert parent.data.params["python"] == f"{file.parent}/train.py:train"
    assert {name for run in runs if run is not parent for name in run.data.metrics} == {"accuracy", "norm"}
    assert result.epochs["trained"] == sum(
        len(client.get_metric_history(run.info.run_id, "norm")) for run in runs if run is not parent
    )
    again = run_study(load_spec(result.paths["best_config"]), settings, Silent(), "inline").result
    assert again.best == replace(result.best, trial=0)


def test_a_study_of_ones_own_goes_on_where_it_was_interrupted(settings, tmp_path):
    """Interrupted twice, on Ray, in the midst of trials and with trials that wait: it comes to what it would have."""

    class Interrupting(Silent):
        left = 9

        def receive(self, event):
            self.left -= isinstance(event, EpochReported)
            if self.left == 0 and isinstance(event, EpochReported):
                os.kill(os.getpid(), signal.SIGINT)

    file = example(tmp_path)
    spec = load_spec(file, ["search.sampler=random"])
    straight = run_study(spec, Settings.read({}, out=str(tmp_path / "straight")), Silent(), "inline").result
    result = run_study(spec, settings, Interrupting(), "ray").result
    assert result.state == "interrupted"
    assert resume_study("last", settings, Interrupting(), "ray").result.state == "interrupted"
    result = resume_study("last", settings, Silent(), "ray").result
    # Several trials come to the same value; which of them are trained to their end depends on who was at a rung first.
    assert (result.state, result.best.value) == ("complete", straight.best.value)
    before = load_study(Settings.read({}, out=str(tmp_path / "straight")), straight.study_id).trials
    for one, other in zip(load_study(settings, result.study_id).trials, before, strict=True):
        both = set(one.values) & set(other.values)
        assert both
        assert {epoch: one.values[epoch] for epoch in both} == {epoch: other.values[epoch] for epoch in both}


def own(tmp_path, body, more=""):
    (tmp_path / "own.py").write_text(f"def train(config, trial):\n{textwrap.indent(body, '    ')}")
    (tmp_path / "own.yaml").write_text(
        "name: own\nobjective: {python: 'own.py:train'}\nspace: {x: {min: 0.0, max: 1.0}}\n"
        f"budget: {{trials: 4, epochs: 9}}\n{more}"
    )
    return load_spec(tmp_path / "own.yaml")


def test_a_function_that_returns_early_completes_its_trial_for_good(settings, tmp_path):
    body = "for epoch in range(trial.epoch + 1, 4):\n    trial.report(epoch, config['x'] + epoch, extra=epoch)\n"
    result = run_study(own(tmp_path, body, "early_stopping: off\n"), settings, Silent(), "inline").result
    assert (result.trials["complete"], result.best.epoch) == (4, 3)
    back = load_study(settings, result.study_id)
    assert {trial.reason for trial in back.trials} == {"train returned after epoch 3 of 9"}
    assert {trial.metrics["extra"] for trial in back.trials} == {3.0}
    extended = extend_study("last", settings, Silent(), "inline", trials="5", epochs="12").result
    assert extended.trials["complete"] == 5  # one more, and none of the others again


def test_a_function_that_saves_nothing_starts_again_and_no_epoch_counts_twice(settings, tmp_path):
    body = f"""
with open({str(tmp_path / "begun")!r}, "a") as file:
    file.write("x")
for epoch in range(1, 10):
    trial.report(epoch, config["x"])
    if trial.should_stop:
        return
"""
    result = run_study(own(tmp_path, body), settings, Silent(), "inline").result
    assert result.state == "complete"
    assert result.epochs["trained"] == sum(len(t.values) for t in load_study(settings, result.study_id).trials)
    assert len((tmp_path / "begun").read_text()) > 4


@pytest.mark.parametrize("runner", ["inline", "ray"])
def test_what_a_function_of_ones_own_raises_is_the_trials_failure(settings, tmp_path, runner):
    # Half of a surrogate pair ends a worker of Ray's where it is passed on; a long line stops readers of the event log.
    text = "f'no {trial.epochs} ' + chr(0xDCFF) + chr(27) + '[2J' + chr(0) + 3_000_000 * 'x'"
    body = f"class OwnError(Exception): ...\nraise OwnError({text})"
    spec = own(tmp_path, body, "resources: {concurrency: 1}\n")
    result = run_study(
        spec.model_copy(update={"budget": spec.budget.model_copy(update={"failures": 0})}), settings, Silent(), runner
    ).result
    # A file whose name another module of this process has gets a name of its own.
    told = re.escape(r".train.<locals>.OwnError: no 9 \udcff\x00xxx")
    assert re.match(rf"1 of 1 trial failed: own(_[0-9a-f]{{8}})?{told}", result.reason)
    assert re.search(
        r"x\[\.\.\. [\d,]+ characters cut \.\.\.\]", load_study(settings, result.study_id).trials[0].reason
    )
    log = OutputFolder(settings.out).study(result.study_id).logs / "trial-0000.log"
    assert f'File "{tmp_path}/own.py", line 3, in train' in log.read_text()
    assert log.stat().st_size < 300_000
    part = read_events(OutputFolder(settings.out).study(result.study_id).events, 0)
    assert part.damaged == 0
    assert [event.kind for event in part.events[-2:]] == ["trial_ended", "study_ended"]


class DamagesTheBest:
    """An executor that damages a checkpoint before it is evaluated."""

    def __init__(self, executor):
        self._executor = executor

    def __getattr__(self, name):
        return getattr(self._executor, name)

    def evaluate(self, trial_plan, trial, checkpoint):
        state = checkpoint_folder(trial_plan.checkpoints, checkpoint) / "state.json"
        state.write_text(state.read_text()[:10])
        return self._executor.evaluate(trial_plan, trial, checkpoint)


@pytest.mark.parametrize("executor", ["inline", "ray"])
def test_a_study_whose_best_checkpoint_is_damaged_is_complete_without_a_test(settings, executor):
    """Everything is trained and stored by then; only the evaluation on the test split is missing."""
    damaging = DamagesTheBest(executor_of(executor))
    result = run_study(make_spec("budget.trials=4"), settings, Silent(), damaging).result
    assert (result.state, result.test) == ("complete", None)
    reason = load_study(settings, result.study_id).row.reason
    assert "the best trial could not be tested: checkpoint" in reason
    assert reason.endswith("is damaged: state.json was changed")
    assert Path(result.paths["best_config"]).exists()


def test_mlflow_keeps_no_score_of_an_earlier_look_beside_another_best_trial(settings):
    done = {1: 0.5, 2: 0.6}
    records = [
        TrialRecord(0, TrialState.COMPLETE, {}, 0, done),
        TrialRecord(1, TrialState.COMPLETE, {}, 1, {**done, 2: 0.9}),
    ]
    folder = OutputFolder(settings.out).study("small-abc")
    for best, score, trial in ((records[:1], 0.55, "0"), (records, math.nan, "none")):
        result = summarize(make_spec(), "small-abc", "interrupted", best, looks=[Look(0, {"accuracy": 0.55})])
        ended = ending_event(make_spec(), result, best, folder, None)
        assert ended.metrics["test_accuracy"] == pytest.approx(score, nan_ok=True)
        assert ended.tags["dialin.test_trial"] == trial
        assert ("0.5500" in ended.tags["mlflow.note.content"]) is (trial == "0")
