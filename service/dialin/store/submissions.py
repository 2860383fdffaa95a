"""What a server was asked to do with studies, and how far it has come: one row for each study that was submitted to it,
beside the study's own. Every change reads and writes in one transaction, and where a decision was made before it, it
holds only while the rows still are as they were read; so any number of servers can work on one database.

A study that is wanted and has no driver is queued. Whoever claims it names the job that will drive it; the name is a
function of the study and the attempt, so two who start it start the same job.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from dialin.errors import ConflictError, NotFoundError, RateLimitedError
from dialin.lifecycle import ACTIVE, ENDED, Action, StudyState, check_possible
from dialin.store.database import connect
from dialin.store.engine import serialized
from dialin.store.studies import HISTORY, MOST_PAST, WAITING_FOR, StudyRow, columns_of, new_id, number, row_of
from dialin.store.tables import STUDIES, SUBMISSIONS
from dialin.texts import one_line

ENDING = -1  # in place of the count of failures: the job that is there belongs to the study's life before


@dataclass(frozen=True)
class Submission:
    """What a server knows of a study beyond the study. `wanted`: it is to run. `job`: the one that drives it, of
    attempt number `attempt`; empty: none. `failures`: drivers in a row that died; the next is not started before
    `not_before`. `concurrency`: its share of the cluster. Times in seconds since 1970."""

    study_id: str
    owner: str
    priority: int
    idempotency_key: str | None
    digest: str
    wanted: bool = True
    archived: bool = False
    attempt: int = 0
    failures: int = 0
    not_before: float = 0.0
    job: str = ""
    claimed_at: float | None = None
    began_at: float | None = None
    started_at: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True)
class Entry:
    """A study with its submission; None for one that was run without a server."""

    study: StudyRow
    submission: Submission | None


def turn(entry: Entry) -> tuple[int, float]:
    """What the queue is ordered by: priority, then age."""
    return -(entry.submission.priority if entry.submission is not None else 0), entry.study.created_at


class Submissions:
    """The submissions behind an SQLAlchemy URL. A context manager, thread safe."""

    def __init__(self, url: str) -> None:
        self._engine = connect(url)

    @property
    def engine(self) -> sa.Engine:
        """For what else is in that database."""
        return self._engine

    def __enter__(self) -> Submissions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

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
        """A new study in the queue; or, of a key that its owner has used before, the study from then. The second says
        whether it is new.

        Raises ConflictError for a key that was used for something else, RateLimitedError when the owner has
        `most_active` studies queued or running.
        """
        study = StudyRow(new_id(name), name, StudyState.QUEUED, "", spec, {}, time.time(), None)
        submission = Submission(study.id, owner, priority, key, digest)
        # One submission of an owner after the other: several at once would all find room for one more.
        with serialized(self._engine, f"owner {owner}") as connection:
            if (before := _by_key(connection, owner, key, digest)) is not None:
                return before, False
            if most_active is not None and _active_of(connection, owner) >= most_active:
                raise RateLimitedError(
                    f"{owner} has {most_active} studies queued or running; at most so many are taken", 30
                )
            connection.execute(sa.insert(SUBMISSIONS).values(**vars(submission)))
            connection.execute(sa.insert(STUDIES).values(**columns_of(study)))
        return Entry(study, submission), True

    def get(self, study_id: str) -> Entry:
        """Raises NotFoundError."""
        with self._engine.connect() as connection:
            return _get(connection, study_id)

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
        """Studies, the newest first; `before`: the time and the id of the last one that was seen."""
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
        """The studies that wait for their turn, in the order of their turns."""
        queued = STUDIES.c.state == StudyState.QUEUED.value
        found = self._entries(queued & (SUBMISSIONS.c.job == "") & SUBMISSIONS.c.wanted)
        return [entry.study.id for entry in sorted(found, key=turn)]

    def unsettled(self) -> list[Entry]:
        """Those that a server has something to do about: queued, running, or with a job."""
        active = STUDIES.c.state.in_([state.value for state in ACTIVE])
        found = self._entries(active | (SUBMISSIONS.c.job != ""))
        return [entry for entry in found if entry.submission is not None]

    def active_of(self, owner: str) -> int:
        """How many studies of an owner are queued or running."""
        with self._engine.connect() as connection:
            return _active_of(connection, owner)

    def by_state(self) -> dict[str, int]:
        """How many studies are in each state."""
        query = sa.select(STUDIES.c.state, sa.func.count()).group_by(STUDIES.c.state)
        with self._engine.connect() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def claim(self, submission: Submission, job: str) -> Submission | None:
        """Note that `job` drives the study from now on; None when another server was faster."""
        values = {"job": job, "attempt": submission.attempt + 1, "claimed_at": time.time(), "began_at": None}
        mine = (SUBMISSIONS.c.job == "") & (SUBMISSIONS.c.attempt == submission.attempt) & SUBMISSIONS.c.wanted
        return self.get(submission.study_id).submission if self._change(submission.study_id, values, mine) else None

    def began(self, study_id: str, job: str) -> bool:
        """A driver says that it begins; False when it is not the one that is wanted."""
        mine = (SUBMISSIONS.c.job == job) & SUBMISSIONS.c.wanted
        now = time.time()
        values = {"began_at": now, "started_at": sa.func.coalesce(SUBMISSIONS.c.started_at, now)}
        return self._change(study_id, values, mine)

    def broke_off(self, study_id: str, job: str, state: StudyState, reason: str) -> None:
        """A driver says that it ends before its study has: `interrupted`, it may go on; `failed`, it cannot."""
        with self._held(study_id) as (connection, entry):
            if entry.submission is None or entry.submission.job != job or entry.study.state is StudyState.COMPLETE:
                return
            _set_study(connection, study_id, state=state.value, reason=one_line(reason), ended_at=time.time())

    def say(self, study_id: str, job: str, reason: str) -> bool:
        """Note why the job of a study is about to be ended; False when it is not its job any more, or it has ended."""
        with self._held(study_id) as (connection, entry):
            mine = entry.submission is not None and entry.submission.job == job
            if not mine or entry.study.state not in ACTIVE:
                return False
            _set_study(connection, study_id, reason=one_line(reason))
        return True

    def wait_for(self, study_id: str, job: str, text: str) -> None:
        """A driver says what its trials wait for; empty: they do not."""
        with self._held(study_id) as (connection, entry):
            if entry.submission is not None and entry.submission.job == job:
                said = {**entry.study.summary, WAITING_FOR: text}
                _set_study(connection, study_id, summary=json.dumps(said))

    def settle(self, submission: Submission, state: StudyState | None = None, reason: str = "") -> bool:
        """The job is gone and nothing is left to do. `state`: how the study ended, where its driver did not say."""
        return self._ended(submission, {"job": "", "failures": 0}, state, reason)

    def requeue(self, submission: Submission, *, failures: int, not_before: float, reason: str) -> bool:
        """The job is gone and the study is to go on with another one, not before a time."""
        values = {"job": "", "failures": failures, "not_before": not_before}
        return self._ended(submission, values, StudyState.QUEUED, reason)

    def want(self, study_id: str, wanted: bool) -> Entry:
        """Ask for a study to stop, or to go on.

        Raises NotFoundError; ConflictError for one that was not submitted, or has ended, or is wanted already.
        """
        with self._held(study_id) as (connection, entry):
            submission = _shown(entry)
            if wanted:
                _go_on(connection, entry, submission)
            else:
                _stop(connection, entry, submission)
        return self.get(study_id)

    def extend(self, study_id: str, spec: str, read: Entry) -> Entry:
        """Have a study that has ended go on by this specification, which was made from what `read` says of it.

        Raises as `want`, and ConflictError when the study has changed since it was read: what another one has added
        meanwhile would be lost.
        """
        with self._held(study_id) as (connection, entry):
            submission, study = _shown(entry), entry.study
            goes_on = read.study.state not in ACTIVE and study.state in ACTIVE
            if goes_on or study.spec != read.study.spec:
                raise ConflictError(
                    f"study {study_id} has changed meanwhile, and is {study.state.value} now; look at it and ask again"
                )
            _go_on(connection, entry, submission, spec)
        return self.get(study_id)

    def archive(self, study_id: str) -> None:
        """Take a study that has ended off the list. Raises NotFoundError, and ConflictError while it has not ended."""
        with self._held(study_id) as (connection, entry):
            check_possible(study_id, entry.study.state, Action.ARCHIVE)
            _submitted(entry)
            _set_submission(connection, study_id, archived=True)

    def share(self, submission: Submission, concurrency: int) -> None:
        """Note how many trials of a study may run at a time, while the job that it was computed for is still there."""
        self._change(submission.study_id, {"concurrency": concurrency}, SUBMISSIONS.c.job == submission.job)

    def share_of(self, study_id: str) -> int | None:
        query = sa.select(SUBMISSIONS.c.concurrency).where(SUBMISSIONS.c.study_id == study_id)
        with self._engine.connect() as connection:
            found: int | None = connection.execute(query).scalar_one_or_none()
        return found

    @contextmanager
    def _held(self, study_id: str) -> Iterator[tuple[sa.Connection, Entry]]:
        """A study as it is, and a transaction until whose end nobody else changes it. Raises NotFoundError."""
        with serialized(self._engine, f"study {study_id}") as connection:
            # Its driver writes without that key: both rows are locked before either is read.
            for column in (SUBMISSIONS.c.study_id, STUDIES.c.id):
                connection.execute(sa.select(column).where(column == study_id).with_for_update())
            yield connection, _get(connection, study_id)

    def _ended(self, submission: Submission, values: dict[str, Any], state: StudyState | None, reason: str) -> bool:
        with self._held(submission.study_id) as (connection, entry):
            if entry.submission is None or not _is_as_read(entry.submission, submission):
                return False
            _set_submission(connection, submission.study_id, **values)
            # What its driver has said of its end stands.
            if state is not None and entry.study.state in (*ACTIVE, StudyState.INTERRUPTED):
                ended_at = time.time() if state in ENDED else None
                change: dict[str, Any] = {"state": state.value, "reason": one_line(reason), "ended_at": ended_at}
                said = _with_past(entry.study, reason if state is StudyState.QUEUED else "")
                if said != entry.study.summary:  # what cannot be read stays as it is
                    change["summary"] = json.dumps(said)
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
            return _entries(connection, *where, limit=limit)


def _is_as_read(now: Submission, read: Submission) -> bool:
    """Whether nobody has done or asked for anything since a submission was read."""
    names = ("job", "attempt", "wanted", "failures")
    return all(getattr(now, name) == getattr(read, name) for name in names)


def _with_past(study: StudyRow, text: str) -> dict[str, Any]:
    """Its summary without a driver: nothing waits, and why the last driver is gone stays in the history."""
    summary = {name: value for name, value in study.summary.items() if name != WAITING_FOR}
    if text:
        past = [*summary.get(HISTORY, ()), {"time": round(time.time(), 3), "text": one_line(text)}]
        summary[HISTORY] = past[-MOST_PAST:]
    return summary


def _submitted(entry: Entry) -> Submission:
    if entry.submission is None:
        raise ConflictError(f"study {entry.study.id} was not submitted to a server; it is the command line's")
    return entry.submission


def _shown(entry: Entry) -> Submission:
    """The submission of a study that is on the list."""
    submission = _submitted(entry)
    if submission.archived:
        raise ConflictError(f"study {entry.study.id} is archived")
    return submission


def _stop(connection: sa.Connection, entry: Entry, submission: Submission) -> None:
    study = entry.study
    check_possible(study.id, study.state, Action.STOP)
    _set_submission(connection, study.id, wanted=False)
    if not submission.job:  # it waits for its turn
        ended = {"state": StudyState.INTERRUPTED.value, "ended_at": time.time()}
        _set_study(connection, study.id, reason="stopped before its turn came", **ended)


def _go_on(connection: sa.Connection, entry: Entry, submission: Submission, spec: str | None = None) -> None:
    study = entry.study
    check_possible(study.id, study.state, Action.RESUME if spec is None else Action.EXTEND)
    # Where its last job is still about to end, that end is no failure of the next one.
    _set_submission(connection, study.id, wanted=True, failures=ENDING if submission.job else 0, not_before=0.0)
    _set_study(connection, study.id, state=StudyState.QUEUED.value, reason="", ended_at=None, spec=spec or study.spec)


def _set_submission(connection: sa.Connection, study_id: str, **values: object) -> None:
    connection.execute(sa.update(SUBMISSIONS).where(SUBMISSIONS.c.study_id == study_id).values(**values))


def _set_study(connection: sa.Connection, study_id: str, **values: object) -> None:
    connection.execute(sa.update(STUDIES).where(STUDIES.c.id == study_id).values(**values))


def _by_key(connection: sa.Connection, owner: str, key: str | None, digest: str) -> Entry | None:
    if key is None:
        return None
    found = _entries(connection, (SUBMISSIONS.c.owner == owner) & (SUBMISSIONS.c.idempotency_key == key))
    if found and found[0].submission is not None and found[0].submission.digest != digest:
        raise ConflictError(f"the idempotency key {key!r} was used for another submission, {found[0].study.id}")
    return found[0] if found else None


def _active_of(connection: sa.Connection, owner: str) -> int:
    query = (
        sa.select(sa.func.count())
        .select_from(STUDIES.join(SUBMISSIONS, STUDIES.c.id == SUBMISSIONS.c.study_id))
        .where(SUBMISSIONS.c.owner == owner, STUDIES.c.state.in_([state.value for state in ACTIVE]))
    )
    return int(connection.execute(query).scalar_one())


def _get(connection: sa.Connection, study_id: str) -> Entry:
    found = _entries(connection, STUDIES.c.id == study_id)
    if not found:
        raise NotFoundError(f"no study {study_id!r}")
    return found[0]


def _entries(connection: sa.Connection, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Entry]:
    joined = STUDIES.outerjoin(SUBMISSIONS, STUDIES.c.id == SUBMISSIONS.c.study_id)
    query = (
        sa.select(STUDIES, *[column.label(f"submission_{column.name}") for column in SUBMISSIONS.c])
        .select_from(joined)
        .where(*where)
        .order_by(STUDIES.c.created_at.desc(), STUDIES.c.id.desc())
        .limit(limit)
    )
    return [_entry(dict(row._mapping)) for row in connection.execute(query)]


def _entry(columns: dict[str, Any]) -> Entry:
    """A study with its submission. What cannot be read of either is named in the study's `damage`."""
    study = row_of({column.name: columns[column.name] for column in STUDIES.c})
    values = {column.name: columns[f"submission_{column.name}"] for column in SUBMISSIONS.c}
    if values["study_id"] is None:
        return Entry(study, None)
    damage = [study.damage] if study.damage else []
    for name in ("priority", "attempt", "failures"):
        values[name] = int(number(values, name, 0, damage))
    for name in ("not_before", "claimed_at", "began_at", "started_at"):
        values[name] = None if values[name] is None else number(values, name, 0.0, damage)
    if values["concurrency"] is not None:
        values["concurrency"] = int(number(values, "concurrency", 1, damage))
    return Entry(replace(study, damage="; ".join(damage)), Submission(**values))
