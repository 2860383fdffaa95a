"""One study of real processes that things are done to, and what has to be true of it in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from dialin.events.log import read_events
from dialin.events.types import EpochReported
from dialin.lifecycle import TrialState
from dialin.paths import OutputFolder, sqlite_url
from dialin.search.ranking import best_of
from dialin.search.records import TrialRecord
from dialin.search.storage import opened_storage
from dialin.search.trial_rows import read_study
from dialin.store.studies import Studies, StudyRow
from dialin.tracking.lag import lag_of

ROOT = Path(__file__).parents[2]
SPEC = """
name: faulty
objective: {dataset: synthetic, epoch_seconds: %g}
space:
  optimizer: adam
  lr: {min: 1e-4, max: 1e-2, log: true}
  batch_size: {min: 16, max: 128, log: true}
search: {sampler: random, seed: 3}
budget: {trials: %d, epochs: %d}
"""


class Place:
    """An output folder, and processes that work on the study in it."""

    def __init__(self, folder: Path, trials: int, epochs: int, epoch_seconds: float, mlflow_uri: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out = OutputFolder(folder / "out")
        self.trials, self.epochs = trials, epochs
        self._spec = folder / "faulty.yaml"
        self._spec.write_text(SPEC % (epoch_seconds, trials, epochs))
        self._log = folder / "driver.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DIALIN_")},
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
        }
        if mlflow_uri:
            self._environment["DIALIN_MLFLOW_URI"] = mlflow_uri

    def start(self, runner: str, *, kill_before: int | None = None) -> subprocess.Popen[bytes]:
        """`dialin run`, or `dialin resume` when there is a study. `kill_before`: it kills itself before that write."""
        verb = ["resume", "faulty"] if self.row is not None else ["run", str(self._spec)]
        program = ["-m", "dialin"] if kill_before is None else [str(Path(__file__).with_name("killed_driver.py"))]
        counted = [] if kill_before is None else [str(kill_before)]
        command = [sys.executable, *program, *counted, *verb, "--runner", runner, "--out", str(self.out.root)]
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self, runner: str, timeout: float = 300) -> None:
        """Go on until the study is complete, and in MLflow if the driver died after its last word."""
        row = self.row
        if row is not None and row.state == "complete":
            self.sync()
            return
        process = self.start(runner)
        code = process.wait(timeout)
        assert code == 0, f"exit code {code}\n{self.log()[-3000:]}"

    def sync(self) -> None:
        command = [sys.executable, "-m", "dialin", "sync", "faulty", "--out", str(self.out.root)]
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def row(self) -> StudyRow | None:
        if not self.out.database.exists():
            return None
        with Studies(sqlite_url(self.out.database)) as studies:
            return next(iter(studies.list()), None)

    def records(self) -> list[TrialRecord]:
        row = self.row
        if row is None:
            return []
        with opened_storage(sqlite_url(self.out.database)) as storage:
            return read_study(storage, row.id)

    def epochs_logged(self) -> list[tuple[int, int]]:
        """(trial, epoch) of every epoch that a driver took in, repeated ones too."""
        row = self.row
        if row is None:
            return []
        events = read_events(self.out.study(row.id).events, 0, 10**9).events
        return [(event.trial, event.epoch) for event in events if isinstance(event, EpochReported)]


@dataclass(frozen=True)
class Verdict:
    """What a study was like in the end."""

    lost: int  # trials that are not there, or failed
    repeated: int  # epochs trained more than once
    best: tuple[int, float]


def check(place: Place, tracking_uri: str | None = None) -> Verdict:
    """Assert that nothing was lost, doubled or left running, in Optuna, MLflow and the list of studies."""
    row, records = place.row, place.records()
    assert row is not None
    # On a busy machine the recorder may outlive the driver's patience.
    wait_until(lambda: lag_of(place.out.study(row.id).events) == 0, 120, "all of it in MLflow")
    assert row.state == "complete", row
    assert len(records) == place.trials, [record.number for record in records]
    assert {record.state for record in records} <= {
        TrialState.COMPLETE,
        TrialState.STOPPED,
        TrialState.DIVERGED,
        TrialState.FAILED,
    }
    for record in records:
        assert list(record.values) == list(range(1, len(record.values) + 1)), record
    _check_mlflow(row.id, records, tracking_uri or f"sqlite:///{place.out.mlflow_database}")
    best = best_of(records, "max")
    assert best is not None
    logged = Counter(place.epochs_logged())
    lost = place.trials - len(records) + sum(record.state is TrialState.FAILED for record in records)
    return Verdict(lost, sum(count - 1 for count in logged.values()), (best.number, max(best.values.values())))


def _check_mlflow(study_id: str, records: list[TrialRecord], uri: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED", "FAILED"}, [run.info.status for run in runs]
    trials = {run.data.tags["dialin.trial"]: run for run in runs if run.data.tags.get("dialin.trial", "") != ""}
    assert len(runs) == len(records) + 1, (len(runs), len(records))
    assert len(trials) == len(records)
    for record in records:
        run = trials[str(record.number)]
        points = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert sorted((point.step, point.value) for point in points) == sorted(record.values.items()), record.number


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> Iterator[tuple[int, str]]:
    """Process ids and command lines of everything below a process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it may end, or be a zombie, while it is looked at
                yield child.pid, " ".join(child.cmdline())


def recorders(place: Place) -> list[int]:
    """Ids of the processes that write this study to MLflow."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if "dialin.tracking.recorder" in command and any(part.startswith(f"{place.out.root}/") for part in command):
            found.append(int(folder.name))
    return found


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
