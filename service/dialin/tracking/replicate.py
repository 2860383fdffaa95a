"""Replicates an event log into MLflow, exactly once in effect.

A part of the log is written whole, then the cursor is saved. A call that fails, or whose answer is lost, is repeated:
runs that exist are found by their tags, a point that exists is the same point (its time is the event's), and epochs
that were written before are left out.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any

from dialin.events.log import Part, count_events, is_line_start, read_events
from dialin.events.types import Event, StudyEnded
from dialin.tracking.changes import Change, fold
from dialin.tracking.cursor import FILE, Cursor, read_cursor, write_cursor
from dialin.tracking.mlflow_runs import MlflowRuns, RunGoneError

_LOG = logging.getLogger(__name__)

EVENTS_A_STEP = 2000


class HeadlessError(Exception):
    """An event log does not say which study it belongs to."""


class Replicator:
    """Writes one event log to one MLflow. Not thread safe; one a log at a time.

    folder: the folder of the log and of the cursor.
    client: an MlflowClient; `step` raises whatever it raises, and continues from there when it is called again.
    artifacts: as for `MlflowRuns`.
    uri: the MLflow that `client` writes to; the cursor of another one does not count.
    workers: how many runs are written at the same time. More than one pays off over a network; SQLite has one writer.
    moved: called after every call to MLflow that succeeded.
    """

    def __init__(
        self,
        folder: Path,
        client: Any,
        artifacts: Path | None,
        uri: str = "",
        workers: int = 1,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder = folder
        self._moved = moved
        self._pool = ThreadPoolExecutor(workers, "recorder") if workers > 1 else None
        self._runs = MlflowRuns(client, artifacts)
        self._uri = uri
        self._saved = self._where_we_were()
        self._next = self._saved.copy()
        self._pending: deque[list[Callable[[], None]]] = deque()  # stages in order; calls of a stage may run together
        self._events = 0
        self._adopted = False  # until then MLflow may have runs whose ids the cursor lacks
        self._lost: set[str | None] = set()  # trials whose run was to be created, and no answer came
        # A create whose answer was lost may take effect later; the recorder before this one may have left such a call.
        self._doubtful = (folder / FILE).exists()

    @property
    def done(self) -> bool:
        """Whether the study has ended and all of it is written."""
        return self._saved.ended and not self._pending and count_events(self._folder, self._saved.offset) == 0

    def step(self, limit: int = EVENTS_A_STEP) -> int:
        """Write the next part of the log; returns how many events it had, 0 at the end of the log.

        Raises RunGoneError when runs that were written no longer exist; the next call starts from the log's beginning.
        Raises HeadlessError when the event that began the study is damaged."""
        try:
            if not self._pending:
                if not self._adopted and self._saved.study:
                    self._adopt()
                    self._saved = self._next.copy()
                part = read_events(self._folder, self._saved.offset, limit)
                if part.offset == self._saved.offset:
                    return 0
                if not (self._folder / FILE).exists():
                    write_cursor(self._folder, self._saved)  # tells the next recorder that this one was here
                self._plan_part(part)
            return self._carry_out()
        except RunGoneError:
            self._start_again()
            raise

    def abandon(self) -> None:
        """End the runs that a dead driver left open; its whole log must be written. Raises as `step` does."""
        if not self._saved.study or self._saved.ended:
            return
        self._plan([StudyEnded("interrupted", "the driver is gone", time=self._saved.time)], self._saved.offset)
        self._carry_out()

    def _where_we_were(self) -> Cursor:
        saved = read_cursor(self._folder)
        if saved.uri != self._uri or not is_line_start(self._folder, saved.offset):
            return Cursor(uri=self._uri)  # another MLflow, or another log: everything has to be written
        return saved

    def _plan_part(self, part: Part) -> None:
        self._plan(part.events, part.offset, part.damaged)
        if part.damaged:
            _LOG.warning(
                "%s: %d damaged lines before byte %d are left out, %d so far",
                self._folder,
                part.damaged,
                part.offset,
                self._next.damaged,
            )
        if not self._next.study:
            self._pending.clear()
            raise HeadlessError("the first event of the study's event log is damaged; `dialin sync` rebuilds the log")

    def _plan(self, events: list[Event], offset: int, damaged: int = 0) -> None:
        """Fold events into calls. The study's run exists before those of its trials, and ends after them."""
        self._next = self._saved.copy()
        self._next.offset, self._events = offset, len(events) + damaged
        changes = fold(events, self._next)
        self._next.damaged += damaged
        own = [change for change in changes if change.trial is None]
        trials = changes[len(own) :]
        self._pending.append([partial(self._ensure_run, change) for change in own])
        self._pending.append([partial(self._ensure_and_write, change) for change in trials])
        self._pending.append([partial(self._write, change) for change in own])
        self._pending.append([self._commit])

    def _carry_out(self) -> int:
        while self._pending:
            self._attempt(self._pending[0])
            self._pending.popleft()
        return self._events

    def _attempt(self, calls: list[Callable[[], None]]) -> None:
        """Make the calls of a stage. When one raises, those that succeeded are removed from the stage."""
        if self._pool is None:
            while calls:
                self._make(calls[0], threading.Event())
                del calls[0]
            return
        has_failed = threading.Event()
        futures = {id(call): self._pool.submit(self._make, call, has_failed) for call in calls}
        wait(futures.values())
        calls[:] = [call for call in calls if futures[id(call)].exception() or not futures[id(call)].result()]
        for future in futures.values():
            future.result()

    def _make(self, call: Callable[[], None], has_failed: threading.Event) -> bool:
        """Make a call, unless one failed before: MLflow is down then, and this one would wait in vain."""
        if has_failed.is_set():
            return False
        is_made = False
        try:
            call()
            is_made = True
        finally:
            if not is_made:
                has_failed.set()
        self._moved()
        return True

    def _commit(self) -> None:
        if self._doubtful and self._next.ended:
            self._adopt()
            self._doubtful = False
        write_cursor(self._folder, self._next)
        self._saved = self._next.copy()

    def _ensure_run(self, change: Change) -> None:
        cursor = self._next
        cursor.experiment = cursor.experiment or self._runs.experiment(cursor.name)
        if not self._adopted or None in self._lost:
            self._adopt()
        elif change.trial in self._lost:
            self._look_for(change.trial)
        if change.trial is None:
            cursor.parent = cursor.parent or self._create(change)
        elif change.trial not in cursor.runs:
            cursor.runs[change.trial] = self._create(change)

    def _ensure_and_write(self, change: Change) -> None:
        self._ensure_run(change)
        self._write(change)

    def _create(self, change: Change) -> str:
        cursor = self._next
        self._lost.add(change.trial)  # until there is an answer: without one the run may exist, now or later
        run = self._runs.create(cursor.experiment, cursor.study, change, cursor.parent)
        self._lost.discard(change.trial)
        return run

    def _write(self, change: Change) -> None:
        cursor = self._next
        self._runs.write(cursor.parent if change.trial is None else cursor.runs[change.trial], change)

    def _adopt(self) -> None:
        """Find runs that an earlier attempt made and whose ids it could not save. One run a trial is kept."""
        cursor = self._next
        self._doubtful = self._doubtful or bool(self._lost)
        known = {*cursor.runs.values(), *([cursor.parent] if cursor.parent else [])}
        found = list(self._runs.find(cursor.experiment, cursor.study))
        chosen: dict[str | None, str] = {}
        preferred = known | {run.parent for run in found}
        for run in sorted(
            found, key=lambda run: (run.id not in known, run.id not in preferred, not run.active, run.id)
        ):
            if chosen.setdefault(run.trial, run.id) != run.id and run.active:
                self._runs.delete(run.id)  # made by a call that took effect after it was given up
        if not known <= set(chosen.values()):
            raise RunGoneError("runs that were written no longer exist; the study is written again from its start")
        cursor.parent = chosen.pop(None, "")
        cursor.runs = {trial: run for trial, run in chosen.items() if trial is not None}
        self._adopted = True
        self._lost.clear()

    def _look_for(self, trial: str | None) -> None:
        """Find the run of a trial whose create got no answer."""
        self._doubtful = True
        cursor = self._next
        found = self._runs.find(cursor.experiment, cursor.study, trial)
        for run in sorted(found, key=lambda run: (not run.active, run.id)):
            cursor.runs.setdefault(str(trial), run.id)
        self._lost.discard(trial)

    def _start_again(self) -> None:
        self._saved = Cursor(uri=self._uri)
        self._next = self._saved.copy()
        self._pending.clear()
        self._adopted = False
