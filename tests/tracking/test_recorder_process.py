"""A recorder is kept at work while its study runs, and waited for only while it gets something done."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dialin.events.log import FILE, EventLog
from dialin.events.types import TrialStarted
from dialin.paths import sqlite_url
from dialin.tracking import recorder_process
from dialin.tracking.lag import LOCK, read_lag, recorder_lock
from dialin.tracking.recorder_process import RecorderSupervisor, recorder_command, start_recorder, sync
from tests import others
from tests.tracking.studies import Mirrored, alive, client_of, contents, fill, kill_recorder, wait_for

pytestmark = others.MLFLOW
PARAMS = {"lr": 0.1, "nesterov": True, "optimizer": "sgd"}


def started(mirror):
    mirror.study_started("digits-abc", "digits", {"sampler": "tpe", "seed": 0}, {})
    mirror.start()
    return mirror


def test_a_recorder_that_is_killed_is_replaced_while_its_study_runs(database, tmp_path):
    mirror = started(Mirrored(tmp_path / "spool", sqlite_url(database)))
    killed = kill_recorder(mirror)
    mirror.trial_started(0, PARAMS)
    wait_for(lambda: mirror.lag() == 0)  # by another one: the study has not ended
    assert mirror._recorder._process.pid != killed
    mirror.trial_ended(0, "complete", "reason 0")
    mirror.study_ended("complete", "", {}, {}, [])
    assert mirror.close(60)
    assert contents(client_of(database), 1, 0).info.status == "FINISHED"


def test_a_recorder_that_always_dies_is_replaced_ever_more_slowly_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder_process, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(recorder_process, "FIRST_PAUSE_SECONDS", 0.05)
    EventLog(tmp_path / "spool").append(TrialStarted(0, {}))
    file = tmp_path / "starts"
    command = [sys.executable, "-c", f"open({str(file)!r}, 'a').write('x'); import os; os.kill(os.getpid(), 9)"]
    keeper = RecorderSupervisor(tmp_path / "spool", command, lambda: False)
    keeper.start()
    wait_for(lambda: file.exists() and len(file.read_text()) >= 3)
    assert "the recorder ended (by signal 9); another one follows" in read_lag(tmp_path / "spool").text()
    keeper.kill()
    count = len(file.read_text())
    time.sleep(0.5)
    assert len(file.read_text()) == count


def test_a_recorder_that_is_frozen_is_replaced(tmp_path, monkeypatch):
    for name, seconds in (("LOOK", 0.01), ("FIRST_PAUSE", 0.02), ("SILENT", 0.2), ("SURE", 0.1)):
        monkeypatch.setattr(recorder_process, f"{name}_SECONDS", seconds)
    EventLog(tmp_path / "spool").append(TrialStarted(0, {}))
    file = tmp_path / "starts"
    command = [sys.executable, "-c", f"open({str(file)!r}, 'a').write('x'); import time; time.sleep(600)"]
    keeper = RecorderSupervisor(tmp_path / "spool", command, lambda: False)
    keeper.start()
    first = keeper._process.pid
    os.kill(first, signal.SIGSTOP)
    wait_for(lambda: file.exists() and keeper._process.pid != first)
    assert not alive(first)
    assert "the recorder gave no sign for" in read_lag(tmp_path / "spool").text()
    keeper.kill()


def test_a_study_folder_that_is_deleted_while_it_runs_costs_mlflow_nothing(database, tmp_path):
    mirror = started(Mirrored(tmp_path / "study" / "spool", sqlite_url(database)))
    for trial in range(3):
        mirror.trial_started(trial, PARAMS)
        for epoch in (1, 2, 3):
            mirror.epoch(trial, epoch, {"val_accuracy": trial + epoch / 10})
            if (trial, epoch) == (1, 2):
                wait_for(lambda: mirror.lag() == 0)
                shutil.rmtree(tmp_path / "study")
        mirror.trial_ended(trial, ["complete", "stopped", "diverged"][trial], f"reason {trial}")
    mirror.study_ended("complete", "", {}, {}, [])
    assert mirror.close(60)
    assert contents(client_of(database), 3, 3).info.status == "FINISHED"


def test_a_folder_that_is_deleted_when_all_was_said_is_there_again(database, tmp_path):
    fill(tmp_path / "study" / "spool", trials=2, end=False)
    mirror = Mirrored(tmp_path / "study" / "spool", sqlite_url(database))
    mirror.start()
    mirror.study_ended("complete", "", {}, {}, [])
    shutil.rmtree(tmp_path / "study")
    assert mirror.close(60)
    assert contents(client_of(database), 2, 3).info.status == "FINISHED"


def test_a_recorder_whose_lock_was_deleted_ends_before_another_one_writes(database, tmp_path):
    fill(tmp_path / "spool", trials=1, end=False)
    command = recorder_command(tmp_path / "spool", sqlite_url(database), None)
    receiving, sending = os.pipe()
    first = start_recorder(tmp_path / "spool", command, receiving)
    wait_for(lambda: not read_lag(tmp_path / "spool"))
    (tmp_path / "spool" / LOCK).unlink()
    assert first.wait(30) == 4
    os.close(receiving)
    os.close(sending)
    assert "deleted" in (tmp_path / "spool" / "recorder.log").read_text()


class Hostile(BaseHTTPRequestHandler):
    """Answers as an MLflow that is not well."""

    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.ill(self)

    do_POST = do_GET

    def log_message(self, *_): ...


def error(handler):
    handler.send_response(500)
    handler.end_headers()


def page(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"<html>welcome to the proxy</html>")


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(3000):
        try:
            handler.wfile.write(b"[" * (1 << 20))
        except OSError:
            return


@pytest.fixture
def hostile():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("ill", "says"), [(error, "500"), (page, "")])
def test_the_end_of_a_study_waits_shortly_for_an_mlflow_that_takes_nothing(tmp_path, hostile, ill, says):
    hostile.ill = ill
    fill(tmp_path / "spool", trials=1, end=False)
    mirror = Mirrored(tmp_path / "spool", f"http://127.0.0.1:{hostile.server_port}")
    mirror.start()
    wait_for(lambda: mirror.standing().cause)
    mirror.study_ended("complete", "", {}, {}, [])
    began = time.monotonic()
    assert not mirror.close(120)
    assert time.monotonic() - began < 20  # it used to be the recorder's patience, thirty seconds
    assert says in mirror.standing().cause
    assert mirror.standing().text().startswith("MLflow lags by 7 events (")
    pid = mirror._recorder._process.pid
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))


def test_an_answer_without_an_end_does_not_take_the_memory(tmp_path, hostile):
    hostile.ill = endless
    fill(tmp_path / "spool", trials=1)
    command = recorder_command(tmp_path / "spool", f"http://127.0.0.1:{hostile.server_port}", None, 0.0)
    recorder = start_recorder(tmp_path / "spool", command, -3)
    most = 0
    while recorder.poll() is None:
        text = Path(f"/proc/{recorder.pid}/status").read_text()
        most = max(most, int(text.partition("VmRSS:")[2].partition("kB")[0] or 0))
        time.sleep(0.02)
    assert recorder.returncode == 3
    assert 0 < most < 1.4e6  # kB
    assert read_lag(tmp_path / "spool").cause


def test_a_spool_is_not_written_to_while_a_recorder_is_at_work(tmp_path):
    from filelock import Timeout

    with recorder_lock(tmp_path, 0.0), pytest.raises(Timeout), recorder_lock(tmp_path, 0.1):
        pass


@pytest.mark.parametrize("what", ["noise", "a folder"])
def test_what_is_no_database_is_named(tmp_path, what):
    if what == "noise":
        (tmp_path / "mlflow.db").write_bytes(os.urandom(40_000))
    else:
        (tmp_path / "mlflow.db").mkdir()
    fill(tmp_path / "spool", trials=1)
    assert sync(tmp_path / "spool", sqlite_url(tmp_path / "mlflow.db"), patience_seconds=0.0) == 7
    says = "file is not a database" if what == "noise" else "unable to open database file"
    assert says in read_lag(tmp_path / "spool").text()
    assert (tmp_path / "spool" / FILE).exists()


def test_nobody_at_the_address_is_named(tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        fill(tmp_path / "spool", trials=1)
        assert sync(tmp_path / "spool", f"http://127.0.0.1:{nobody.getsockname()[1]}", patience_seconds=0.0) == 7
    assert "Connection refused" in read_lag(tmp_path / "spool").text()
