"""The driver's side of the mirror: tell it, and go on. Nothing here loads MLflow, waits for it, or fails with it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from dialin.specification.domains import Scalar
from dialin.tracking.events import StudyEnded
from dialin.tracking.lag import Lag, lag_of, read_lag
from dialin.tracking.process import Keeper, recorder_command
from dialin.tracking.spool import Spool


class Mirror:
    """One study's way to MLflow. `uri` is MLflow's tracking URI; `artifacts` where files go when that is a database.

    Every method that tells something returns once it is on disk (tens of microseconds) and may be called from any
    thread. A study that goes on, in this process or another, opens the same folder again and says `study_started`
    again: MLflow's runs go on with it."""

    def __init__(self, folder: Path, uri: str, artifacts: Path | None = None) -> None:
        self._folder = folder
        self._spool = Spool(folder)
        self._recorder = Keeper(folder, recorder_command(folder, uri, artifacts), self._spool.restore)

    def start(self) -> None:
        """Start the recorder: a process of its own, so that MLflow's imports, migrations and hangs are not ours. One
        that dies is replaced until `close`, and a spool that somebody deletes is written again.

        Call it after `study_started`: a recorder that finds a study that has ended, ends."""
        self._recorder.start()

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

    def ended(self, event: StudyEnded) -> None:
        """As `study_ended`, with all that there is to say."""
        self._spool.append(event)

    def standing(self) -> Lag:
        """How far MLflow is behind what is on disk, and why."""
        return read_lag(self._folder)

    def lag(self) -> int:
        """Events that are on disk and not yet in MLflow."""
        return lag_of(self._folder)

    def hurry(self) -> None:
        """The last trial has ended: what the recorder has not written yet, it writes now."""
        self._recorder.hurry()

    def abandon(self) -> None:
        """Another driver has the study now, and its recorder writes: ours ends without ending any run."""
        self._spool.close()
        self._recorder.kill()

    def close(self, timeout_seconds: float) -> bool:
        """Tell the recorder to finish and wait for it; whether everything is in MLflow. The wait is short while nothing
        gets done, and the recorder goes on after it for a while."""
        self._recorder.finish(timeout_seconds)
        self._spool.close()
        return self.lag() == 0


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


def _now() -> int:
    return time.time_ns() // 1_000_000
