"""Studies of a folder: one that another process drives is followed and stopped, logs and the best are read."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from dialin.cli.follow import follow
from dialin.client import local
from dialin.client.local import LocalStudies
from dialin.errors import ConflictError, NoResultError, NotFoundError
from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
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
    """A study that is said to run, and that no process drives."""
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
                with LocalStudies(settings) as studies:
                    studies.best("last")
                break
            except (NotFoundError, NoResultError, sa.exc.OperationalError):
                time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(60)


def test_a_study_is_watched_and_stopped(driven, settings):
    file = io.StringIO()
    looked, stopped = [], []

    def sleep(seconds):
        looked.append(seconds)
        if "best val_accuracy" in file.getvalue() and not stopped:
            stopped.append(True)
            # From within its watching: nothing has to be timed.
            with LocalStudies(settings) as other:
                assert other.stop("last").state is StudyState.INTERRUPTED
        time.sleep(0.05)

    with LocalStudies(settings, sleep) as studies:
        study = studies.study("last")
        follow(Console(file=file, width=160), study, studies.events(study.id))
        assert studies.study(study.id).state is StudyState.INTERRUPTED
        assert driven.wait(60) == 130
        assert "500 trials of up to 3 epochs on synthetic" in file.getvalue()
        assert "best val_accuracy" in file.getvalue()
        assert set(looked) == {local.POLL_SECONDS}
        with pytest.raises(ConflictError, match="is interrupted; there is nothing to stop"):
            studies.stop("last")
        assert [event.kind for event in studies.events("last")][-1] == "study"


def test_a_driver_that_is_killed_while_it_is_to_stop(driven, settings, monkeypatch):
    kill = driven.kill

    def sleep(seconds):
        kill()
        driven.wait(60)

    monkeypatch.setattr(LocalStudies, "_terminate", lambda *_: None)
    with (
        LocalStudies(settings, sleep) as studies,
        pytest.raises(ConflictError, match="has ended without ending the study; no process drives study mine-"),
    ):
        studies.stop("last")


def test_the_best_of_a_running_study_and_its_file(driven, settings, dialin):
    with LocalStudies(settings) as studies:
        assert studies.best_yaml("last").startswith("# Best of study mine-")
    shown = json.loads(dialin("best", "last", "--yaml", "--json", "--out", str(settings.out), check=True).stdout)
    assert shown["yaml"].startswith("# Best of study mine-")
    done = dialin("stop", "last", "--out", str(settings.out))
    assert done.returncode == 0, done.stderr
    assert "is interrupted; resume it with: dialin resume mine-" in done.stdout
    study = done.stdout.split()[1]
    file = OutputFolder(settings.out).study(study).best_config
    with LocalStudies(settings) as studies:
        assert studies.best_yaml(study) == file.read_text()
    assert dialin("watch", study, "--out", str(settings.out)).returncode == 130


def test_nobody_drives_it(settings, row):
    slept = []
    with LocalStudies(settings, slept.append) as studies:
        nobody = f"no process drives study {row.id}; resume it with: dialin resume {row.id}"
        with pytest.raises(ConflictError, match=nobody):
            studies.stop(row.id)
        with pytest.raises(ConflictError, match=nobody):
            list(studies.events(row.id))
        assert len(slept) == 1  # a study that has just begun gets a second look
        for read in (studies.best, studies.best_yaml):
            with pytest.raises(NoResultError, match="no trial has "):
                read(row.id)
        with pytest.raises(NotFoundError):
            studies.stop("other")


def test_a_driver_on_another_host_is_left_alone(settings, row, monkeypatch):
    monkeypatch.setattr(Owner, "this_process", classmethod(lambda cls, job="": cls("elsewhere", 1, 1)))
    acquire(settings.database, row.id)
    with (
        LocalStudies(settings) as studies,
        pytest.raises(ConflictError, match="driven by process 1 on elsewhere; stop it there"),
    ):
        studies.stop(row.id)


def test_a_driver_of_another_user(settings, row, monkeypatch):
    acquire(settings.database, row.id)

    def refuse(pid, number):
        raise PermissionError

    monkeypatch.setattr(local.os, "kill", refuse)
    with (
        LocalStudies(settings) as studies,
        pytest.raises(ConflictError, match=f"process {os.getpid()} of another user"),
    ):
        studies.stop(row.id)


def test_logs(settings, row):
    studies = LocalStudies(settings)
    assert studies.logs(row.id, 10) == {}
    folder = OutputFolder(settings.out).study(row.id).logs
    folder.mkdir(parents=True)
    for name in ("trial-0002.log", "driver.log", "trial-0001.log"):
        (folder / name).write_bytes(b"".join(b"line %d \xff\n" % number for number in range(5)))
    found = studies.logs(row.id, 2)
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
    engines: list[sa.Engine] = []
    opened: list[int] = []

    class EnoughLooks(Exception):
        pass

    def sleep(_seconds):
        opened.append(len(list(folder.iterdir())))
        if len(opened) == 1:
            sa.event.listen(sa.pool.Pool, "connect", lambda *_: engines.append(1))
        if len(opened) == 50:
            raise EnoughLooks

    gc.disable()  # which would close some of what is left open
    try:
        with (
            acquire(settings.database, row.id),
            LocalStudies(settings, sleep) as studies,
            pytest.raises(EnoughLooks),
        ):
            list(studies.events(row.id))
    finally:
        gc.enable()
    assert len(set(opened)) == 1
    assert len(engines) == 0
