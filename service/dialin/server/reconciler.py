"""The reconciler makes what runs match what is wanted.

It compares both again and again and takes one step at a time. What it did before does not matter, so it may be killed
at any moment, and several servers may work on one database.

    wanted, queued              -> claim it, start its job            (by priority, then age, while there is room)
    claimed, job not there      -> start the job: the server that claimed the study was interrupted
    wanted, job gone            -> queue it again, later each time; after too many in a row it has failed
    not wanted, job there       -> stop it
    wanted, its driver silent   -> stop the job; the study is queued again when that is gone
    ended, job gone             -> settle it: there is nothing left to do
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dialin.errors import ClusterError, DatabaseError
from dialin.execution.ray_jobs import Jobs
from dialin.lifecycle import ACTIVE, StudyState
from dialin.planning.plan import ClusterShape
from dialin.server.allocation import demand_of, fair_shares, fits
from dialin.server.background import Repeater, isolated
from dialin.specification import damage_of
from dialin.store.entries import Entry, Submission, queue_order
from dialin.store.leases import BEAT_SECONDS, STALE_SECONDS, holder, holding
from dialin.store.submissions import ENDING, Submissions

_LOG = logging.getLogger(__name__)

LOST_SECONDS = 10.0  # a job that was claimed so long ago and does not exist was never started
STEADY_SECONDS = 120.0  # a driver that lived so long did not fail to start: failures are counted from zero again
LONGEST_PAUSE = 60.0
# From a job's claim, its beginning or its study's end until its driver holds the lease or is gone: Ray may be busy, a
# data set may be downloaded, MLflow may be slow. Whatever takes longer hangs.
PATIENCE_SECONDS = 3600.0
CONFIRM_SECONDS = 2 * BEAT_SECONDS  # a driver that is silent is looked at again after that
STOP_AGAIN_SECONDS = 60.0  # a job that was stopped and still exists is stopped again
# What concerns all studies, and so ends a step.
_COMMON_ERRORS = (ClusterError, DatabaseError, sa.exc.SQLAlchemyError)


@dataclass(frozen=True)
class SchedulingLimits:
    """What the settings say about scheduling."""

    max_running: int | None = None
    """Studies that run at a time at most; None: as many as the cluster has room for."""
    max_attempts: int = 5
    """Drivers of a study in a row that may die before the study has failed."""
    poll_seconds: float = 1.0
    """The pause between two steps, unless something wakes the reconciler."""


class Reconciler:
    """Runs the steps above.

    `on_abandoned` is called with the id of a study that ended without its driver's report; `clock` gives seconds since
    1970.
    """

    def __init__(
        self,
        submissions: Submissions,
        jobs: Jobs,
        limits: SchedulingLimits | None = None,
        *,
        on_abandoned: Callable[[str], None] = lambda _study_id: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._submissions, self._jobs, self._limits = submissions, jobs, limits or SchedulingLimits()
        self._on_abandoned, self._clock = on_abandoned, clock
        self._repeater = Repeater(self._limits.poll_seconds)
        self._stopping: dict[str, tuple[float, str]] = {}  # job -> when it was last stopped, and why if it hangs
        self._silent: dict[str, float] = {}  # job -> since when its driver is known to be silent for too long
        self.completed_at: float | None = None
        """When the last step was completed; None before the first."""
        self.trouble = ""
        """Why no step has been completed since then; empty if one has."""
        self.unreadable: Mapping[str, str] = {}
        """The studies that cannot be scheduled as they are stored, and why."""

    def run(self) -> None:
        """Take steps until `close`."""
        self._repeater.run(self._step_or_note)

    def wake(self) -> None:
        """Take the next step now: something has changed."""
        self._repeater.wake()

    def close(self) -> None:
        """Have `run` return after the step that is running."""
        self._repeater.close()

    def step(self) -> None:
        """Look at every study that is not settled, and do what follows. Raises ClusterError, DatabaseError and errors
        of SQLAlchemy where Ray or the database does not answer."""
        entries = [(entry, entry.submission) for entry in self._submissions.unsettled() if entry.submission is not None]
        shape = self._jobs.shape() if entries else ClusterShape(0.0)
        self._find_unreadable([entry for entry, _ in entries])
        locked: sa.exc.OperationalError | None = None
        for entry, submission in entries:
            try:
                with isolated(entry.study.id, *_COMMON_ERRORS):
                    self._reconcile(entry, submission)
            except sa.exc.OperationalError as error:
                # Perhaps a driver that hangs holds SQLite's lock, and one of the next studies is that driver's.
                locked = error
        if locked is not None:
            raise locked
        self._start_queued(shape)
        self._allocate(shape)
        self.completed_at, self.trouble = self._clock(), ""

    def _step_or_note(self) -> None:
        try:
            self.step()
        except _COMMON_ERRORS as error:
            trouble = str(error).partition("\n")[0]
            if trouble != self.trouble:  # once, not every second
                _LOG.warning("%s", trouble)
            self.trouble = trouble

    def _find_unreadable(self, entries: Sequence[Entry]) -> None:
        """Note which studies cannot be read, and log each once. They are not started; the others are."""
        found = {each.study.id: text for each in entries if (text := each.study.damage or damage_of(each.study.spec))}
        for study_id, text in found.items():
            if self.unreadable.get(study_id) != text:
                _LOG.warning("study %s cannot be read as it is stored: %s", study_id, text, extra={"study": study_id})
        self.unreadable = found

    def _reconcile(self, entry: Entry, submission: Submission) -> None:
        """Do what one study needs."""
        if not submission.job:
            self._reconcile_without_job(entry, submission)
            return
        info = self._jobs.info(submission.job)
        if info is None and submission.began_at is None:
            self._start_claimed(submission)
        elif info is not None and not info.ended:
            self._check_job(entry, submission)
        elif not self._is_driven(entry):
            self._silent.pop(submission.job, None)
            _, trouble = self._stopping.pop(submission.job, (0.0, ""))
            message = info.message if info is not None else "Ray does not know its job any more"
            self._finish_job(self._submissions.get(entry.study.id), submission, trouble or message)

    def _reconcile_without_job(self, entry: Entry, submission: Submission) -> None:
        if not submission.wanted:
            self._settle(submission, StudyState.INTERRUPTED, "stopped before its turn came")
        elif entry.study.state is StudyState.RUNNING and not self._is_driven(entry):
            self._submissions.requeue(submission, failures=0, not_before=0.0, reason="")

    def _check_job(self, entry: Entry, submission: Submission) -> None:
        """Stop a job that is not wanted, or whose driver hangs while Ray takes it for healthy."""
        job = submission.job
        stopped_at, trouble = self._stopping.get(job, (None, ""))
        if stopped_at is None:
            trouble = self._driver_trouble(entry, submission) if submission.wanted else ""
            if submission.wanted and not trouble:
                return
        elif self._clock() - stopped_at < STOP_AGAIN_SECONDS:
            return
        # Before anything is written: a driver that was frozen in the middle of a write keeps SQLite's lock.
        self._jobs.stop(job)
        self._stopping[job] = self._clock(), trouble
        if trouble:
            _LOG.warning("study %s: %s", submission.study_id, trouble)
            self._submissions.set_reason(submission.study_id, job, trouble)

    def _driver_trouble(self, entry: Entry, submission: Submission) -> str:
        """Why a driver has to be replaced; empty if it need not be."""
        held = holding(self._submissions.engine, submission.study_id)
        if held is not None and held.owner.job == submission.job:
            who, silent = f"process {held.owner.pid} on {held.owner.host}", held.silent_seconds
            hangs = self._is_confirmed_silent(submission.job, silent)
            return f"its driver, {who}, said nothing for {silent:.0f} s and was ended" if hangs else ""
        moments = (submission.claimed_at, submission.began_at, entry.study.ended_at)
        waited = self._clock() - max(moment for moment in (*moments, 0.0) if moment is not None)
        if waited < PATIENCE_SECONDS:
            return ""
        return f"its driver did not come to drive it within {PATIENCE_SECONDS / 60:.0f} min and was ended"

    def _is_confirmed_silent(self, job: str, seconds: float) -> bool:
        """Whether a driver is silent for too long, and was so CONFIRM_SECONDS ago: when the machine wakes up, or the
        database's clock is set, every lease looks old until the next heartbeat."""
        if seconds < STALE_SECONDS:
            self._silent.pop(job, None)
            return False
        return self._clock() - self._silent.setdefault(job, self._clock()) >= CONFIRM_SECONDS

    def _start_claimed(self, submission: Submission) -> None:
        """Start a job that was claimed and is not there, unless the server that claimed it may be about to."""
        if not submission.wanted:
            self._settle(submission, StudyState.INTERRUPTED, "stopped before its turn came")
        elif self._clock() - (submission.claimed_at or 0.0) > LOST_SECONDS:
            self._jobs.submit(submission.job, submission.study_id)

    def _finish_job(self, entry: Entry, submission: Submission, message: str) -> None:
        """Do what follows when a job has ended and its study has no driver. `message`: why it ended, if known."""
        if entry.study.state in (StudyState.COMPLETE, StudyState.FAILED):
            self._submissions.settle(submission)
        elif not submission.wanted:
            self._settle(submission, StudyState.INTERRUPTED, "stopped")
        elif submission.failures == ENDING:
            self._submissions.requeue(submission, failures=0, not_before=0.0, reason="")
        else:
            self._retry(entry, submission, message)

    def _retry(self, entry: Entry, submission: Submission, message: str) -> None:
        # While the study is queued, its reason is what was written below for the attempt before.
        written = "" if entry.study.state is StudyState.QUEUED else entry.study.reason
        reason = written or message
        lived = self._clock() - (submission.began_at or self._clock())
        failures = 1 if lived >= STEADY_SECONDS else submission.failures + 1
        if failures >= self._limits.max_attempts:
            text = f"its driver ended {failures} times in a row before the study had; the last time: {reason}"
            self._settle(submission, StudyState.FAILED, text)
            return
        pause = min(2.0 ** (failures - 1), LONGEST_PAUSE)
        text = f"its driver ended before the study had ({reason}); attempt {submission.attempt + 1} follows"
        _LOG.warning("study %s: %s in %.0f s", submission.study_id, text, pause)
        self._submissions.requeue(submission, failures=failures, not_before=self._clock() + pause, reason=text)

    def _settle(self, submission: Submission, state: StudyState, reason: str) -> None:
        if self._submissions.settle(submission, state, reason):
            self._on_abandoned(submission.study_id)

    def _is_driven(self, entry: Entry) -> bool:
        return holder(self._submissions.engine, entry.study.id) is not None

    def _start_queued(self, shape: ClusterShape) -> None:
        """Start studies in the order of the queue while there is room."""
        entries = self._submissions.unsettled()
        running = [entry for entry in entries if _has_job(entry)]
        for entry in sorted(entries, key=queue_order):
            submission = entry.submission
            if submission is None or not self._may_start(entry, submission):
                continue
            if not self._has_room(shape, [*running, entry]):
                break  # those behind it wait too; a large study would never come to its turn otherwise
            job = job_id(submission.study_id, submission.attempt + 1)
            if self._submissions.claim(submission, job) is not None:
                running.append(entry)
                self._jobs.submit(job, submission.study_id)

    def _may_start(self, entry: Entry, submission: Submission) -> bool:
        is_queued = entry.study.state is StudyState.QUEUED and submission.wanted and not submission.job
        return is_queued and submission.not_before <= self._clock() and not damage_of(entry.study.spec)

    def _has_room(self, shape: ClusterShape, entries: Sequence[Entry]) -> bool:
        """Whether each of these studies would get room for a trial."""
        if self._limits.max_running is not None and len(entries) > self._limits.max_running:
            return False
        # One study alone always starts: where the cluster is too small for it, its driver says so.
        return len(entries) == 1 or fits(shape, [demand_of(entry) for entry in entries])

    def _allocate(self, shape: ClusterShape) -> None:
        """Write down the share of the cluster that each study may use."""
        entries = [entry for entry in self._submissions.unsettled() if _has_job(entry)]
        shares = fair_shares(shape, {each.study.id: demand_of(each) for each in entries if each.study.state in ACTIVE})
        for entry in entries:
            share = shares.get(entry.study.id)
            if entry.submission is not None and share is not None and share != entry.submission.concurrency:
                self._submissions.set_concurrency(entry.submission, share)


def _has_job(entry: Entry) -> bool:
    return entry.submission is not None and bool(entry.submission.job)


def job_id(study_id: str, attempt: int) -> str:
    """The name of an attempt at a study: two servers that start the same attempt start the same job."""
    return f"{study_id}-a{attempt}"
