"""The faults: each does something bad to a study of real processes, lets it go on, and checks what is left."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dialin.server.mirror_keeper import MirrorKeeper
from dialin.settings import Settings
from tests.faults.harness import Place, Verdict, check, descendants, free_port, kill, recorders, wait_until


@dataclass(frozen=True)
class Row:
    """What came of one fault. `seconds`: from the fault, or from the resume after it, to the next epoch; the longest."""

    fault: str
    times: int
    lost: int
    repeated: int
    seconds: float


class Skipped(Exception):
    """This machine cannot have the fault."""


def driver_killed(folder: Path, times: int, generator: random.Random) -> Row:
    """SIGKILL of the driver at random moments, the first of them while Ray starts perhaps."""
    place, waits = Place(folder, 12, 9, 0.1), []
    for _ in range(times):
        began, before = time.monotonic(), len(place.epochs_logged())
        process = place.start("ray")
        if generator.random() < 0.8:
            wait_until(lambda: _ended(process) or _more(place, before), 120, "an epoch")  # noqa: B023  asked at once
            waits.append(time.monotonic() - began)
        time.sleep(generator.uniform(0, 1.5))
        if process.poll() is not None:
            break
        kill(process.pid)
        process.wait()
    return _row("driver killed (SIGKILL)", times, place, "ray", max(waits, default=0.0))


def driver_woken(folder: Path) -> Row:
    """A driver is stopped (SIGSTOP) until it counts as dead, its study is taken over, and it wakes up again."""
    place = Place(folder, 6, 9, 0.5)
    old = place.start("inline")
    wait_until(lambda: _more(place, 5), 120, "five epochs")
    wait_until(lambda: _stopped_without_lock(old, place), 120, "a moment between two writes")
    refused = place.start("inline")
    assert refused.wait(60) == 1
    assert f"is being driven by process {old.pid}" in place.log(), place.log()[-3000:]
    with closing(sqlite3.connect(place.out.database, timeout=60)) as connection, connection:
        connection.execute("UPDATE dialin_leases SET beat_at = 0")  # as after a long silence
    began, before = time.monotonic(), len(place.epochs_logged())
    new = place.start("inline")
    wait_until(lambda: _ended(new) or _more(place, before), 120, "an epoch")
    waited = time.monotonic() - began
    os.kill(old.pid, signal.SIGCONT)
    assert old.wait(60) == 1
    assert "was taken over by process" in place.log(), place.log()[-3000:]
    assert new.wait(120) == 0, place.log()[-3000:]
    verdict = check(place)
    return Row("driver stopped, replaced, woken", 1, verdict.lost, verdict.repeated, waited)


def _stopped_without_lock(process: subprocess.Popen[bytes], place: Place) -> bool:
    """Stop a driver, but not in the middle of a write: there it would keep SQLite's lock for itself."""
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with closing(sqlite3.connect(place.out.database, timeout=0.2)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
            return True
    except sqlite3.OperationalError:
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.1)
        return False


def writes_interrupted(folder: Path, points: list[int] | None, expected: Verdict) -> Row:
    """SIGKILL before each write of a small study, one study a write; None: all of them."""
    repeated, longest, times = 0, 0.0, 0
    for point in points or range(1, 10_000):
        place = Place(folder / f"write-{point}", 3, 3, 0.0)
        if place.start("inline", kill_before=point).wait(120) == 0:
            break
        times += 1
        began = time.monotonic()
        place.finish("inline")
        longest = max(longest, time.monotonic() - began)
        verdict = check(place)
        assert verdict.best == expected.best, (point, verdict, expected)
        assert verdict.lost == 0
        repeated += verdict.repeated
    return Row("SIGKILL before a write", times, 0, repeated, longest)


def undisturbed(folder: Path) -> Verdict:
    """What the small study comes to when nothing happens to it."""
    place = Place(folder, 3, 3, 0.0)
    place.finish("inline")
    return check(place)


def worker_killed(folder: Path, times: int, generator: random.Random) -> Row:
    """SIGKILL of a process that trains."""
    place, waits = Place(folder, 8 + 5 * times, 9, 0.2), []
    process = place.start("ray")
    while len(waits) < times:
        before = len(place.epochs_logged())
        wait_until(lambda: _ended(process) or _more(place, before + 2), 120, "two epochs")  # noqa: B023  asked at once
        workers = [pid for pid, command in descendants(process.pid) if "ray::" in command and "Train" in command]
        workers = workers or [pid for pid, command in descendants(process.pid) if command.startswith("ray::_Inner")]
        if not workers or _ended(process):
            break
        said = place.log().count("lost its worker")
        kill(generator.choice(workers))
        began = time.monotonic()
        try:
            wait_until(lambda: _ended(process) or place.log().count("lost its worker") > said, 20, "the loss")  # noqa: B023
        except TimeoutError:
            continue  # it had just ended a trial, and had no other yet: nobody misses it
        if place.log().count("lost its worker") == said:
            break
        trial = int(place.log().rpartition(" lost its worker")[0].rpartition(" ")[2])
        count = sum(number == trial for number, _ in place.epochs_logged())
        wait_until(lambda: sum(number == trial for number, _ in place.epochs_logged()) > count, 120, "it goes on")  # noqa: B023
        waits.append(time.monotonic() - began)
    assert waits, place.log()[-3000:]
    assert process.wait(300) == 0, place.log()[-3000:]
    return _row("worker killed", len(waits), place, None, max(waits))


def node_killed(folder: Path) -> Row:
    """SIGKILL of the raylet: the machine's Ray is gone under the driver."""
    place = Place(folder, 8, 9, 0.2)
    process = place.start("ray")
    wait_until(lambda: _more(place, 3), 120, "three epochs")
    (raylet,) = [pid for pid, command in descendants(process.pid) if "/raylet/raylet" in command.split(" ")[0]]
    kill(raylet)
    # Workers that live on without it train on; what needs the node fails, the look at the test split at the latest, or
    # Ray ends the driver itself.
    assert process.wait(180) != 0
    return _row("Ray node killed", 1, place, "ray", None)


def checkpoint_truncated(folder: Path) -> Row:
    """A driver killed, and the newest checkpoint of each trial cut in half before it goes on."""
    place = Place(folder, 6, 9, 0.05)
    process = place.start("inline")
    wait_until(lambda: _more(place, 12), 120, "twelve epochs")
    kill(process.pid)
    process.wait()
    row = place.row
    assert row is not None
    cut = 0
    for trial in place.out.study(row.id).checkpoints.iterdir():
        newest = max(trial.glob("epoch-*"), default=None)
        for file in newest.iterdir() if newest is not None else ():
            if file.name != "digests.json":
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
                cut += 1
    assert cut
    return _row("checkpoints truncated", cut, place, "inline", None)


def storage_locked(folder: Path, seconds: float) -> Row:
    """Another process holds the database for a while."""
    place = Place(folder, 6, 9, 0.05)
    process = place.start("inline")
    wait_until(lambda: _more(place, 5), 120, "five epochs")
    with closing(sqlite3.connect(place.out.database, timeout=60)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        before = len(place.epochs_logged())
        connection.rollback()
    began = time.monotonic()
    wait_until(lambda: _ended(process) or _more(place, before), 120, "an epoch")
    waited = time.monotonic() - began
    assert process.wait(300) == 0, place.log()[-3000:]
    return _row(f"storage locked for {seconds:g} s", 1, place, None, waited)


def disk_full(folder: Path) -> Row:
    """The disk fills up under a study, and has room again later."""
    folder.mkdir(parents=True)
    with _small_disk(folder):
        place = Place(folder / "disk", 6, 9, 0.05)
        process = place.start("inline")
        wait_until(lambda: _more(place, 5), 120, "five epochs")
        ballast = folder / "ballast"
        _fill(ballast)
        code = process.wait(120)
        text = place.log()
        assert code == 1, (code, text[-3000:])
        assert "no space" in text.lower() or "disk is full" in text.lower(), text[-3000:]
        assert "Traceback" not in text, text[-3000:]
        ballast.unlink()
        return _row("disk full", 1, place, "inline", None)


def mlflow_killed(folder: Path, *, from_the_start: bool = False) -> Row:
    """MLflow's server is killed in the middle, or was never there, and comes back after the study's end."""
    folder.mkdir(parents=True)
    database, port = folder / "mlflow-server.db", free_port()
    uri = f"http://127.0.0.1:{port}"
    place = Place(folder, 6, 9, 0.1, mlflow_uri=uri)
    server = None if from_the_start else _mlflow_server(database, port)
    process = place.start("inline")
    wait_until(lambda: _more(place, 10), 120, "ten epochs")
    if server is not None:
        _end(server)
    began, before = time.monotonic(), len(place.epochs_logged())
    wait_until(lambda: _ended(process) or _more(place, before), 60, "an epoch")
    waited = time.monotonic() - began
    assert process.wait(300) == 0, place.log()[-3000:]
    server = _mlflow_server(database, port)
    try:
        place.sync()
        verdict = check(place, uri)
    finally:
        _end(server)
    what = "MLflow down from the start" if from_the_start else "MLflow killed and restarted"
    return Row(what, 1, verdict.lost, verdict.repeated, waited)


def mlflow_frozen(folder: Path) -> Row:
    """MLflow's server is stopped (SIGSTOP) around the end of a study, whose recorder then gives up; it goes on later, and
    a server of dialin's has it catch up."""
    folder.mkdir(parents=True)
    database, port = folder / "mlflow-server.db", free_port()
    uri = f"http://127.0.0.1:{port}"
    place = Place(folder, 10, 9, 0.1, mlflow_uri=uri)
    server = _mlflow_server(database, port)
    try:
        process = place.start("inline")
        wait_until(lambda: _more(place, 12), 120, "twelve epochs")
        _signal(server, signal.SIGSTOP)
        began = time.monotonic()
        assert process.wait(300) == 0, place.log()[-3000:]
        assert "MLflow lags by" in place.log(), place.log()[-3000:]
        assert "dialin sync" in place.log(), place.log()[-3000:]
        waited = time.monotonic() - began
        for recorder in recorders(place):
            kill(recorder)
        wait_until(lambda: not recorders(place), 60, "the recorder's end")
        _signal(server, signal.SIGCONT)
        with _keeping(place, uri):
            verdict = check(place, uri)
    finally:
        _end(server)
    return Row("MLflow stopped at the end of a study, woken later", 1, verdict.lost, verdict.repeated, waited)


@contextmanager
def _keeping(place: Place, uri: str) -> Iterator[None]:
    """What a server of dialin's does for studies that nobody drives."""
    keeper = MirrorKeeper(Settings(place.out.root, place.out.root / "data", mlflow_uri=uri), poll_seconds=0.2)
    thread = threading.Thread(target=keeper.run)
    thread.start()
    try:
        yield
    finally:
        keeper.close()
        thread.join(60)


def recorder_killed(folder: Path, times: int) -> Row:
    """SIGKILL of the process that writes to MLflow, while its study runs."""
    place, waits = Place(folder, 8 + 12 * times, 9, 0.2), []
    process = place.start("inline")
    for _ in range(times):
        wait_until(lambda: len(recorders(place)) == 1, 120, "a recorder")
        (killed,) = recorders(place)
        kill(killed)
        began = time.monotonic()
        wait_until(lambda: _ended(process) or [*recorders(place)] not in ([], [killed]), 60, "another recorder")  # noqa: B023
        assert not _ended(process), place.log()[-3000:]
        waits.append(time.monotonic() - began)
        before = len(place.epochs_logged())
        wait_until(lambda: _ended(process) or _more(place, before), 60, "an epoch")  # noqa: B023
        assert _more(place, before), "it was replaced at the study's end only"
    assert process.wait(300) == 0, place.log()[-3000:]
    return _row("recorder killed", times, place, None, max(waits))


def study_folder_deleted(folder: Path) -> Row:
    """The folder of a study is deleted while it runs: its event log, its checkpoints, its logs."""
    place = Place(folder, 10, 9, 0.1)
    process = place.start("inline")
    wait_until(lambda: _more(place, 10), 120, "ten epochs")
    row = place.row
    assert row is not None
    shutil.rmtree(place.out.study(row.id).root, ignore_errors=True)
    began = time.monotonic()
    wait_until(lambda: _ended(process) or _more(place, 12), 120, "the event log again, and more in it")
    waited = time.monotonic() - began
    assert process.wait(300) == 0, place.log()[-3000:]
    return _row("study folder deleted", 1, place, None, waited)


def _row(fault: str, times: int, place: Place, runner: str | None, seconds: float | None) -> Row:
    """Let the study come to its end where it has not, and check it."""
    state = place.row.state if place.row is not None else ""
    if runner is not None and state != "complete":
        began, before = time.monotonic(), len(place.epochs_logged())
        process = place.start(runner)
        wait_until(lambda: _ended(process) or _more(place, before), 120, "an epoch")
        waited = time.monotonic() - began
        assert process.wait(300) == 0, place.log()[-3000:]
        seconds = max(seconds or 0.0, waited)
    verdict = check(place)
    return Row(fault, times, verdict.lost, verdict.repeated, seconds or 0.0)


def _more(place: Place, than: int) -> bool:
    return len(place.epochs_logged()) > than


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        raise Skipped("a tmpfs cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as opened:
        for size in (1 << 20, 4096, 1):
            try:
                while opened.write(b"\0" * size) == size:
                    pass
            except OSError:
                continue


def _mlflow_server(database: Path, port: int) -> subprocess.Popen[bytes]:
    """A real server on SQLite, ready to answer."""
    import urllib.request

    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{database}", "--port", str(port),
        "--artifacts-destination", str(database.with_suffix("")), "--workers", "1",
    ]  # fmt: skip
    # As the server of `dialin up`: without the seven processes that run jobs of MLflow's own.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with database.with_suffix(".log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    wait_until(ready, 90, "MLflow's server")
    return server


def _signal(server: subprocess.Popen[bytes], number: int) -> None:
    for pid in [server.pid, *(pid for pid, _ in descendants(server.pid))]:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _end(server: subprocess.Popen[bytes]) -> None:
    _signal(server, signal.SIGKILL)
    server.wait()
