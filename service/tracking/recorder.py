"""The recorder: a process that reads a study's spool and writes it to MLflow, in batches, exactly once in effect.

    python -m service.tracking.recorder --spool FOLDER --uri URI [--artifacts DIR] [--patience SECONDS]

A part of the spool is written whole, then its position is saved. When a write fails, or its answer got lost, the same
part is written again: runs that exist are found by their tags, a point that exists is the same point (its time is the
event's own), and an epoch that was written before is left out. Ends when the spool says that the study has ended, or
when standard input closes, after writing what is there. Exit code 0: all written; 3: gave up with events left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.spec.domains import Scalar
from service.tracking.events import EpochReported, Event, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from service.tracking.position import Position, read_position, write_position
from service.tracking.spool import count_events, read_events

EVENTS_A_STEP = 2000
METRICS_A_CALL, PARAMS_A_CALL = 1000, 100  # MLflow's own limits
TAG_CHARACTERS = 5000
PAUSE_SECONDS = 0.5  # between steps, so that batches grow while a study runs
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 15.0
SOME_LEFT = 3
STATUS = {
    "complete": "FINISHED",
    "stopped": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}


@dataclass
class _Changes:
    """What one step changes about one run."""

    metrics: list[Any] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: list[str] = field(default_factory=list)
    status: str | None = None
    ended_at: int | None = None


class Recorder:
    """Writes one spool to one MLflow. `client` is an MlflowClient. `step` raises whatever MLflow raises."""

    def __init__(self, folder: Path, client: Any, artifacts: Path | None) -> None:
        self._folder = folder
        self._client = client
        self._artifacts = artifacts
        self._position = read_position(folder)
        self._unsure = self._position.offset > 0 or (folder / "started").exists()
        (folder / "started").touch()

    @property
    def done(self) -> bool:
        """Whether the study has ended and all of it is written."""
        return self._position.ended and count_events(self._folder, self._position.offset) == 0

    def step(self, limit: int = EVENTS_A_STEP) -> int:
        """Write the next part of the spool; how many events it had."""
        events, offset = read_events(self._folder, self._position.offset, limit)
        if not events:
            return 0
        position = self._position.copy()
        position.offset = offset
        unsure, self._unsure = self._unsure, True
        if unsure and position.experiment:
            self._adopt(position)
        changes: dict[str, _Changes] = {}
        for event in events:
            self._take(event, position, changes, unsure)
        for run, change in changes.items():
            self._write(run, change)
        write_position(self._folder, position)
        self._position, self._unsure = position, False
        return len(events)

    def _take(self, event: Event, position: Position, changes: dict[str, _Changes], unsure: bool) -> None:
        if event["kind"] == "study_started":
            self._take_study(event, position, changes, unsure)
            return
        if event["kind"] == "study_ended":
            self._end_study(event, position, changes.setdefault(position.parent, _Changes()))
            return
        run = position.runs.get(str(event["trial"]))
        if event["kind"] == "trial_started":
            run = run or self._create_run(position, event)
            position.runs[str(event["trial"])] = run
        if run is None:
            return  # a report of a trial that never started: nothing to hang it on
        change = changes.setdefault(run, _Changes())
        if event["kind"] == "trial_started":
            change.status, change.ended_at = "RUNNING", None
            change.params.update(_texts(event["params"]))
        elif event["kind"] == "epoch":
            self._take_epoch(event, position, change)
        else:
            _end_trial(event, change)

    def _take_study(self, event: StudyStarted, position: Position, changes: dict[str, _Changes], unsure: bool) -> None:
        position.study, position.ended = event["study"], False
        position.experiment = self._experiment(event["name"])
        if unsure:
            self._adopt(position)
        if not position.parent:
            tags = {"dialin.study": event["study"], "dialin.kind": "study"}
            created = self._client.create_run(
                position.experiment, start_time=event["time"], tags=tags, run_name=event["study"]
            )
            position.parent = created.info.run_id
        change = changes.setdefault(position.parent, _Changes())
        change.status, change.ended_at = "RUNNING", None
        change.params.update(_texts(event["params"]))
        change.tags.update(event["tags"])
        change.tags["dialin.state"] = "running"

    def _take_epoch(self, event: EpochReported, position: Position, change: _Changes) -> None:
        from mlflow.entities import Metric

        trial, epoch = str(event["trial"]), event["epoch"]
        if epoch <= position.epochs.get(trial, 0):
            return  # a trial that went on from an older checkpoint; its first report stands
        position.epochs[trial] = epoch
        change.metrics += [Metric(name, value, event["time"], epoch) for name, value in event["metrics"].items()]

    def _end_study(self, event: StudyEnded, position: Position, change: _Changes) -> None:
        from mlflow.entities import Metric

        position.ended = True
        change.metrics += [Metric(name, value, event["time"], 0) for name, value in event["metrics"].items()]
        change.tags.update(event["tags"])
        change.tags.update({"dialin.state": event["state"], "dialin.reason": event["reason"]})
        change.artifacts += event["artifacts"]
        change.status, change.ended_at = STATUS.get(event["state"], "FAILED"), event["time"]

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        # Given outright: MLflow's default would be a folder below wherever this process happens to run.
        location = (self._artifacts / name).resolve().as_uri() if self._artifacts is not None else None
        # So that MLflow opens it as training runs; by default it shows an experiment as a chat application's.
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return str(self._client.create_experiment(name, artifact_location=location, tags=tags))

    def _adopt(self, position: Position) -> None:
        """Find the runs that an earlier attempt made and whose ids it could not save."""
        token = None
        while True:
            page = self._client.search_runs(
                [position.experiment],
                filter_string=f"tags.`dialin.study` = '{position.study}'",
                order_by=["attributes.start_time ASC"],
                max_results=1000,
                page_token=token,
            )
            for run in page:
                trial = run.data.tags.get("dialin.trial")
                if trial is None:
                    position.parent = position.parent or run.info.run_id
                else:
                    position.runs.setdefault(trial, run.info.run_id)
            token = page.token
            if not token:
                return

    def _create_run(self, position: Position, event: TrialStarted) -> str:
        tags = {
            "mlflow.parentRunId": position.parent,
            "dialin.study": position.study,
            "dialin.trial": str(event["trial"]),
            "dialin.kind": "trial",
        }
        name = f"trial-{event['trial']:04d}"
        created = self._client.create_run(position.experiment, start_time=event["time"], tags=tags, run_name=name)
        return str(created.info.run_id)

    def _write(self, run: str, change: _Changes) -> None:
        from mlflow.entities import Param, RunTag

        params = [Param(name, value) for name, value in change.params.items()]
        tags = [RunTag(name, value[:TAG_CHARACTERS]) for name, value in change.tags.items()]
        metrics = change.metrics
        while metrics or params or tags:
            now = min(METRICS_A_CALL - PARAMS_A_CALL * 2, len(metrics))  # all three together are limited to 1000
            self._client.log_batch(run, metrics[:now], params[:PARAMS_A_CALL], tags[:PARAMS_A_CALL])
            metrics, params, tags = metrics[now:], params[PARAMS_A_CALL:], tags[PARAMS_A_CALL:]
        for path in change.artifacts:
            if Path(path).exists():
                self._client.log_artifact(run, path)
        if change.status == "RUNNING":
            if self._client.get_run(run).info.status != "RUNNING":
                self._client.update_run(run, status="RUNNING")
        elif change.status is not None:
            self._client.set_terminated(run, status=change.status, end_time=change.ended_at)


def _end_trial(event: TrialEnded, change: _Changes) -> None:
    change.tags.update({"dialin.state": event["state"], "dialin.reason": event["reason"]})
    change.status, change.ended_at = STATUS[event["state"]], event["time"]


def _texts(params: Any) -> dict[str, str]:
    def text(value: Scalar) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return {name: text(value) for name, value in params.items()}


def run(recorder: Recorder, finishing: threading.Event, patience_seconds: float) -> int:
    """Step until all is written and nothing more will come. Returns the exit code."""
    backoff, failing_since = BACKOFF_SECONDS, None
    while True:
        try:
            written = recorder.step()
            backoff, failing_since = BACKOFF_SECONDS, None
        except Exception as error:  # noqa: BLE001  whatever MLflow raises, the spool waits
            now = time.monotonic()
            failing_since = failing_since or now
            print(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            if finishing.is_set() and now - failing_since >= patience_seconds:
                return SOME_LEFT
            finishing.wait(backoff * random.uniform(0.5, 1.0)) if not finishing.is_set() else time.sleep(0.2)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            continue
        if recorder.done or (finishing.is_set() and written == 0):
            return 0
        finishing.wait(PAUSE_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m service.tracking.recorder", description="Write a spool to MLflow.")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--artifacts", type=Path)
    parser.add_argument("--patience", type=float, default=60.0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    finishing = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: finishing.set())
    threading.Thread(target=_watch_stdin, args=(finishing,), daemon=True).start()
    _prepare_environment()
    os.nice(10)  # training goes first
    from mlflow import MlflowClient

    return run(
        Recorder(arguments.spool, _Lazy(MlflowClient, arguments.uri), arguments.artifacts),
        finishing,
        arguments.patience,
    )


class _Lazy:
    """A client made at its first use: making one on SQLite migrates the database, and may fail as any call may."""

    def __init__(self, factory: Any, uri: str) -> None:
        self._factory, self._uri = factory, uri
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            self._client = self._factory(tracking_uri=self._uri)
        return getattr(self._client, name)


def _watch_stdin(finishing: threading.Event) -> None:
    sys.stdin.buffer.read()  # ends when the driver closes it, or is no more
    finishing.set()


def _prepare_environment() -> None:
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)


if __name__ == "__main__":
    sys.exit(main())
