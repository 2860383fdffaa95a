"""Makes what runs be what is wanted. It looks at both, again and again, and takes one step at a time; whatever it was
told or has done before does not matter, so it may be killed at any moment, and several may work on one database.

    wanted, queued              -> claim it, start its job            (by priority, then age, while there is room)
    claimed, job not there      -> start it: whoever claimed it was interrupted
    wanted, job gone            -> queue it again, later each time; after too many in a row it has failed
    not wanted, job there       -> stop it
    wanted, its driver silent   -> stop the job; it is queued again when that is gone
    ended, job gone             -> done with it
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from dialin.errors import ClusterError, DatabaseError, DialinError
from dialin.execution.ray_jobs import Jobs
from dialin.lifecycle import ACTIVE, StudyState
from dialin.planning.plan import ClusterShape
from dialin.specification import damage_of, stored_spec
from dialin.store.leases import BEAT_SECONDS, STALE_SECONDS, holder, holding
from dialin.store.submissions import ENDING, Entry, Submission, Submissions, turn

_LOG = logging.getLogger(__name__)

LOST_SECONDS = 10.0  # a job that was claimed so long ago and is not there was never started
STEADY_SECONDS = 120.0  # a driver that has lived so long counts as a good one
LONGEST_PAUSE = 60.0
# From a job's claim, its beginning or its study's end until its driver holds the lease or is gone: Ray may be busy, a
# data set may be downloaded, MLflow may be slow. Whatever takes longer hangs.
PATIENCE_SECONDS = 3600.0
CONFIRM_SECONDS = 2 * BEAT_SECONDS  # a driver that is silent is looked at again after that
STOP_AGAIN_SECONDS = 60.0  # a job that was stopped and is still there is stopped again


@dataclass(frozen=True)
class Demand:
    """What one trial of a study takes, and how many of them it would run at a time."""

    cpus: float
    gpus: float
    most: int


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
    """Runs the steps above. `on_abandoned` is called with the id of a study that ended without its driver's report;
    `clock` gives seconds since 1970."""

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
        self._wake = threading.Event()
        self._ended = threading.Event()
        self._stopping: dict[str, tuple[float, str]] = {}  # job -> when it was last told, and why if it hangs
        self._silent: dict[str, float] = {}  # job -> since when its driver was seen to be silent for too long
        self.seen_at: float | None = None  # when everything was last looked at
        self.trouble = ""  # why not since then
        self.unreadable: Mapping[str, str] = {}  # studies that cannot be scheduled as they are stored, and why

    def wake(self) -> None:
        """Something has changed: look now."""
        self._wake.set()

    def run(self) -> None:
        """Look, act, wait, until `close`."""
        while not self._ended.is_set():
            try:
                self.step()
            except (ClusterError, DatabaseError, sa.exc.SQLAlchemyError) as error:
                self._note(str(error).partition("\n")[0])
            except Exception as error:  # noqa: BLE001  the loop must survive
                _LOG.exception("a step failed")
                self._note(f"{type(error).__name__}: {error}")
            self._wake.wait(self._limits.poll_seconds)
            self._wake.clear()

    def close(self) -> None:
        self._ended.set()
        self._wake.set()

    def step(self) -> None:
        """One look at everything, and what follows from it."""
        entries = [(entry, entry.submission) for entry in self._submissions.unsettled() if entry.submission is not None]
        shape = self._jobs.shape() if entries else ClusterShape(0.0)
        self._look_for_damage([entry for entry, _ in entries])
        locked: sa.exc.OperationalError | None = None
        for entry, submission in entries:
            try:
                self._guarded(self._see_to, entry, submission)
            except sa.exc.OperationalError as error:
                locked = error  # perhaps by a driver that hangs: the next of them may be the one to be ended
        if locked is not None:
            raise locked
        self._start_some(shape)
        self._share_out(shape)
        self.seen_at, self.trouble = self._clock(), ""

    def _guarded(self, action: Callable[[Entry, Submission], None], entry: Entry, submission: Submission) -> None:
        """One study's trouble is not the others'."""
        try:
            action(entry, submission)
        except (ClusterError, DatabaseError, sa.exc.SQLAlchemyError):
            raise
        except DialinError as error:
            _LOG.warning("study %s: %s", entry.study.id, error)
        except Exception:  # noqa: BLE001  the other studies go on
            _LOG.exception("study %s", entry.study.id)

    def _look_for_damage(self, entries: Sequence[Entry]) -> None:
        """Note which studies cannot be read; each is said once. They are not started, and keep nobody from being so."""
        found = {each.study.id: text for each in entries if (text := each.study.damage or damage_of(each.study.spec))}
        for study_id, text in found.items():
            if self.unreadable.get(study_id) != text:
                _LOG.warning("study %s cannot be read as it is stored: %s", study_id, text)
        self.unreadable = found

    def _see_to(self, entry: Entry, submission: Submission) -> None:
        if not submission.job:
            if not submission.wanted:
                self._close(submission, StudyState.INTERRUPTED, "stopped before its turn came")
            elif entry.study.state is StudyState.RUNNING and not self._is_driven(entry):
                self._submissions.requeue(submission, failures=0, not_before=0.0, reason="")
            return
        info = self._jobs.info(submission.job)
        if info is None and submission.began_at is None:
            self._start_again(submission)
        elif info is not None and not info.ended:
            self._see_after(entry, submission)
        elif not self._is_driven(entry):
            self._silent.pop(submission.job, None)
            _, trouble = self._stopping.pop(submission.job, (0.0, ""))
            said = info.message if info is not None else "Ray does not know its job any more"
            self._see_off(self._submissions.get(entry.study.id), submission, trouble or said)

    def _see_after(self, entry: Entry, submission: Submission) -> None:
        """The job is there: end it when it is not wanted, or its driver hangs while Ray takes it for well."""
        job = submission.job
        told_at, trouble = self._stopping.get(job, (None, ""))
        if told_at is None:
            trouble = self._trouble_of(entry, submission) if submission.wanted else ""
            if submission.wanted and not trouble:
                return
        elif self._clock() - told_at < STOP_AGAIN_SECONDS:
            return
        # Before anything is written: a driver that was frozen in the middle of a write keeps SQLite's lock.
        self._jobs.stop(job)
        self._stopping[job] = self._clock(), trouble
        if trouble:
            _LOG.warning("study %s: %s", submission.study_id, trouble)
            self._submissions.say(submission.study_id, job, trouble)

    def _trouble_of(self, entry: Entry, submission: Submission) -> str:
        """Why the driver that is there has to be replaced; empty: it does not."""
        held = holding(self._submissions.engine, submission.study_id)
        if held is not None and held.owner.job == submission.job:
            who, silent = f"process {held.owner.pid} on {held.owner.host}", held.silent_seconds
            is_sure = self._is_still_silent(submission.job, silent)
            return f"its driver, {who}, said nothing for {silent:.0f} s and was ended" if is_sure else ""
        moments = (submission.claimed_at, submission.began_at, entry.study.ended_at)
        waited = self._clock() - max(moment for moment in (*moments, 0.0) if moment is not None)
        if waited < PATIENCE_SECONDS:
            return ""
        return f"its driver did not come to drive it within {PATIENCE_SECONDS / 60:.0f} min and was ended"

    def _is_still_silent(self, job: str, seconds: float) -> bool:
        """Whether a driver is silent for too long, and was so a while ago: when the machine wakes up, or the database's
        clock is set, every lease looks old until the next heartbeat."""
        if seconds < STALE_SECONDS:
            self._silent.pop(job, None)
            return False
        return self._clock() - self._silent.setdefault(job, self._clock()) >= CONFIRM_SECONDS

    def _start_again(self, submission: Submission) -> None:
        """A job that somebody claimed and did not come to start, unless they are about to."""
        if not submission.wanted:
            self._close(submission, StudyState.INTERRUPTED, "stopped before its turn came")
        elif self._clock() - (submission.claimed_at or 0.0) > LOST_SECONDS:
            self._jobs.submit(submission.job, submission.study_id)

    def _see_off(self, entry: Entry, submission: Submission, message: str) -> None:
        """The job has ended, and nobody drives the study."""
        if entry.study.state in (StudyState.COMPLETE, StudyState.FAILED):
            self._submissions.settle(submission)
        elif not submission.wanted:
            self._close(submission, StudyState.INTERRUPTED, "stopped")
        elif submission.failures == ENDING:
            self._submissions.requeue(submission, failures=0, not_before=0.0, reason="")
        else:
            self._retry(entry, submission, message)

    def _retry(self, entry: Entry, submission: Submission, message: str) -> None:
        reason = entry.study.reason or message
        lived = self._clock() - (submission.began_at or self._clock())
        failures = 1 if lived >= STEADY_SECONDS else submission.failures + 1
        if failures >= self._limits.max_attempts:
            text = f"its driver ended {failures} times in a row before the study had; the last time: {reason}"
            self._close(submission, StudyState.FAILED, text)
            return
        pause = min(2.0 ** (failures - 1), LONGEST_PAUSE)
        text = f"its driver ended before the study had ({reason}); attempt {submission.attempt + 1} follows"
        _LOG.warning("study %s: %s in %.0f s", submission.study_id, text, pause)
        self._submissions.requeue(submission, failures=failures, not_before=self._clock() + pause, reason=text)

    def _close(self, submission: Submission, state: StudyState, reason: str) -> None:
        if self._submissions.settle(submission, state, reason):
            self._on_abandoned(submission.study_id)

    def _is_driven(self, entry: Entry) -> bool:
        return holder(self._submissions.engine, entry.study.id) is not None

    def _start_some(self, shape: ClusterShape) -> None:
        entries = self._submissions.unsettled()
        running = [entry for entry in entries if entry.submission is not None and entry.submission.job]
        waiting = [
            (entry, entry.submission)
            for entry in entries
            if entry.study.state is StudyState.QUEUED and entry.submission is not None and not entry.submission.job
        ]
        waiting.sort(key=lambda pair: turn(pair[0]))
        for entry, submission in waiting:
            if not submission.wanted or submission.not_before > self._clock() or damage_of(entry.study.spec):
                continue
            if not self._has_room(shape, [*running, entry]):
                break  # those behind it wait for it: a large study would never come to its turn
            job = job_id(submission.study_id, submission.attempt + 1)
            claimed = self._submissions.claim(submission, job)
            if claimed is not None:
                running.append(entry)
                self._jobs.submit(job, submission.study_id)

    def _has_room(self, shape: ClusterShape, entries: Sequence[Entry]) -> bool:
        """Whether each study would get a trial's worth. One alone always may: its plan says what is wrong with it."""
        if self._limits.max_running is not None and len(entries) > self._limits.max_running:
            return False
        demands = [demand_of(entry) for entry in entries]
        fits = sum(d.cpus for d in demands) <= shape.cpus and sum(d.gpus for d in demands) <= shape.gpus
        return len(entries) == 1 or fits

    def _share_out(self, shape: ClusterShape) -> None:
        entries = [e for e in self._submissions.unsettled() if e.submission is not None and e.submission.job]
        shares = fair_shares(shape, {e.study.id: demand_of(e) for e in entries if e.study.state in ACTIVE})
        for entry in entries:
            share = shares.get(entry.study.id)
            if entry.submission is not None and share is not None and share != entry.submission.concurrency:
                self._submissions.share(entry.submission, share)

    def _note(self, trouble: str) -> None:
        if trouble != self.trouble:
            _LOG.warning("%s", trouble)
        self.trouble = trouble


def job_id(study_id: str, attempt: int) -> str:
    """The one name that an attempt at a study has."""
    return f"{study_id}-a{attempt}"


def demand_of(entry: Entry) -> Demand:
    """What a study would take of the cluster if it were alone. One whose specification cannot be read has a driver of
    another version, if any: it keeps what it has."""
    try:
        spec = stored_spec(entry.study.spec)
    except DialinError:
        share = entry.submission.concurrency if entry.submission is not None else None
        return Demand(1.0, 0.0, share or 1)
    asked = spec.resources
    return Demand(asked.cpus, asked.gpus or 0.0, min(asked.concurrency or spec.budget.trials, spec.budget.trials))


def fair_shares(shape: ClusterShape, demands: Mapping[str, Demand]) -> dict[str, int]:
    """How many trials each study may run at a time. All get one; what is left goes one by one to the study that has
    least of the cluster, as long as it wants more and one of its trials still fits."""
    shares = dict.fromkeys(demands, 1)
    cpus = shape.cpus - sum(demand.cpus for demand in demands.values())
    gpus = shape.gpus - sum(demand.gpus for demand in demands.values())
    open_ = set(demands)
    while open_:
        name = min(open_, key=lambda each: (shares[each] * _weight(shape, demands[each]), each))
        demand = demands[name]
        if shares[name] >= demand.most or demand.cpus > cpus + 1e-9 or demand.gpus > gpus + 1e-9:
            open_.discard(name)
            continue
        shares[name] += 1
        cpus, gpus = cpus - demand.cpus, gpus - demand.gpus
    return shares


def _weight(shape: ClusterShape, demand: Demand) -> float:
    """What part of the cluster a trial takes: of the scarcer of the two."""
    of_gpus = demand.gpus / shape.gpus if shape.gpus else 0.0
    return max(demand.cpus / shape.cpus if shape.cpus else 0.0, of_gpus, 1e-9)
