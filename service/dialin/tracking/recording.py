"""What the recorder does with a spool: parts of it become calls to MLflow, exactly once in effect.

A part is written whole, then the position is saved. When a call fails, or its answer got lost, it is made again: runs
that exist are found by their tags, a point that exists is the same point (its time is the event's own), and an epoch
that was written before is left out.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from dialin.tracking.changes import Change, fold
from dialin.tracking.events import StudyEnded
from dialin.tracking.mlflow_runs import MlflowRuns, RunGoneError
from dialin.tracking.position import FILE, Position, read_position, write_position
from dialin.tracking.spool import Part, count_events, is_line_start, read_events

EVENTS_A_STEP = 2000
TRIALS_A_FLUSH = 8  # in one transaction: with more, their points no longer fit into the cache, which costs a sixth


class HeadlessError(Exception):
    """A spool does not say which study it is of."""


class Recorder:
    """Writes one spool to one MLflow. `client` is an MlflowClient; `step` raises whatever it raises, and goes on from
    there at its next call. With more than one of `workers`, trials are written at the same time: good over a network,
    where a call is mostly waiting; SQLite takes one writer. `moved` is told of every call that was made. Not thread
    safe itself; one a spool at a time."""

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
        self._pending: deque[list[Callable[[], None]]] = deque()  # one after the other; within, in any order
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

        Raises RunGoneError when runs that were written are not there any more; the next call begins anew. Raises
        HeadlessError when the event that began the study is damaged."""
        try:
            if not self._pending:
                if not self._adopted and self._saved.study:
                    self._adopt()
                    self._saved = self._next.copy()
                part = read_events(self._folder, self._saved.offset, limit)
                if part.offset == self._saved.offset:
                    return 0
                if not (self._folder / FILE).exists():
                    write_position(self._folder, self._saved)  # whoever comes after us knows that we were here
                self._plan(part)
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
        self._plan(Part([ended], self._saved.offset))
        self._carry_out()

    def _where_we_were(self) -> Position:
        saved = read_position(self._folder)
        if saved.uri != self._uri or not is_line_start(self._folder, saved.offset):
            return Position(uri=self._uri)  # another MLflow, or another spool: all of it is to be written
        return saved

    def _plan(self, part: Part) -> None:
        """Fold the events into calls. The study's run is there before its trials are, and ends after them."""
        self._next = self._saved.copy()
        self._next.offset, self._events = part.offset, len(part.events) + part.damaged
        changes = fold(part.events, self._next)
        self._next.damaged += part.damaged
        if part.damaged:
            text = f"{part.damaged} damaged lines left out before byte {part.offset}, {self._next.damaged} so far"
            print(f"{self._folder}: {text}", file=sys.stderr, flush=True)
        if not self._next.study:
            raise HeadlessError("the first event of the spool is damaged; `dialin sync` makes it again")
        own = [change for change in changes if change.trial is None]
        trials = changes[len(own) :]
        one_by_one: list[Callable[[], None]] = [partial(self._ensure_and_write, change) for change in trials]
        self._pending.append([partial(self._ensure_run, change) for change in own])
        self._pending.append([partial(self._write_together, trials, one_by_one)])
        self._pending.append(one_by_one)
        self._pending.append([partial(self._write, change) for change in own])
        self._pending.append([self._commit])

    def _carry_out(self) -> int:
        while self._pending:
            self._attempt(self._pending[0])
            self._pending.popleft()
        return self._events

    def _attempt(self, calls: list[Callable[[], None]]) -> None:
        """Make the calls; those that were made are off the list when one of them raises."""
        made: set[int] = set()
        errors: list[Exception] = []

        def attempt(call: Callable[[], None]) -> None:
            if errors:
                return  # MLflow is down: no use in finding that out for each of them
            try:
                call()
                made.add(id(call))
                self._moved()
            except Exception as error:  # noqa: BLE001  raised below, in the thread that asked
                errors.append(error)

        list((self._pool.map if self._pool is not None else map)(attempt, list(calls)))
        calls[:] = [call for call in calls if id(call) not in made]
        if errors:
            raise errors[0]

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

    def _ensure_and_write(self, change: Change) -> None:
        self._ensure_run(change)
        self._write(change)

    def _write_together(self, changes: list[Change], one_by_one: list[Callable[[], None]]) -> None:
        """All in one transaction, where there are such; then nothing is left to be done one by one."""
        runs = dict(self._next.runs)
        try:
            with self._runs.together() as together:
                if not together:
                    return
                for start in range(0, len(changes), TRIALS_A_FLUSH):
                    part = [change.copy() for change in changes[start : start + TRIALS_A_FLUSH]]
                    for write in (self._ensure_run, self._write):
                        for change in part:
                            write(change)
                        self._runs.flush()
                        self._moved()
        except Exception:  # noqa: BLE001  nothing was written; what it was about is found out one by one
            self._next.runs = runs
            self._adopted = False  # what was found and mended within it was undone, too
        else:
            one_by_one.clear()

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
