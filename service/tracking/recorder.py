"""The recorder: a process that reads a study's spool and writes it to MLflow, in batches, exactly once in effect.

    python -m service.tracking.recorder --spool FOLDER --uri URI [--artifacts DIR] [--patience SECONDS]

A part of the spool is written whole, then its position is saved. When a write fails, or its answer got lost, it is made
again: runs that exist are found by their tags, a point that exists is the same point (its time is the event's own), and
an epoch that was written before is left out. Ends when the spool says that the study has ended, or when standard input
closes, after writing what is there; a study whose driver died without a word is ended as interrupted, so that no run
stays RUNNING. Exit code 0: all written; 3: gave up with something left.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from service.tracking.changes import Change, fold
from service.tracking.events import Event, StudyEnded
from service.tracking.mlflow_runs import MlflowRuns, RunGoneError
from service.tracking.position import FILE, Position, read_position, write_position
from service.tracking.spool import count_events, read_events, spool_bytes

EVENTS_A_STEP = 2000
PAUSE_SECONDS = 1.0  # between steps, so that batches grow while a study runs
LOOK_SECONDS = 0.1  # between two looks at whether to finish
BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.5, 15.0
TERMINATED_PATIENCE_SECONDS = 2.0
SOME_LEFT = 3


class Recorder:
    """Writes one spool to one MLflow. `client` is an MlflowClient; `step` raises whatever it raises, and goes on from
    there at its next call. Not thread safe; one a spool at a time."""

    def __init__(self, folder: Path, client: Any, artifacts: Path | None, uri: str = "") -> None:
        self._folder = folder
        self._runs = MlflowRuns(client, artifacts)
        self._uri = uri
        self._saved = self._where_we_were()
        self._next = self._saved.copy()
        self._pending: deque[Callable[[], None]] = deque()
        self._events = 0
        self._adopted = False  # until then, runs may be there whose ids we do not have
        self._lost: set[str | None] = set()  # what we tried to create, without an answer
        # A create without an answer may take effect later still; whoever was here before us may have left one.
        self._doubtful = (folder / FILE).exists()

    @property
    def done(self) -> bool:
        """Whether the study has ended and all of it is written."""
        return self._saved.ended and not self._pending and count_events(self._folder, self._saved.offset) == 0

    def step(self, limit: int = EVENTS_A_STEP) -> int:
        """Write the next part of the spool; how many events it had.

        Raises RunGoneError when runs that were written are not there any more; the next call begins anew."""
        try:
            if not self._pending:
                if not self._adopted and self._saved.study:
                    self._adopt()
                    self._saved = self._next.copy()
                events, offset = read_events(self._folder, self._saved.offset, limit)
                if offset == self._saved.offset:
                    return 0
                if not (self._folder / FILE).exists():
                    write_position(self._folder, self._saved)  # whoever comes after us knows that we were here
                self._plan(events, offset)
            return self._carry_out()
        except RunGoneError:
            self._start_again()
            raise

    def abandon(self) -> None:
        """End what a dead driver left open; all that it had spooled must be written. Raises as `step` does."""
        if not self._saved.study or self._saved.ended:
            return
        ended: StudyEnded = {
            "kind": "study_ended",
            "time": self._saved.time,
            "state": "interrupted",
            "reason": "the driver is gone",
            "metrics": {},
            "tags": {},
            "artifacts": [],
        }
        self._plan([ended], self._saved.offset)
        self._carry_out()

    def _where_we_were(self) -> Position:
        saved = read_position(self._folder)
        if saved.uri != self._uri or saved.offset > spool_bytes(self._folder):
            return Position(uri=self._uri)  # another MLflow, or another spool: all of it is to be written
        return saved

    def _plan(self, events: list[Event], offset: int) -> None:
        """Fold the events into calls. The study's run is there before its trials are, and ends after them."""
        self._next = self._saved.copy()
        self._next.offset, self._events = offset, len(events)
        changes = fold(events, self._next)
        own = [change for change in changes if change.trial is None]
        self._pending.extend(partial(self._ensure_run, change) for change in own)
        for change in changes[len(own) :]:
            self._pending += [partial(self._ensure_run, change), partial(self._write, change)]
        self._pending.extend(partial(self._write, change) for change in own)
        self._pending.append(self._commit)

    def _carry_out(self) -> int:
        while self._pending:
            self._pending[0]()
            self._pending.popleft()
        return self._events

    def _commit(self) -> None:
        if self._doubtful and self._next.ended:
            self._adopt()
            self._doubtful = False
        write_position(self._folder, self._next)
        self._saved = self._next.copy()

    def _ensure_run(self, change: Change) -> None:
        position = self._next
        position.experiment = position.experiment or self._runs.experiment(position.name)
        if not self._adopted or None in self._lost:
            self._adopt()
        elif change.trial in self._lost:
            self._look_for(change.trial)
        if change.trial is None:
            position.parent = position.parent or self._create(change)
        elif change.trial not in position.runs:
            position.runs[change.trial] = self._create(change)

    def _create(self, change: Change) -> str:
        position = self._next
        try:
            return self._runs.create(position.experiment, position.study, change, position.parent)
        except Exception:
            self._lost.add(change.trial)
            self._doubtful = True
            raise

    def _write(self, change: Change) -> None:
        position = self._next
        self._runs.write(position.parent if change.trial is None else position.runs[change.trial], change)

    def _adopt(self) -> None:
        """Find the runs that an earlier attempt made and whose ids it could not save; one of each is kept."""
        position = self._next
        known = {*position.runs.values(), *([position.parent] if position.parent else [])}
        found = list(self._runs.find(position.experiment, position.study))
        chosen: dict[str | None, str] = {}
        preferred = known | {run.parent for run in found}
        for run in sorted(
            found, key=lambda run: (run.id not in known, run.id not in preferred, not run.active, run.id)
        ):
            if chosen.setdefault(run.trial, run.id) != run.id and run.active:
                self._runs.delete(run.id)  # made by a call that took effect after it had been given up
        if not known <= set(chosen.values()):
            raise RunGoneError("runs that were written are not there any more; mirroring the study from its start")
        position.parent = chosen.pop(None, "")
        position.runs = {trial: run for trial, run in chosen.items() if trial is not None}
        self._adopted = True
        self._lost.clear()

    def _look_for(self, trial: str | None) -> None:
        position = self._next
        found = self._runs.find(position.experiment, position.study, trial)
        for run in sorted(found, key=lambda run: (not run.active, run.id)):
            position.runs.setdefault(str(trial), run.id)
        self._lost.discard(trial)

    def _start_again(self) -> None:
        self._saved = Position(uri=self._uri)
        self._next = self._saved.copy()
        self._pending.clear()
        self._adopted = False


class Finishing:
    """Whether to end once all is written, and how long to go on trying. Safe to ask from a signal's handler."""

    def __init__(self) -> None:
        self.patience_seconds: float | None = None

    @property
    def asked(self) -> bool:
        return self.patience_seconds is not None

    def ask(self, patience_seconds: float) -> None:
        """From now on; the shortest patience asked for counts."""
        before = self.patience_seconds
        self.patience_seconds = patience_seconds if before is None else min(before, patience_seconds)

    def wait(self, seconds: float) -> None:
        """Let time pass, but not once this is asked for."""
        until = time.monotonic() + seconds
        while not self.asked and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))


def run(recorder: Recorder, finishing: Finishing) -> int:
    """Step until all is written and nothing more will come. Returns the exit code."""
    backoff, failing_since = BACKOFF_SECONDS, None
    while True:
        try:
            written = recorder.step()
            if finishing.asked and written == 0:
                recorder.abandon()
                return 0
        except Exception as error:  # noqa: BLE001  whatever MLflow raises, the spool waits
            failing_since = failing_since or time.monotonic()
            _say(f"{type(error).__name__}: {error}")
            if _out_of_patience(finishing, failing_since):
                return SOME_LEFT
            _back_off(finishing, backoff)
            backoff = min(2 * backoff, LONGEST_BACKOFF_SECONDS)
            continue
        backoff, failing_since = BACKOFF_SECONDS, None
        if recorder.done:
            return 0
        finishing.wait(PAUSE_SECONDS)


def _out_of_patience(finishing: Finishing, since: float) -> bool:
    patience = finishing.patience_seconds
    return patience is not None and time.monotonic() - since >= patience


def _back_off(finishing: Finishing, seconds: float) -> None:
    jittered = seconds * random.uniform(0.5, 1.0)
    if finishing.asked:
        time.sleep(min(jittered, BACKOFF_SECONDS))
    else:
        finishing.wait(jittered)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m service.tracking.recorder", description="Write a spool to MLflow.")
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--uri", required=True)
    parser.add_argument("--artifacts", type=Path)
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to go on trying once asked to finish")
    arguments = parser.parse_args()
    finishing = Finishing()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's to handle
    signal.signal(signal.SIGTERM, lambda *_: finishing.ask(TERMINATED_PATIENCE_SECONDS))
    threading.Thread(target=_watch_stdin, args=(finishing, arguments.patience), daemon=True).start()
    os.nice(10)  # training goes first
    _prepare_environment()
    lock = FileLock(arguments.spool / "recorder.lock")
    if not _take_turn(lock, finishing):
        _say("another recorder is at work on this spool")
        return SOME_LEFT
    try:
        client = LazyClient(arguments.uri)
        return run(Recorder(arguments.spool, client, arguments.artifacts, arguments.uri), finishing)
    finally:
        lock.release()


def _take_turn(lock: FileLock, finishing: Finishing) -> bool:
    """Wait for the recorder before us: that of a driver that was just interrupted may still be writing."""
    since = time.monotonic()
    while True:
        try:
            lock.acquire(timeout=0)
            return True
        except Timeout:
            if _out_of_patience(finishing, since):
                return False
            time.sleep(LOOK_SECONDS)


class LazyClient:
    """An MlflowClient made at its first use: making one on SQLite migrates the database, and may fail as any call."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self._uri)
        return getattr(self._client, name)


def _watch_stdin(finishing: Finishing, patience_seconds: float) -> None:
    # Not by way of sys.stdin: Python aborts at its end when a thread is still inside of that.
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    finishing.ask(patience_seconds)  # the driver closed it, or is no more


def _prepare_environment() -> None:
    os.environ.update(
        {
            # MLflow would send a create again by itself when its answer got lost: a doubled run that nobody hears of.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # costs a call a run
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "GIT_PYTHON_REFRESH": "quiet",
        }
    )


def _say(text: str) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
