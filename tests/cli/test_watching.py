"""A study that another process drives: followed, stopped, its logs and its best read."""

from __future__ import annotations

import gc
import io
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from dialin.cli import watching
from dialin.cli.watching import Follower, best_yaml, looks, stop_study, study_logs, watch_study
from dialin.errors import ConflictError, NoResultError, NotFoundError
from dialin.lifecycle import StudyState, TrialState
from dialin.paths import OutputFolder
from dialin.search.decision import Decision
from dialin.search.records import TrialRecord
from dialin.settings import Settings
from dialin.specification import to_yaml
from dialin.store.leases import Owner, acquire
from dialin.store.studies import Studies
from tests.client.wire import SPACE
from tests.factories import make_spec

LONG = SPACE.replace("synthetic}", "synthetic, epoch_seconds: 0.1}").replace("trials: 6", "trials: 500")


@pytest.fixture
def settings(tmp_path):
    return Settings.read({}, out=str(tmp_path / "out"))


@pytest.fixture
def row(settings):
    """A study that is said to run, and that nobody drives."""
    settings.out.mkdir()
    with Studies(settings.database) as studies:
        return studies.create("small", to_yaml(make_spec()))


@pytest.fixture
def driven(settings, tmp_path):
    """A process that drives a study of 500 trials, with one trial done."""
    (tmp_path / "long.yaml").write_text(LONG)
    command = [
        sys.executable,
        "-m",
        "dialin.cli.main",
        "run",
        "long.yaml",
        "--runner",
        "inline",
        "--out",
        str(settings.out),
    ]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "output").read_text()
            try:
                best_yaml(settings, "last")
                break
            except (NotFoundError, NoResultError, sa.exc.OperationalError):
                time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


class Heard(list):
    def trial_started(self, trial):
        self.append(("started", trial.number))

    def epoch_done(self, trial, epoch, value):
        self.append(("epoch", trial.number, epoch, value))

    def trial_ended(self, trial, outcome):
        self.append(("ended", trial.number, outcome.state.value))


BEGUN = TrialRecord(0, TrialState.RUNNING, {}, 1)
ONE = replace(BEGUN, values={1: 0.5})
PAUSED = replace(ONE, state=TrialState.WAITING, decision=Decision("pause", "unknown", detail="place 2"))
STOPPED = replace(PAUSED, state=TrialState.STOPPED, decision=Decision("stop", "study_ended"))
AGAIN = replace(ONE, state=TrialState.RUNNING)
DONE = replace(ONE, state=TrialState.COMPLETE, values={1: 0.5, 2: 0.6, 3: 0.7})


@pytest.mark.parametrize(
    ("looks_at", "heard"),
    [
        ([BEGUN], [("started", 0)]),
        ([BEGUN, BEGUN], [("started", 0)]),
        ([BEGUN, ONE], [("started", 0), ("epoch", 0, 1, 0.5)]),
        ([ONE, PAUSED], [("started", 0), ("epoch", 0, 1, 0.5), ("ended", 0, "waiting")]),
        (
            [PAUSED, AGAIN, DONE],
            [("started", 0), ("epoch", 0, 1, 0.5), ("ended", 0, "waiting"), ("started", 0),
             ("epoch", 0, 2, 0.6), ("epoch", 0, 3, 0.7), ("ended", 0, "complete")],
        ),
        # It went on and ended between two looks.
        (
            [PAUSED, DONE],
            [("started", 0), ("epoch", 0, 1, 0.5), ("ended", 0, "waiting"), ("started", 0),
             ("epoch", 0, 2, 0.6), ("epoch", 0, 3, 0.7), ("ended", 0, "complete")],
        ),
        ([PAUSED, STOPPED], [("started", 0), ("epoch", 0, 1, 0.5), ("ended", 0, "waiting"),
                                                          ("ended", 0, "stopped")]),
        ([replace(BEGUN, state=TrialState.WAITING)], [("ended", 0, "waiting")]),
    ],
)  # fmt: skip
def test_what_is_told_of_a_trial(looks_at, heard):
    listener = Heard()
    follower = Follower(listener)
    for record in looks_at:
        follower.take([record])
    assert listener == heard


def test_a_value_that_is_no_number_is_told_once():
    listener = Heard()
    follower = Follower(listener)
    for _ in range(2):
        follower.take([replace(BEGUN, values={1: math.nan})])
    assert [heard[0] for heard in listener] == ["started", "epoch"]


def test_a_study_is_watched_and_stopped(driven, settings, monkeypatch):
    file = io.StringIO()
    looked, stopped = [], []

    def sleep(seconds):
        looked.append(seconds)
        if "best val_accuracy" in file.getvalue() and not stopped:
            stopped.append(True)
            # From within its watching: nothing has to be timed.
            assert stop_study(settings, "last").row.state is StudyState.INTERRUPTED
        time.sleep(0.05)

    monkeypatch.setattr(watching, "looks", lambda *arguments: looks(*arguments, sleep))
    back = watch_study(settings, "last", Console(file=file, width=160))
    assert back.row.state is StudyState.INTERRUPTED
    assert driven.wait(60) == 130
    assert "500 trials of up to 3 epochs on synthetic" in file.getvalue()
    assert "best val_accuracy" in file.getvalue()
    assert set(looked) == {watching.POLL_SECONDS}
    with pytest.raises(ConflictError, match="is interrupted already; there is nothing to stop"):
        stop_study(settings, "last")
    assert watch_study(settings, "last", Console(file=file)).row.state is StudyState.INTERRUPTED


def test_a_driver_that_is_killed_while_it_is_to_stop(driven, settings, monkeypatch):
    def sleep(seconds):
        driven.kill()
        driven.wait(60)

    monkeypatch.setattr(watching, "_terminate", lambda *_: None)
    with pytest.raises(ConflictError, match="has ended without a word; nobody drives study mine-"):
        stop_study(settings, "last", sleep)


def test_the_best_of_a_running_study_and_its_file(driven, settings, dialin):
    assert best_yaml(settings, "last").startswith("# Best of study mine-")
    shown = json.loads(dialin("best", "last", "--yaml", "--json", "--out", str(settings.out), check=True).stdout)
    assert shown["yaml"].startswith("# Best of study mine-")
    done = dialin("stop", "last", "--out", str(settings.out))
    assert done.returncode == 0, done.stderr
    assert "is interrupted; go on with it: dialin resume mine-" in done.stdout
    study = done.stdout.split()[1]
    file = OutputFolder(settings.out).study(study).best_config
    assert best_yaml(settings, study) == file.read_text()
    assert dialin("watch", study, "--out", str(settings.out)).returncode == 130


def test_nobody_drives_it(settings, row):
    with pytest.raises(ConflictError, match=f"nobody drives study {row.id}; go on with it: dialin resume {row.id}"):
        stop_study(settings, row.id)
    slept = []
    with pytest.raises(ConflictError, match="nobody drives"):
        list(looks(settings, row.id, slept.append))
    assert len(slept) == 1  # a study that has just begun gets a second look
    with pytest.raises(NoResultError, match="no trial has reported a finite value yet"):
        best_yaml(settings, row.id)
    with pytest.raises(NotFoundError):
        stop_study(settings, "other")


def test_a_driver_on_another_host_is_left_alone(settings, row, monkeypatch):
    monkeypatch.setattr(Owner, "this_process", classmethod(lambda cls, job="": cls("elsewhere", 1, 1)))
    acquire(settings.database, row.id)
    with pytest.raises(ConflictError, match="driven by process 1 on elsewhere; stop it there"):
        stop_study(settings, row.id)


def test_a_driver_of_another_user(settings, row, monkeypatch):
    acquire(settings.database, row.id)

    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(watching.os, "kill", refuse)
    with pytest.raises(ConflictError, match=f"process {os.getpid()} of another user"):
        stop_study(settings, row.id)


def test_logs(settings, row):
    assert study_logs(settings, row.id, 10) == {}
    folder = OutputFolder(settings.out).study(row.id).logs
    folder.mkdir(parents=True)
    for name in ("trial-0002.log", "driver.log", "trial-0001.log"):
        (folder / name).write_bytes(b"".join(b"line %d \xff\n" % number for number in range(5)))
    found = study_logs(settings, row.id, 2)
    assert list(found) == ["driver.log", "trial-0001.log", "trial-0002.log"]
    assert found["driver.log"] == "line 3 \ufffd\nline 4 \ufffd\n"


def test_logs_on_the_command_line(settings, row, dialin):
    out = ("--out", str(settings.out))
    assert (
        dialin("logs", row.id, *out, check=True).stdout
        == "nothing was logged: no trial has printed anything or has failed\n"
    )
    folder = OutputFolder(settings.out).study(row.id).logs
    folder.mkdir(parents=True)
    (folder / "trial-0001.log").write_text("Traceback\nValueError: x\n")
    assert dialin("logs", row.id, *out, "--tail", "1", check=True).stdout == "== trial-0001.log\nValueError: x\n"
    assert json.loads(dialin("logs", row.id, *out, "--json", check=True).stdout) == {
        "trial-0001.log": "Traceback\nValueError: x\n"
    }


def test_the_list_of_a_state(settings, row, dialin):
    out = ("--out", str(settings.out), "--json")
    assert [study["study_id"] for study in json.loads(dialin("list", *out, "--state", "running").stdout)] == [row.id]
    assert json.loads(dialin("list", *out, "--state", "complete", "--state", "failed").stdout) == []


def test_looking_on_opens_nothing_anew(settings, row):
    """Each look opened an engine of Optuna's that nobody closed, once a second."""
    folder = Path("/proc/self/fd")
    with acquire(settings.database, row.id):
        looking = looks(settings, row.id, sleep=lambda _: None)
        next(looking)
        engines: list[sa.Engine] = []
        sa.event.listen(sa.pool.Pool, "connect", lambda *_: engines.append(1))
        gc.disable()  # which would close some of what is left open
        try:
            before = len(list(folder.iterdir()))
            for _ in range(50):
                next(looking)
            assert len(list(folder.iterdir())) == before
        finally:
            gc.enable()
        assert len(engines) == 0
        looking.close()
