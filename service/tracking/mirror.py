"""The driver's side of the mirror: tell it, and go on. Nothing here loads MLflow, waits for it, or fails with it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from service.spec.domains import Scalar
from service.tracking.position import read_position
from service.tracking.spool import Spool, count_events


class Mirror:
    """One study's way to MLflow. `uri` is MLflow's tracking URI; `artifacts` where files go when that is a database.

    Every method that tells something returns once it is on disk (tens of microseconds) and may be called from any
    thread. A study that goes on, in this process or another, opens the same folder again and says `study_started`
    again: MLflow's runs go on with it."""

    def __init__(self, folder: Path, uri: str, artifacts: Path | None = None) -> None:
        self._folder = folder
        self._uri = uri
        self._artifacts = artifacts
        self._spool = Spool(folder)
        self._recorder: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the recorder: a process of its own, so that MLflow's imports, migrations and hangs are not ours.

        Call it after `study_started`: a recorder that finds a study that has ended, ends."""
        with (self._folder / "recorder.log").open("ab") as log:
            self._recorder = subprocess.Popen(
                recorder_command(self._folder, self._uri, self._artifacts),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=_recorder_environment(),
                start_new_session=True,  # Ctrl-C is the driver's to handle
            )

    def study_started(self, study: str, name: str, params: Mapping[str, Scalar], tags: Mapping[str, str]) -> None:
        self._spool.append(
            {"kind": "study_started", "study": study, "name": name, "time": _now(), "params": params, "tags": tags}
        )

    def trial_started(self, trial: int, params: Mapping[str, Scalar]) -> None:
        self._spool.append({"kind": "trial_started", "trial": trial, "time": _now(), "params": params})

    def epoch(self, trial: int, epoch: int, metrics: Mapping[str, float]) -> None:
        self._spool.append({"kind": "epoch", "trial": trial, "epoch": epoch, "time": _now(), "metrics": metrics})

    def trial_ended(self, trial: int, state: str, reason: str, tags: Mapping[str, str] | None = None) -> None:
        self._spool.append(
            {
                "kind": "trial_ended",
                "trial": trial,
                "time": _now(),
                "state": state,
                "reason": reason,
                "tags": tags or {},
            }
        )

    def study_ended(
        self,
        state: str,
        reason: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Sequence[str],
    ) -> None:
        self._spool.append(
            {
                "kind": "study_ended",
                "time": _now(),
                "state": state,
                "reason": reason,
                "metrics": metrics,
                "tags": tags,
                "artifacts": list(artifacts),
            }
        )

    def lag(self) -> int:
        """Events that are on disk and not yet in MLflow."""
        return lag_of(self._folder)

    def hurry(self) -> None:
        """The last trial has ended: what the recorder has not written yet, it writes now."""
        if self._recorder is not None and self._recorder.stdin is not None:
            with suppress(OSError):  # it is no more; `close` sees to that
                os.write(self._recorder.stdin.fileno(), b"\n")

    def abandon(self) -> None:
        """Another driver has the study now, and its recorder writes: ours ends without ending any run."""
        self._spool.close()
        if self._recorder is not None and self._recorder.poll() is None:
            self._recorder.kill()
            self._recorder.wait()

    def close(self, timeout_seconds: float) -> bool:
        """Tell the recorder to finish and wait for it; whether everything is in MLflow. It goes on after the wait."""
        self._spool.close()
        if self._recorder is None or self._recorder.stdin is None:
            return self.lag() == 0
        if self._recorder.poll() is not None and self.lag():
            self._recorder.stdin.close()  # somebody killed it: another one has to write the rest
            self.start()
        self._recorder.stdin.close()
        try:
            self._recorder.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            # It lives on, as it should; only Python's reminder about it does not help anyone.
            self._recorder.returncode = 0
        return self.lag() == 0


def lag_of(folder: Path) -> int:
    """Events in a spool folder that MLflow has not got yet."""
    return count_events(folder, read_position(folder).offset)


def sync(folder: Path, uri: str, artifacts: Path | None = None, patience_seconds: float = 30.0) -> int:
    """Write what a spool folder still holds to MLflow, here and now; how many events are left, 0 when all is written.

    Runs that a dead driver left open are ended as interrupted, so do not call it on a study that runs: its own recorder
    is at work, and this one waits `patience_seconds` for it. `recorder.log` in the folder says what went wrong."""
    with (folder / "recorder.log").open("ab") as log:
        command = recorder_command(folder, uri, artifacts, patience_seconds)
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_recorder_environment(), check=False
        )
    left = count_events(folder, read_position(folder).offset)
    return left if done.returncode == 0 else max(left, 1)


def recorder_command(folder: Path, uri: str, artifacts: Path | None, patience_seconds: float = 30.0) -> list[str]:
    """The command line of the recorder process for a spool folder."""
    # -P: a folder named `service` where the person happens to be must not be taken for ours.
    command = [sys.executable, "-P", "-m", "service.tracking.recorder", "--spool", str(folder), "--uri", uri]
    command += ["--patience", f"{patience_seconds:g}"]
    return [*command, "--artifacts", str(artifacts)] if artifacts is not None else command


def answers(uri: str, timeout_seconds: float = 2.0, secret: str | None = None) -> bool:
    """Whether MLflow's server at an address says that it is well. `secret`: what that of `dialin up` wants to see."""
    headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/health", headers=headers), timeout=timeout_seconds) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, HTTPException):
        return False


def sqlite_uri(path: Path) -> str:
    """MLflow's tracking URI of a SQLite file."""
    return f"sqlite:///{path.resolve()}"


def ui_command(uri: str) -> str:
    """The command that opens MLflow's pages on this store, as it works from the current folder; for a server, its
    address."""
    if uri.startswith(("http://", "https://")):
        return uri
    beside = Path(sys.executable).with_name("mlflow")
    on_path = shutil.which("mlflow")
    if on_path is not None and Path(on_path).resolve() == beside.resolve():
        program = "mlflow"
    else:
        relative = os.path.relpath(beside)
        program = relative if not relative.startswith("..") else str(beside)
    return shlex.join([program, "ui", "--backend-store-uri", uri])


def _recorder_environment() -> dict[str, str]:
    """Ours, with the way to this very package first."""
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _now() -> int:
    return time.time_ns() // 1_000_000
