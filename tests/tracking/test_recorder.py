"""The recorder against real MLflow on SQLite and over HTTP, and against every failure between two of its calls."""

from __future__ import annotations

import math
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from dialin.events.log import read_events
from dialin.paths import sqlite_url
from dialin.tracking import mlflow_runs, recorder
from dialin.tracking.mirror import ui_command
from dialin.tracking.mlflow_runs import MOST_REFUSALS
from dialin.tracking.recorder import Finishing, run
from dialin.tracking.recorder_process import recorder_command
from dialin.tracking.replicate import Replicator
from tests import others
from tests.tracking.studies import (
    ENDS,
    Mirrored,
    alive,
    client_of,
    contents,
    drain,
    fill,
    kill_recorder,
    turn_on,
    wait_for,
)

pytestmark = others.MLFLOW


def test_a_study_as_it_stands_in_mlflow(database, tmp_path):
    fill(tmp_path / "spool")
    recorder = Replicator(tmp_path / "spool", client_of(database), tmp_path / "artifacts")
    drain(recorder)
    assert recorder.done
    parent = contents(client_of(database), 5, 3)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "digits-abc"
    assert parent.data.params == {"sampler": "tpe", "seed": "0"}
    assert parent.data.metrics == {"best_val_accuracy": 4.3}
    assert (parent.data.tags["dialin.best_trial"], parent.data.tags["dialin.state"]) == ("4", "complete")


def test_what_is_not_finite_is_shown_as_such(database, tmp_path):
    mirror = fill(tmp_path / "spool", trials=0, end=False)
    mirror.trial_started(0, {})
    mirror.epoch(0, 1, {"train_loss": math.nan, "val_loss": math.inf})
    client = client_of(database)
    drain(Replicator(tmp_path / "spool", client, None))
    found = client.search_runs(["1"], "tags.`dialin.trial` = '0'")[0]
    assert math.isnan(client.get_metric_history(found.info.run_id, "train_loss")[0].value)
    assert client.get_metric_history(found.info.run_id, "val_loss")[0].value > 1e300


def test_files_go_to_the_parent_run(database, tmp_path):
    file = tmp_path / "best_config.yaml"
    file.write_text("name: digits")
    mirror = fill(tmp_path / "spool", trials=1, end=False)
    mirror.study_ended("complete", "", {}, {}, [str(file), str(tmp_path / "gone.yaml")])
    client = client_of(database)
    drain(Replicator(tmp_path / "spool", client, tmp_path / "artifacts"))
    parent = contents(client, 1, 3)
    assert [entry.path for entry in client.list_artifacts(parent.info.run_id)] == ["best_config.yaml"]
    assert list((tmp_path / "artifacts" / "digits").rglob("best_config.yaml"))
    assert (tmp_path / "artifacts").stat().st_mode & 0o077 == 0  # nobody else reads them, or plants a link


def test_a_copied_folder_writes_nothing_into_the_original(database, tmp_path):
    (tmp_path / "a").mkdir()
    file = tmp_path / "best_config.yaml"
    file.write_text("name: original")
    mirror = fill(tmp_path / "a" / "spool", trials=1, end=False)
    mirror.study_ended("complete", "", {}, {}, [str(file)])
    client = client_of(database)
    drain(Replicator(tmp_path / "a" / "spool", client, tmp_path / "a" / "mlflow-artifacts"))
    (kept,) = (tmp_path / "a" / "mlflow-artifacts").rglob("best_config.yaml")

    shutil.copytree(tmp_path / "a", tmp_path / "b")  # its database too says that the artifacts lie in a
    file.write_text("name: copy")
    mirror = fill(tmp_path / "b" / "spool", trials=1, end=False)
    mirror.study_ended("complete", "", {}, {}, [str(file)])
    drain(Replicator(tmp_path / "b" / "spool", client, tmp_path / "b" / "mlflow-artifacts"))
    assert kept.read_text() == "name: original"
    tags = contents(client, 1, 3).data.tags
    assert "which was copied or moved" in tags["dialin.left_out.best_config"]


@pytest.mark.parametrize("has_folder", [True, False], ids=["where the server keeps them", "nowhere to write"])
def test_files_of_an_experiment_that_a_server_made(database, tmp_path, has_folder):
    """Its artifact location is one that only the server can resolve; the database is the server's own."""
    from mlflow.exceptions import MlflowException

    client = client_of(database)
    client.create_experiment("digits", artifact_location="mlflow-artifacts:/1")
    file = tmp_path / "best_config.yaml"
    file.write_text("name: digits")
    mirror = fill(tmp_path / "spool", trials=2, end=False)
    mirror.study_ended("complete", "", {}, {}, [str(file)])
    recorder = Replicator(tmp_path / "spool", client, tmp_path / "artifacts" if has_folder else None)
    for _ in range(0 if has_folder else mlflow_runs.MOST_REFUSALS - 1):
        with pytest.raises(MlflowException, match="mlflow-artifacts"):
            recorder.step()
    recorder.step()
    assert recorder.done
    parent = contents(client, 2, 3)
    assert parent.info.status == "FINISHED"
    written = tmp_path / "artifacts" / "1" / parent.info.run_id / "artifacts" / "best_config.yaml"
    assert written.exists() is has_folder
    assert ("dialin.left_out.best_config" in parent.data.tags) is not has_folder


class AwayFromTheFileOn:
    """A client whose MLflow goes away when a file is to be put on a run."""

    def __init__(self, client):
        self.client, self.is_away, self.has_gone = client, False, False

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*arguments, **named):
            if name == "log_artifact" and not self.has_gone:
                self.is_away = self.has_gone = True
            if self.is_away:
                raise ConnectionError(f"{name} was not sent")
            return method(*arguments, **named)

        return call


def test_a_file_waits_for_an_mlflow_that_is_away(database, tmp_path):
    file = tmp_path / "best_config.yaml"
    file.write_text("name: digits")
    mirror = fill(tmp_path / "spool", trials=1, end=False)
    mirror.study_ended("complete", "", {}, {}, [str(file)])
    client = AwayFromTheFileOn(client_of(database))
    recorder = Replicator(tmp_path / "spool", client, tmp_path / "artifacts")
    for _ in range(2 * mlflow_runs.MOST_REFUSALS):
        with pytest.raises(ConnectionError):
            recorder.step()
    client.is_away = False
    recorder.step()
    assert recorder.done
    parent = contents(client, 1, 3)
    assert [entry.path for entry in client.list_artifacts(parent.info.run_id)] == ["best_config.yaml"]


@pytest.mark.parametrize("planted", ["file", "folder"])
def test_files_of_a_run_that_a_server_made_are_written_through_no_link(database, tmp_path, planted):
    """The server is down, and its experiment's artifacts go where it keeps them."""
    config, outside = tmp_path / "best_config.yaml", tmp_path / "outside" / "best_config.yaml"
    config.write_text("name: digits")
    outside.parent.mkdir()
    outside.write_text("somebody's")
    client = client_of(database)
    client.create_experiment("digits", artifact_location="mlflow-artifacts:/9")
    mirror = fill(tmp_path / "spool", trials=1, end=False)
    recorder = Replicator(tmp_path / "spool", client, tmp_path / "artifacts")
    drain(recorder)
    experiment = client.get_experiment_by_name("digits").experiment_id
    parent = next(run_ for run_ in client.search_runs([experiment]) if "dialin.trial" not in run_.data.tags)
    root = tmp_path / "artifacts" / "9" / parent.info.run_id
    if planted == "file":
        (root / "artifacts").mkdir(parents=True)
        (root / "artifacts" / "best_config.yaml").symlink_to(outside)
    else:
        root.mkdir(parents=True)
        (root / "artifacts").symlink_to(outside.parent)
    mirror.study_ended("complete", "", {}, {}, [str(config)])
    for _ in range(MOST_REFUSALS):
        try:
            drain(recorder)
        except Exception:  # noqa: BLE001  it is tried a few times, and left out then
            continue
    assert recorder.done
    assert outside.read_text() == "somebody's"
    if planted == "file":
        assert (root / "artifacts" / "best_config.yaml").read_text() == "name: digits"


def test_a_resumed_study_goes_on_in_the_same_runs(database, tmp_path):
    mirror = Mirrored(tmp_path / "spool", "unused")
    client = client_of(database)
    mirror.study_started("digits-abc", "digits", {"seed": 0}, {})
    mirror.trial_started(0, {"lr": 0.1, "nesterov": True, "optimizer": "sgd"})
    mirror.epoch(0, 1, {"val_accuracy": 0.1})
    mirror.epoch(0, 2, {"val_accuracy": 0.2})
    mirror.trial_ended(0, "interrupted", "the study was interrupted")
    mirror.study_ended("interrupted", "", {}, {}, [])
    drain(Replicator(tmp_path / "spool", client, None))
    mirror.study_started("digits-abc", "digits", {"seed": 0}, {})
    mirror.trial_started(0, {"lr": 0.1, "nesterov": True, "optimizer": "sgd"})
    recorder = Replicator(tmp_path / "spool", client, None)
    drain(recorder)
    assert {run_.info.status for run_ in client.search_runs(["1"])} == {"RUNNING"}
    assert {run_.data.tags["dialin.reason"] for run_ in client.search_runs(["1"])} == {"went on"}
    assert not recorder.done
    mirror.epoch(0, 2, {"val_accuracy": 9.0})  # repeated from an older checkpoint
    mirror.epoch(0, 3, {"val_accuracy": 0.3})
    mirror.trial_ended(0, "complete", "reason 0")
    mirror.study_ended("complete", "", {}, {}, [])
    drain(recorder)
    contents(client, 1, 3)


class Flaky:
    """A client that fails at some calls: before the call took effect, or after it, as when an answer is lost."""

    def __init__(self, client, failures):
        self.client, self.failures, self.calls = client, failures, 0

    def __getattr__(self, name):
        method = getattr(self.client, name)

        def call(*arguments, **named):
            self.calls += 1
            how = self.failures.get(self.calls)
            if how == "before":
                raise ConnectionError(f"{name} was not sent")
            result = method(*arguments, **named)
            if how == "after":
                raise ConnectionError(f"the answer to {name} was lost")
            return result

        return call


def record_with(database, folder, failures, restart):
    """Run recorders over the spool until done, a new one after each failure if `restart`; the number of calls."""
    flaky = Flaky(client_of(database), failures)
    recorder = Replicator(folder, flaky, None)
    while not recorder.done:
        try:
            recorder.step(limit=7)
        except ConnectionError:
            if restart:
                recorder = Replicator(folder, flaky, None)
    return flaky.calls


@pytest.mark.parametrize("restart", [False, True], ids=["same process", "restarted"])
def test_a_failure_at_any_one_call_loses_and_doubles_nothing(migrated, tmp_path, restart):
    calls = None
    generator = random.Random(restart)
    at = 0
    while calls is None or at <= calls:
        folder = tmp_path / f"{at}"
        folder.mkdir()
        shutil.copy(migrated, folder / "mlflow.db")
        fill(folder / "spool", trials=3, epochs=2)
        failures = {at: generator.choice(["before", "after"])} if at else {}
        made = record_with(folder / "mlflow.db", folder / "spool", failures, restart)
        contents(client_of(folder / "mlflow.db"), 3, 2)
        calls = calls or made
        at += 2 if restart else 3


@pytest.mark.parametrize("seed", range(6))
def test_many_failures_lose_and_double_nothing(database, tmp_path, seed):
    generator = random.Random(seed)
    fill(tmp_path / "spool", trials=5, epochs=3)
    failures = {at: generator.choice(["before", "after"]) for at in range(1, 200) if generator.random() < 0.15}
    record_with(database, tmp_path / "spool", failures, restart=seed % 2 == 0)
    contents(client_of(database), 5, 3)


def test_it_gives_up_only_when_told_to_finish(tmp_path):
    fill(tmp_path / "spool", trials=1)
    down = Flaky(object(), {})
    recorder = Replicator(tmp_path / "spool", down, None)
    finishing = Finishing()
    finishing.ask(patience_seconds=0.0)
    assert run(recorder, finishing, turn_on(tmp_path / "spool", finishing)) == 3
    assert Mirrored(tmp_path / "spool", "unused").lag() > 0


def test_the_process_ends_by_itself_and_nothing_lags(database, tmp_path):
    mirror = fill(tmp_path / "spool", trials=0, end=False)
    mirror = Mirrored(tmp_path / "spool", sqlite_url(database), tmp_path / "artifacts")
    mirror.start()
    for trial in range(5):
        mirror.trial_started(trial, {"lr": 0.1, "nesterov": True, "optimizer": "sgd"})
        for epoch in range(1, 4):
            mirror.epoch(trial, epoch, {"val_accuracy": trial + epoch / 10, "lr": 0.1})
        mirror.trial_ended(trial, list(ENDS)[trial % len(ENDS)], f"reason {trial}")
    assert mirror.lag() > 0
    mirror.study_ended("complete", "", {}, {}, [])
    assert mirror.close(60)
    assert mirror._recorder._process.returncode == 0
    contents(client_of(database), 5, 3)


def test_a_killed_recorder_leaves_nothing_that_the_next_does_not_mend(database, tmp_path):
    fill(tmp_path / "spool", trials=40, epochs=9)
    command = recorder_command(tmp_path / "spool", sqlite_url(database), None)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    client = client_of(database)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        experiment = client.get_experiment_by_name("digits")
        if experiment and len(client.search_runs([experiment.experiment_id])) > 5:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    assert subprocess.run(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120).returncode == 0
    contents(client, 40, 9)


def test_a_dead_driver_lets_the_recorder_finish(database, tmp_path):
    """The driver's end of the pipe closes when it dies; what it had spooled is written all the same."""
    code = (
        "import os, sys, pathlib; from tests.tracking.studies import Mirrored; "
        "from tests.tracking.studies import fill; folder = pathlib.Path(sys.argv[1]); "
        "mirror = Mirrored(folder, sys.argv[2]); fill(folder, end=False); mirror.start(); "
        "print(mirror._recorder._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    driver = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spool"), sqlite_url(database)], capture_output=True, text=True
    )
    pid = int(driver.stdout)
    wait_for(lambda: not alive(pid))
    parent = contents(client_of(database), 5, 3)
    assert parent.info.status == "KILLED"
    assert parent.data.tags["dialin.reason"] == "the driver is gone"


def test_a_server_that_dies_and_comes_back(server, database, tmp_path):
    start, stop = server
    uri = start()
    fill(tmp_path / "early", trials=0, end=False)
    mirror = Mirrored(tmp_path / "early", uri)
    mirror.start()
    wait_for(lambda: mirror.lag() == 0)
    stop()
    for trial in range(3):
        mirror.trial_started(trial, {"lr": 0.1, "nesterov": True, "optimizer": "sgd"})
        for epoch in range(1, 3):
            mirror.epoch(trial, epoch, {"val_accuracy": trial + epoch / 10})
        mirror.trial_ended(trial, list(ENDS)[trial], f"reason {trial}")
    mirror.study_ended("complete", "", {}, {}, [])
    start()
    mirror.close(90)  # a busy machine's new server may be silent for longer than it waits; the recorder continues
    wait_for(lambda: mirror.lag() == 0, 120)
    contents(client_of(database), 3, 2)


def test_the_command_that_opens_the_pages(monkeypatch, tmp_path):
    command = ui_command("sqlite:////x/mlflow.db")
    assert command.endswith("mlflow ui --backend-store-uri sqlite:////x/mlflow.db")
    program = command.split()[0]
    assert shutil.which(program)


def test_trials_of_more_points_than_a_call_takes(database, tmp_path):
    trials, epochs = 3, mlflow_runs.METRICS_A_CALL // 2 + 1
    fill(tmp_path / "spool", trials, epochs)
    client = client_of(database)
    recorder = Replicator(tmp_path / "spool", client, None)
    while recorder.step(limit=100_000):
        pass
    contents(client, trials, epochs)
    found = client.search_runs(["1"], "tags.`dialin.kind` = 'trial'")
    assert {run.data.tags["dialin.trial"]: run.data.metrics["val_accuracy"] for run in found} == {
        str(trial): trial + epochs / 10 for trial in range(trials)
    }


def test_a_point_that_is_there_already_is_one_point(database, tmp_path):
    """A recorder that lost its cursor writes it again, within a batch of others."""
    fill(tmp_path / "spool", trials=3)
    client = client_of(database)
    recorder = Replicator(tmp_path / "spool", client, None)
    recorder.step(limit=2)  # the study, and that the first trial started
    (first,) = client.search_runs(["1"], "tags.`dialin.trial` = '0'")
    event = next(event for event in read_events(tmp_path / "spool", 0, 100).events if event.kind == "epoch")
    client.log_metric(first.info.run_id, "val_accuracy", event.metrics["val_accuracy"], event.time, 1)
    drain(recorder)
    contents(client, 3, 3)


def test_what_comes_when_the_last_trial_has_ended_is_written_at_once(database, tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "PAUSE_SECONDS", 3600.0)
    mirror = fill(tmp_path / "spool", trials=1, end=False)
    finishing = Finishing()
    writer = Replicator(tmp_path / "spool", client_of(database), None)
    thread = threading.Thread(target=run, args=(writer, finishing, turn_on(tmp_path / "spool", finishing)), daemon=True)
    thread.start()
    wait_for(lambda: mirror.lag() == 0)
    mirror.trial_started(1, {"lr": 0.1, "nesterov": True, "optimizer": "sgd"})
    finishing.is_near = True
    wait_for(lambda: mirror.lag() == 0)
    finishing.ask(60)
    thread.join(60)


@pytest.mark.parametrize(("told", "is_near"), [(b"", False), (b"\n", True)])
def test_the_driver_tells_it_by_its_standard_input(told, is_near):
    script = (
        "from dialin.tracking.recorder import Finishing, watch_stdin; it = Finishing(); watch_stdin(it, 5.0); "
        "print(it.is_near, it.patience_seconds)"
    )
    done = subprocess.run([sys.executable, "-c", script], input=told, capture_output=True, check=True)
    assert done.stdout.split() == [str(is_near).encode(), b"5.0"]


def test_a_driver_hurries_a_recorder_that_is_no_more(database, tmp_path):
    fill(tmp_path / "spool", trials=1, end=False)
    mirror = Mirrored(tmp_path / "spool", sqlite_url(database))
    mirror.start()
    kill_recorder(mirror)
    mirror.hurry()
    mirror.study_ended("complete", "", {}, {}, [])
    assert mirror.close(90)  # another one wrote it all
    contents(client_of(database), 1, 3)
