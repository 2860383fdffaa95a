"""Has MLflow catch up with every study that nobody drives: MLflow was away when it ended, its recorder was killed, or
the server was. Recorders are started as processes, a few at a time, ever more rarely while they fail."""

from __future__ import annotations

import logging
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

from filelock import FileLock, Timeout

from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
from dialin.settings import Settings
from dialin.store.leases import holder
from dialin.store.studies import Standing, Studies
from dialin.study_flow.mirror import complete_spool, mlflow_target
from dialin.tracking.lag import heard_at, recorder_lock
from dialin.tracking.position import read_position
from dialin.tracking.process import SILENT_SECONDS, SURE_SECONDS, recorder_command, start_recorder
from dialin.tracking.spool import count_events, has_spool

_LOG = logging.getLogger(__name__)

POLL_SECONDS = 5.0
MOST_RECORDERS = 2  # at a time; one while they fail
MOST_LOOKS = 500  # at studies' folders in a step: a server with many old studies starts as any other
PATIENCE_SECONDS = 10.0  # of a recorder, with an MLflow that does not take what it writes
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_STUDY_PAUSE = 5.0, 60.0, 600.0


@dataclass
class _Failures:
    """In a row, and when the next attempt is due."""

    longest: float
    count: int = 0
    not_before: float = 0.0

    def add(self, now: float) -> None:
        self.count += 1
        self.not_before = now + min(FIRST_PAUSE * 2.0 ** (self.count - 1), self.longest)


@dataclass
class _Attempt:
    standing: Standing
    process: subprocess.Popen[bytes]
    started_at: float


@dataclass
class MirrorKeeper:
    """`run` looks, starts recorders and waits, until `close`. Of several servers over one folder one does it."""

    settings: Settings
    poll_seconds: float = POLL_SECONDS
    _attempts: dict[str, _Attempt] = field(default_factory=dict)
    _written: dict[str, Standing] = field(default_factory=dict)  # studies that need no look until they stand elsewhere
    _failures: dict[str, _Failures] = field(default_factory=dict)
    _all: _Failures = field(default_factory=lambda: _Failures(LONGEST_PAUSE))
    _wake: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._out = OutputFolder(self.settings.out)
        self._lock = FileLock(self.settings.out / "keeper.lock")

    @cached_property
    def _studies(self) -> Studies:
        return Studies(self.settings.database)

    def run(self) -> None:
        """Returns once `close` was called, and what it had started has ended."""
        while not self._ended.is_set():
            try:
                self.step()
            except Exception:  # noqa: BLE001  the loop must survive
                _LOG.exception("a look at what MLflow lacks failed")
            self._wake.wait(self.poll_seconds)
            self._wake.clear()
        for attempt in self._attempts.values():
            attempt.process.terminate()
            attempt.process.wait()
        self._studies.close()
        self._lock.release()

    def wake(self) -> None:
        """A study has ended: look now."""
        self._wake.set()

    def close(self) -> None:
        """Have `run` end, and the recorders that it started."""
        self._ended.set()
        self._wake.set()

    def step(self) -> None:
        """One look at all studies, and what follows from it."""
        self._reap()
        if not self._is_ours() or time.monotonic() < self._all.not_before:
            return
        for standing in self._behind():
            if len(self._attempts) >= (1 if self._all.count else MOST_RECORDERS):
                return
            try:
                self._start(standing)
            except Exception as error:  # noqa: BLE001  one study's trouble is not the others'
                _LOG.warning("study %s: what MLflow lacks of it cannot be written: %s", standing.id, error)
                self._failed(standing)

    def _is_ours(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _reap(self) -> None:
        for study, attempt in list(self._attempts.items()):
            code = attempt.process.poll()
            if code is None:
                heard = max(heard_at(self._out.study(study).spool), attempt.started_at)
                if time.time() - heard > SILENT_SECONDS + SURE_SECONDS:
                    attempt.process.kill()  # frozen; it keeps others from their turn
                continue
            del self._attempts[study]
            if code == 0:
                self._all = _Failures(LONGEST_PAUSE)
                self._failures.pop(study, None)
                _LOG.info("study %s: MLflow has caught up with it", study)
            else:
                self._failed(attempt.standing)
                self._all.add(time.monotonic())

    def _failed(self, standing: Standing) -> None:
        self._failures.setdefault(standing.id, _Failures(LONGEST_STUDY_PAUSE)).add(time.monotonic())

    def _behind(self) -> Iterator[Standing]:
        """Studies that MLflow lacks something of; those that failed least come first."""
        now, looks = time.monotonic(), 0
        standings = sorted(self._studies.standings(), key=lambda one: self._failures.get(one.id, _FRESH).count)
        for standing in standings:
            due = now >= self._failures.get(standing.id, _FRESH).not_before
            if self._written.get(standing.id) == standing or standing.id in self._attempts or not due:
                continue
            looks += 1
            if looks > MOST_LOOKS:
                return
            if self._lacks_nothing(standing):
                if standing.state is not StudyState.RUNNING:
                    self._written[standing.id] = standing
                continue
            yield standing

    def _lacks_nothing(self, standing: Standing) -> bool:
        folder = self._out.study(standing.id).spool
        if not has_spool(folder):
            return True  # it is another server's, or somebody made room; `dialin sync` makes it again
        position = read_position(folder)
        return position.ended and not position.damaged and count_events(folder, position.offset) == 0

    def _start(self, standing: Standing) -> None:
        folder = self._out.study(standing.id).spool
        try:
            with recorder_lock(folder, 0.0):
                pass  # nobody is at work on it
        except Timeout:
            return
        if holder(self._studies.engine, standing.id) is not None:
            return  # its driver keeps a recorder at work
        complete_spool(self.settings, self._studies.get(standing.id), patience_seconds=0.0)
        command = recorder_command(folder, *mlflow_target(self.settings), PATIENCE_SECONDS)
        self._attempts[standing.id] = _Attempt(
            standing, start_recorder(folder, command, subprocess.DEVNULL), time.time()
        )


_FRESH = _Failures(LONGEST_STUDY_PAUSE)
