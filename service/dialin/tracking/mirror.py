"""The driver's side of the mirror in MLflow. It loads no MLflow, and no study waits for MLflow or fails with it.

The driver appends to the study's event log and continues at once; a recorder, which is a process of its own, replays
the log into MLflow whenever MLflow answers.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from dialin.tracking.lag import Lag, lag_of, read_lag
from dialin.tracking.recorder_process import RecorderSupervisor, recorder_command


class Mirror:
    """The way of one study to MLflow, while a driver runs it.

    folder: the folder of the study's event log.
    uri: MLflow's tracking URI.
    artifacts: where files go when the URI is a database.
    restore: writes the log again if it was deleted, and returns whether it was (`EventLog.restore`).
    """

    def __init__(
        self, folder: Path, uri: str, artifacts: Path | None = None, restore: Callable[[], bool] = lambda: False
    ) -> None:
        self._folder = folder
        self._recorder = RecorderSupervisor(folder, recorder_command(folder, uri, artifacts), restore)

    def start(self) -> None:
        """Start the recorder, and replace it if it dies, until `close`.

        Call it after `StudyStarted` was logged: a recorder that finds a study that has ended, ends."""
        self._recorder.start()

    def standing(self) -> Lag:
        """How far MLflow is behind the log, and why."""
        return read_lag(self._folder)

    def lag(self) -> int:
        """How many events are in the log and not yet in MLflow."""
        return lag_of(self._folder)

    def hurry(self) -> None:
        """The last trial has ended: have the recorder write the rest at once."""
        self._recorder.hurry()

    def abandon(self) -> None:
        """Another driver has the study now, and its recorder writes: end this one without ending any run."""
        self._recorder.kill()

    def close(self, timeout_seconds: float) -> bool:
        """Have the recorder finish and wait for it; returns whether everything is in MLflow. The wait is short while
        nothing is written, and the recorder continues after it for a while."""
        self._recorder.finish(timeout_seconds)
        return self.lag() == 0


def answers(uri: str, timeout_seconds: float = 2.0, secret: str | None = None) -> bool:
    """Whether MLflow's server at an address reports that it is healthy. `secret`: for the server of `dialin up`."""
    headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
    try:
        with urlopen(Request(f"{uri.rstrip('/')}/health", headers=headers), timeout=timeout_seconds) as response:
            return bool(response.status == 200)
    except (OSError, ValueError, HTTPException):
        return False


def ui_command(uri: str) -> str:
    """The command that opens MLflow's pages on a store, run in the current folder; for a server, its address."""
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
