"""The table of submissions: what users want servers to do with studies, and which job drives each of them.

Any number of servers can share a database. Every change is one transaction that reads before it writes. A change that
follows from an earlier decision is made only if the rows have not changed since the decision.

A study that shall run and has no driver is queued. A server claims it by recording the name of the job that will drive
it. The name depends only on the study and the attempt, so two servers that start the study start the same job.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from dialin.errors import ConflictError, RateLimitedError
from dialin.lifecycle import ACTIVE, ENDED, Action, StudyState, check_possible
from dialin.store.database import Tables
from dialin.store.engine import serialized
from dialin.store.entries import (
    Entry,
    Submission,
    count_active,
    find_by_key,
    queue_order,
    read_entries,
    read_entry,
)
from dialin.store.studies import HISTORY, MOST_PAST, WAITING_FOR, Clock, StudyRow, columns_of, new_id
from dialin.store.tables import STUDIES, SUBMISSIONS
from dialin.texts import one_line

# Stored in place of the number of failures: the running job predates the resume of the study, so its end does not count
# as a failure of the next driver.
ENDING = -1


class Submissions(Tables):
    """The submissions behind an SQLAlchemy URL. Thread safe; a context manager, which closes its connections.

    `clock`: where the times of changes come from. Every method raises DatabaseError for a database that is damaged,
    gone or of another version.
    """

    def __init__(self, url: str, clock: Clock = time.time) -> None:
        super().__init__(url)
        self._clock = clock

    def submit(
        self,
        name: str,
        spec: str,
        *,
        owner: str,
        digest: str,
        priority: int = 0,
        key: str | None = None,
        most_active: int | None = None,
    ) -> tuple[Entry, bool]:
        """Put a new study into the queue, unless its owner has used the idempotency key before. Return the study that
        belongs to the key, and whether it is new.

        Raises ConflictError for a key that was used for another request, and RateLimitedError if the owner has
        `most_active` studies queued or running.
        """
        study = StudyRow(new_id(name), name, StudyState.QUEUED, "", spec, {}, self._clock(), None)
        submission = Submission(study.id, owner, priority, key, digest)
        # Submissions of one owner are serialized: otherwise several at once could all pass the limit `most_active`.
        with serialized(self._engine, f"owner {owner}") as connection:
            if (before := find_by_key(connection, owner, key, digest)) is not None:
                return before, False
            if most_active is not None and count_active(connection, owner) >= most_active:
                raise RateLimitedError(
                    f"{owner} has {most_active} studies queued or running, and more are not allowed "
                    "(DIALIN_MAX_STUDIES); wait until one has ended, or stop one",
                    30,
                )
            connection.execute(sa.insert(SUBMISSIONS).values(**vars(submission)))
            connection.execute(sa.insert(STUDIES).values(**columns_of(study)))
        return Entry(study, submission), True

    def get(self, study_id: str) -> Entry:
        """Return a study. Raises NotFoundError."""
        with self._engine.connect() as connection:
            return read_entry(connection, study_id)

    def page(
        self,
        *,
        states: Sequence[StudyState] = (),
        name: str | None = None,
        owner: str | None = None,
        archived: bool = False,
        limit: int = 50,
        before: tuple[float, str] | None = None,
    ) -> list[Entry]:
        """Return studies, the newest first. `before`: the time and the id of the last study of the page before."""
        where: list[sa.ColumnElement[bool]] = [sa.func.coalesce(SUBMISSIONS.c.archived, sa.false()) == archived]
        if states:
            where.append(STUDIES.c.state.in_([state.value for state in states]))
        if name is not None:
            where.append(STUDIES.c.name == name)
        if owner is not None:
            where.append(SUBMISSIONS.c.owner == owner)
        if before is not None:
            at, study_id = before
            older, same = STUDIES.c.created_at < at, STUDIES.c.created_at == at
            where.append(older | (same & (STUDIES.c.id < study_id)))
        return self._entries(*where, limit=limit)

    def queue(self) -> list[str]:
        """Return the ids of the queued studies that no server has claimed, the next one first."""
        queued = STUDIES.c.state == StudyState.QUEUED.value
        found = self._entries(queued & (SUBMISSIONS.c.job == "") & SUBMISSIONS.c.wanted)
        return [entry.study.id for entry in sorted(found, key=queue_order)]

    def unsettled(self) -> list[Entry]:
        """Return the submitted studies that a server has to handle: queued, running, or with a job."""
        active = STUDIES.c.state.in_([state.value for state in ACTIVE])
        found = self._entries(active | (SUBMISSIONS.c.job != ""))
        return [entry for entry in found if entry.submission is not None]

    def active_of(self, owner: str) -> int:
        """Return how many studies of an owner are queued or running."""
        with self._engine.connect() as connection:
            return count_active(connection, owner)

    def by_state(self) -> dict[str, int]:
        """Return how many studies are in each state."""
        query = sa.select(STUDIES.c.state, sa.func.count()).group_by(STUDIES.c.state)
        with self._engine.connect() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def claim(self, submission: Submission, job: str) -> Submission | None:
        """Record that `job` drives the study from now on. Return the changed submission; None if another server
        has changed it since it was read."""
        values = {"job": job, "attempt": submission.attempt + 1, "claimed_at": self._clock(), "began_at": None}
        mine = (SUBMISSIONS.c.job == "") & (SUBMISSIONS.c.attempt == submission.attempt) & SUBMISSIONS.c.wanted
        return self.get(submission.study_id).submission if self._change(submission.study_id, values, mine) else None

    def mark_started(self, study_id: str, job: str) -> bool:
        """Record that the driver in `job` has started. Return False if the study was stopped or has another job."""
        mine = (SUBMISSIONS.c.job == job) & SUBMISSIONS.c.wanted
        now = self._clock()
        values = {"began_at": now, "started_at": sa.func.coalesce(SUBMISSIONS.c.started_at, now)}
        return self._change(study_id, values, mine)

    def mark_aborted(self, study_id: str, job: str, state: StudyState, reason: str) -> None:
        """Record that the driver in `job` ends before its study does. `state`: INTERRUPTED if another driver may be
        started, else FAILED. Nothing changes if another job drives the study now, or if the study is complete."""
        with self._held(study_id) as (connection, entry):
            if entry.submission is None or entry.submission.job != job or entry.study.state is StudyState.COMPLETE:
                return
            _set_study(connection, study_id, state=state.value, reason=one_line(reason), ended_at=self._clock())

    def set_reason(self, study_id: str, job: str, reason: str) -> bool:
        """Record why the job of a study is about to be ended. Return False if another job drives the study now, or if
        the study has ended."""
        with self._held(study_id) as (connection, entry):
            mine = entry.submission is not None and entry.submission.job == job
            if not mine or entry.study.state not in ACTIVE:
                return False
            _set_study(connection, study_id, reason=one_line(reason))
        return True

    def set_waiting_for(self, study_id: str, job: str, text: str) -> None:
        """Record what the trials of a study are waiting for; empty: they are not waiting. Nothing changes if another
        job drives the study now."""
        with self._held(study_id) as (connection, entry):
            if entry.submission is not None and entry.submission.job == job:
                said = {**entry.study.summary, WAITING_FOR: text}
                _set_study(connection, study_id, summary=json.dumps(said))

    def settle(self, submission: Submission, state: StudyState | None = None, reason: str = "") -> bool:
        """Record that the job has ended and that no other job has to follow. `state`: the new state of the study, used
        if its driver has recorded no end. Return False if the submission was changed since it was read."""
        return self._record_end(submission, {"job": "", "failures": 0}, state, reason)

    def requeue(self, submission: Submission, *, failures: int, not_before: float, reason: str) -> bool:
        """Record that the job has ended and that another job has to follow, no earlier than `not_before`. Return
        False if the submission was changed since it was read."""
        values = {"job": "", "failures": failures, "not_before": not_before}
        return self._record_end(submission, values, StudyState.QUEUED, reason)

    def request_stop(self, study_id: str) -> Entry:
        """Ask for a study to stop. A queued study is interrupted immediately.

        Raises NotFoundError, and ConflictError for a study that was not submitted, is archived or has ended.
        """
        with self._held(study_id) as (connection, entry):
            submission, study = _unarchived_submission(entry), entry.study
            check_possible(study_id, study.state, Action.STOP)
            _set_submission(connection, study_id, wanted=False)
            if not submission.job:
                ended = {"state": StudyState.INTERRUPTED.value, "ended_at": self._clock()}
                _set_study(connection, study_id, reason="stopped before its turn came", **ended)
        return self.get(study_id)

    def request_resume(self, study_id: str) -> Entry:
        """Put a study that was interrupted or has failed into the queue again.

        Raises NotFoundError, and ConflictError for a study that was not submitted, is archived or cannot be resumed.
        """
        with self._held(study_id) as (connection, entry):
            submission = _unarchived_submission(entry)
            check_possible(study_id, entry.study.state, Action.RESUME)
            _queue_again(connection, submission, entry.study.spec)
        return self.get(study_id)

    def extend(self, study_id: str, spec: str, read: Entry) -> Entry:
        """Put a study that has ended into the queue again, with this specification, which was made from `read`.

        Raises what `request_resume` raises, and ConflictError if the study was changed since it was read, because the
        change of another caller would be lost.
        """
        with self._held(study_id) as (connection, entry):
            submission, study = _unarchived_submission(entry), entry.study
            was_resumed = read.study.state not in ACTIVE and study.state in ACTIVE
            if was_resumed or study.spec != read.study.spec:
                raise ConflictError(
                    f"study {study_id} was changed by another command at the same time, and is {study.state.value} "
                    "now; check its state and try again"
                )
            check_possible(study_id, study.state, Action.EXTEND)
            _queue_again(connection, submission, spec)
        return self.get(study_id)

    def archive(self, study_id: str) -> None:
        """Remove a study that has ended from the list. Raises NotFoundError, and ConflictError for a study that has not
        ended or was not submitted."""
        with self._held(study_id) as (connection, entry):
            check_possible(study_id, entry.study.state, Action.ARCHIVE)
            _submission_of(entry)
            _set_submission(connection, study_id, archived=True)

    def set_concurrency(self, submission: Submission, concurrency: int) -> None:
        """Record how many trials of a study may run at a time, if the job that it was computed for still drives it."""
        self._change(submission.study_id, {"concurrency": concurrency}, SUBMISSIONS.c.job == submission.job)

    def concurrency_of(self, study_id: str) -> int | None:
        """Return how many trials of a study may run at a time; None if that was not computed, or for an unknown id."""
        query = sa.select(SUBMISSIONS.c.concurrency).where(SUBMISSIONS.c.study_id == study_id)
        with self._engine.connect() as connection:
            found: int | None = connection.execute(query).scalar_one_or_none()
        return found

    @contextmanager
    def _held(self, study_id: str) -> Iterator[tuple[sa.Connection, Entry]]:
        """Open a transaction that locks a study, and read the study in it. Raises NotFoundError."""
        with serialized(self._engine, f"study {study_id}") as connection:
            # The study's driver does not take this lock, so both rows are locked before either of them is read.
            for column in (SUBMISSIONS.c.study_id, STUDIES.c.id):
                connection.execute(sa.select(column).where(column == study_id).with_for_update())
            yield connection, read_entry(connection, study_id)

    def _record_end(
        self, submission: Submission, values: dict[str, Any], state: StudyState | None, reason: str
    ) -> bool:
        with self._held(submission.study_id) as (connection, entry):
            if entry.submission is None or not _is_as_read(entry.submission, submission):
                return False
            _set_submission(connection, submission.study_id, **values)
            # An end that the driver has recorded is not overwritten.
            if state is not None and entry.study.state in (*ACTIVE, StudyState.INTERRUPTED):
                ended_at = self._clock() if state in ENDED else None
                change: dict[str, Any] = {"state": state.value, "reason": one_line(reason), "ended_at": ended_at}
                summary = _without_driver(entry.study, reason if state is StudyState.QUEUED else "", self._clock())
                if summary != entry.study.summary:  # a summary that cannot be read stays as it is
                    change["summary"] = json.dumps(summary)
                _set_study(connection, submission.study_id, **change)
        return True

    def _change(self, study_id: str, values: dict[str, Any], where: sa.ColumnElement[bool]) -> bool:
        with self._engine.begin() as connection:
            done = connection.execute(
                sa.update(SUBMISSIONS).where((SUBMISSIONS.c.study_id == study_id) & where).values(**values)
            )
        return done.rowcount == 1

    def _entries(self, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Entry]:
        with self._engine.connect() as connection:
            return read_entries(connection, *where, limit=limit)


def _is_as_read(now: Submission, read: Submission) -> bool:
    """Whether no server and no caller has changed a submission since it was read."""
    names = ("job", "attempt", "wanted", "failures")
    return all(getattr(now, name) == getattr(read, name) for name in names)


def _without_driver(study: StudyRow, text: str, now: float) -> dict[str, Any]:
    """Return the summary of a study whose driver is gone: no trial is waiting, and the reason is in the history."""
    summary = {name: value for name, value in study.summary.items() if name != WAITING_FOR}
    if text:
        past = [*summary.get(HISTORY, ()), {"time": round(now, 3), "text": one_line(text)}]
        summary[HISTORY] = past[-MOST_PAST:]
    return summary


def _submission_of(entry: Entry) -> Submission:
    if entry.submission is None:
        raise not_submitted(entry.study.id)
    return entry.submission


def not_submitted(study_id: str) -> ConflictError:
    """Return the error for a change to a study that was started without a server."""
    return ConflictError(
        f"study {study_id} was not submitted to a server: it was started with `dialin run`; change it on the machine "
        "where it runs, with commands without --server"
    )


def _unarchived_submission(entry: Entry) -> Submission:
    submission = _submission_of(entry)
    if submission.archived:
        raise ConflictError(f"study {entry.study.id} is archived, and archived studies cannot be changed")
    return submission


def _queue_again(connection: sa.Connection, submission: Submission, spec: str) -> None:
    failures = ENDING if submission.job else 0
    _set_submission(connection, submission.study_id, wanted=True, failures=failures, not_before=0.0)
    queued = {"state": StudyState.QUEUED.value, "reason": "", "ended_at": None, "spec": spec}
    _set_study(connection, submission.study_id, **queued)


def _set_submission(connection: sa.Connection, study_id: str, **values: object) -> None:
    connection.execute(sa.update(SUBMISSIONS).where(SUBMISSIONS.c.study_id == study_id).values(**values))


def _set_study(connection: sa.Connection, study_id: str, **values: object) -> None:
    connection.execute(sa.update(STUDIES).where(STUDIES.c.id == study_id).values(**values))
