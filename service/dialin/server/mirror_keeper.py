"""Has MLflow catch up with every study that has no driver.

A study may lack something there because MLflow was away when it ended, or because its recorder or the server was
killed. Recorders are started as processes, a few at a time, and after longer and longer pauses while they fail.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from filelock import FileLock, Timeout

from dialin.events.log import count_events, has_log
from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
from dialin.server.background import Repeater, isolated
from dialin.settings import Settings
from dialin.store.leases import holder
from dialin.store.studies import Standing, Studies
from dialin.study_flow.mirror import complete_log, mlflow_target
from dialin.tracking.cursor import read_cursor
from dialin.tracking.lag import heard_at, recorder_lock
from dialin.tracking.recorder_process import SILENT_SECONDS, SURE_SECONDS, recorder_command, start_recorder

_LOG = logging.getLogger(__name__)

POLL_SECONDS = 5.0
MOST_RECORDERS = 2  # at a time; one while they fail
MOST_CHECKS = 500  # of studies' folders in a step: a server with many old studies must start like any other
PATIENCE_SECONDS = 10.0  # of a recorder with an MLflow that does not accept what it writes
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_STUDY_PAUSE = 5.0, 60.0, 600.0


@dataclass
class Failures:
    """Failures in a row, with a pause after each that doubles up to `longest_pause`."""

    longest_pause: float
    """In seconds."""
    count: int = 0
    """Failures since the last success."""
    not_before: float = 0.0
    """When the next attempt is due, on the monotonic clock."""

    def add(self, now: float) -> None:
        """Count one more failure."""
        self.count += 1
        self.not_before = now + min(FIRST_PAUSE * 2.0 ** (self.count - 1), self.longest_pause)


@dataclass(frozen=True)
class _Attempt:
    """A recorder at work."""

    standing: Standing
    process: subprocess.Popen[bytes]
    started_at: float


class MirrorKeeper:
    """Starts the recorders. Of several servers over one folder only one does, which holds a lock there."""

    def __init__(self, settings: Settings, poll_seconds: float = POLL_SECONDS) -> None:
        self._settings = settings
        self._out = OutputFolder(settings.out)
        self._lock = FileLock(settings.out / "keeper.lock")
        self._repeater = Repeater(poll_seconds)
        self._attempts: dict[str, _Attempt] = {}
        self._complete: dict[str, Standing] = {}  # studies that need no check while they stand like this
        self._failures: dict[str, Failures] = {}
        self.all_failures = Failures(LONGEST_PAUSE)
        """Failures of recorders in a row, whatever study they were for."""

    @cached_property
    def _studies(self) -> Studies:
        return Studies(self._settings.database)

    @property
    def at_work(self) -> set[str]:
        """The studies whose recorder this keeper has started and not seen end."""
        return set(self._attempts)

    @property
    def complete(self) -> set[str]:
        """The studies that MLflow has everything of, as far as was seen."""
        return set(self._complete)

    def failures_of(self, study_id: str) -> Failures:
        """The failures of a study's recorders."""
        return self._failures.get(study_id, _NO_FAILURES)

    def run(self) -> None:
        """Take steps until `close`; then end the recorders that were started."""
        self._repeater.run(self.step)
        for attempt in self._attempts.values():
            attempt.process.terminate()
            attempt.process.wait()
        self._studies.close()
        self._lock.release()

    def wake(self) -> None:
        """Take the next step now: a study has ended."""
        self._repeater.wake()

    def close(self) -> None:
        """Have `run` return after the step that is running."""
        self._repeater.close()

    def step(self) -> None:
        """Look at all studies, and start the recorders that are needed and allowed."""
        self._reap()
        if not self._holds_lock() or time.monotonic() < self.all_failures.not_before:
            return
        for standing in self._incomplete():
            if len(self._attempts) >= (1 if self.all_failures.count else MOST_RECORDERS):
                return
            has_failed = True
            with isolated(standing.id):
                self._start(standing)
                has_failed = False
            if has_failed:
                self._add_failure(standing)

    def _holds_lock(self) -> bool:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def _reap(self) -> None:
        """Take note of recorders that have ended, and kill those that hang."""
        for study_id, attempt in list(self._attempts.items()):
            code = attempt.process.poll()
            if code is None:
                heard = max(heard_at(self._out.study(study_id).events), attempt.started_at)
                if time.time() - heard > SILENT_SECONDS + SURE_SECONDS:
                    attempt.process.kill()  # it is frozen, and others wait for its place
                continue
            del self._attempts[study_id]
            if code == 0:
                self.all_failures = Failures(LONGEST_PAUSE)
                self._failures.pop(study_id, None)
                _LOG.info("study %s: MLflow has caught up with it", study_id, extra={"study": study_id})
            else:
                self._add_failure(attempt.standing)
                self.all_failures.add(time.monotonic())

    def _add_failure(self, standing: Standing) -> None:
        self._failures.setdefault(standing.id, Failures(LONGEST_STUDY_PAUSE)).add(time.monotonic())

    def _incomplete(self) -> Iterator[Standing]:
        """Studies that MLflow lacks something of; those that failed least come first."""
        now, checks = time.monotonic(), 0
        for standing in sorted(self._studies.standings(), key=lambda each: self.failures_of(each.id).count):
            is_due = now >= self.failures_of(standing.id).not_before
            if self._complete.get(standing.id) == standing or standing.id in self._attempts or not is_due:
                continue
            checks += 1
            if checks > MOST_CHECKS:
                return
            if not self._is_complete(standing):
                yield standing
            elif standing.state is not StudyState.RUNNING:
                self._complete[standing.id] = standing

    def _is_complete(self, standing: Standing) -> bool:
        folder = self._out.study(standing.id).events
        if not has_log(folder):
            return True  # it is on another server, or was removed to save space; `dialin sync` makes it again
        position = read_cursor(folder)
        return position.ended and not position.damaged and count_events(folder, position.offset) == 0

    def _start(self, standing: Standing) -> None:
        folder = self._out.study(standing.id).events
        try:
            with recorder_lock(folder, 0.0):
                pass  # no recorder is at work
        except Timeout:
            return
        if holder(self._studies.engine, standing.id) is not None:
            return  # its driver has a recorder of its own
        complete_log(self._settings, self._studies.get(standing.id), patience_seconds=0.0)
        command = recorder_command(folder, *mlflow_target(self._settings), PATIENCE_SECONDS)
        process = start_recorder(folder, command, subprocess.DEVNULL)
        self._attempts[standing.id] = _Attempt(standing, process, time.time())


_NO_FAILURES = Failures(LONGEST_STUDY_PAUSE)
