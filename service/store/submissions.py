"""What a server was asked to do with studies, and how far it has come: one row for each study that was submitted to it,
beside the study's own. Every change is one transaction that looks first whether things still are as they were, so any
number of servers can work on one database.

A study that is wanted and has no driver is queued. Whoever claims it names the job that will drive it; the name is a
function of the study and the attempt, so two who start it start the same job.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.errors import ConflictError, NotFoundError, RateLimitedError
from service.store.database import METADATA, connect
from service.store.studies import STUDIES, StudyRow, StudyState, columns_of, new_id, row_of

_SUBMISSIONS = sa.Table(
    "dialin_submissions",
    METADATA,
    sa.Column("study_id", sa.String(96), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("idempotency_key", sa.String(128)),
    sa.Column("digest", sa.String(64), nullable=False),  # of what was sent
    sa.Column("wanted", sa.Boolean, nullable=False),  # whether it is to run, or to stop
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),  # drivers that have died in a row
    sa.Column("not_before", sa.Float, nullable=False),
    sa.Column("job", sa.String(128), nullable=False),  # that drives it; empty: none
    sa.Column("claimed_at", sa.Float),
    sa.Column("began_at", sa.Float),
    sa.Column("started_at", sa.Float),
    sa.Column("concurrency", sa.Integer),
    sa.UniqueConstraint("owner", "idempotency_key"),
)
_ENDED = (StudyState.COMPLETE, StudyState.FAILED, StudyState.INTERRUPTED)
ENDING = -1  # in place of the count of failures: the job that is there belongs to the study's life before
ACTIVE = (StudyState.QUEUED, StudyState.RUNNING)


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


class Submissions:
    """The submissions behind an SQLAlchemy URL. A context manager, thread safe."""

    def __init__(self, url: str) -> None:
        self._engine = connect(url)

    def __enter__(self) -> Submissions:
        return self

    def __exit__(self, *_: object) -> None:
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
        if (before := self._by_key(owner, key, digest)) is not None:
            return before, False
        if most_active is not None and self.active_of(owner) >= most_active:
            raise RateLimitedError(
                f"{owner} has {most_active} studies queued or running; at most so many are taken", 30
            )
        study = StudyRow(new_id(name), name, StudyState.QUEUED, "", spec, {}, time.time(), None)
        submission = Submission(study.id, owner, priority, key, digest)
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(_SUBMISSIONS).values(**vars(submission)))
                connection.execute(sa.insert(STUDIES).values(**columns_of(study)))
        except sa.exc.IntegrityError:
            before = self._by_key(owner, key, digest)  # somebody was faster
            if before is None:
                raise
            return before, False
        return Entry(study, submission), True

    def get(self, study_id: str) -> Entry:
        """Raises NotFoundError."""
        found = self._entries(STUDIES.c.id == study_id)
        if not found:
            raise NotFoundError(f"no study {study_id!r}")
        return found[0]

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
        where: list[sa.ColumnElement[bool]] = [sa.func.coalesce(_SUBMISSIONS.c.archived, sa.false()) == archived]
        if states:
            where.append(STUDIES.c.state.in_([state.value for state in states]))
        if name is not None:
            where.append(STUDIES.c.name == name)
        if owner is not None:
            where.append(_SUBMISSIONS.c.owner == owner)
        if before is not None:
            at, study_id = before
            older, same = STUDIES.c.created_at < at, STUDIES.c.created_at == at
            where.append(older | (same & (STUDIES.c.id < study_id)))
        return self._entries(*where, limit=limit)

    def unsettled(self) -> list[Entry]:
        """Those that a server has something to do about: queued, running, or with a job."""
        active = STUDIES.c.state.in_([state.value for state in ACTIVE])
        found = self._entries(active | (_SUBMISSIONS.c.job != ""))
        return [entry for entry in found if entry.submission is not None]

    def active_of(self, owner: str) -> int:
        """How many studies of an owner are queued or running."""
        query = (
            sa.select(sa.func.count())
            .select_from(STUDIES.join(_SUBMISSIONS, STUDIES.c.id == _SUBMISSIONS.c.study_id))
            .where(_SUBMISSIONS.c.owner == owner, STUDIES.c.state.in_([state.value for state in ACTIVE]))
        )
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def by_state(self) -> dict[str, int]:
        """How many studies are in each state."""
        query = sa.select(STUDIES.c.state, sa.func.count()).group_by(STUDIES.c.state)
        with self._engine.connect() as connection:
            return {state: int(count) for state, count in connection.execute(query)}

    def claim(self, submission: Submission, job: str) -> Submission | None:
        """Note that `job` drives the study from now on; None when another server was faster."""
        values = {"job": job, "attempt": submission.attempt + 1, "claimed_at": time.time(), "began_at": None}
        mine = (_SUBMISSIONS.c.job == "") & (_SUBMISSIONS.c.attempt == submission.attempt) & _SUBMISSIONS.c.wanted
        return self.get(submission.study_id).submission if self._change(submission.study_id, values, mine) else None

    def began(self, study_id: str, job: str) -> bool:
        """A driver says that it begins; False when it is not the one that is wanted."""
        mine = (_SUBMISSIONS.c.job == job) & _SUBMISSIONS.c.wanted
        now = time.time()
        values = {"began_at": now, "started_at": sa.func.coalesce(_SUBMISSIONS.c.started_at, now)}
        return self._change(study_id, values, mine)

    def broke_off(self, study_id: str, job: str, state: StudyState, reason: str) -> None:
        """A driver says that it ends before its study has: `interrupted`, it may go on; `failed`, it cannot."""
        submission = self.get(study_id).submission
        if submission is None or submission.job != job:
            return
        with self._engine.begin() as connection:
            not_complete = (STUDIES.c.id == study_id) & (STUDIES.c.state != StudyState.COMPLETE.value)
            values = {"state": state.value, "reason": reason, "ended_at": time.time()}
            connection.execute(sa.update(STUDIES).where(not_complete).values(**values))

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
        entry = self.get(study_id)
        submission = entry.submission
        if submission is None:
            raise ConflictError(f"study {study_id} was not submitted to a server; it is the command line's")
        if submission.archived:
            raise ConflictError(f"study {study_id} is archived")
        return self._go_on(entry, submission) if wanted else self._stop(entry, submission)

    def _stop(self, entry: Entry, submission: Submission) -> Entry:
        if entry.study.state not in ACTIVE:
            raise ConflictError(f"study {entry.study.id} is {entry.study.state.value}; there is nothing to stop")
        self._change(entry.study.id, {"wanted": False}, sa.true())
        if not submission.job:  # it waits for its turn
            self._ended(submission, {}, StudyState.INTERRUPTED, "stopped before its turn came")
        return self.get(entry.study.id)

    def _go_on(self, entry: Entry, submission: Submission, spec: str | None = None) -> Entry:
        study = entry.study
        if spec is None and study.state is StudyState.COMPLETE:
            raise ConflictError(f"study {study.id} is complete; extend it")
        if study.state in ACTIVE:
            raise ConflictError(f"study {study.id} is {study.state.value}; wait until it has ended")
        # Where its last job is still about to end, that end is no failure of the next one.
        values = {"wanted": True, "failures": ENDING if submission.job else 0, "not_before": 0.0}
        change = {"state": StudyState.QUEUED.value, "reason": "", "ended_at": None, "spec": spec or study.spec}
        with self._engine.begin() as connection:
            connection.execute(sa.update(STUDIES).where(STUDIES.c.id == study.id).values(**change))
            connection.execute(sa.update(_SUBMISSIONS).where(_SUBMISSIONS.c.study_id == study.id).values(**values))
        return self.get(study.id)

    def extend(self, study_id: str, spec: str) -> Entry:
        """Have a study that has ended go on by this specification. Raises as `want`."""
        entry = self.get(study_id)
        if entry.submission is None:
            raise ConflictError(f"study {study_id} was not submitted to a server; it is the command line's")
        return self._go_on(entry, entry.submission, spec)

    def archive(self, study_id: str) -> None:
        """Take a study that has ended off the list. Raises NotFoundError, and ConflictError while it has not ended."""
        entry = self.get(study_id)
        if entry.study.state in ACTIVE:
            raise ConflictError(f"study {study_id} is {entry.study.state.value}; stop it first")
        if entry.submission is None:
            raise ConflictError(f"study {study_id} was not submitted to a server; it is the command line's")
        self._change(study_id, {"archived": True}, sa.true())

    def share(self, study_id: str, concurrency: int) -> None:
        """Note how many trials of a study may run at a time."""
        self._change(study_id, {"concurrency": concurrency}, sa.true())

    def share_of(self, study_id: str) -> int | None:
        query = sa.select(_SUBMISSIONS.c.concurrency).where(_SUBMISSIONS.c.study_id == study_id)
        with self._engine.connect() as connection:
            found: int | None = connection.execute(query).scalar_one_or_none()
        return found

    def _by_key(self, owner: str, key: str | None, digest: str) -> Entry | None:
        if key is None:
            return None
        found = self._entries((_SUBMISSIONS.c.owner == owner) & (_SUBMISSIONS.c.idempotency_key == key))
        if found and found[0].submission is not None and found[0].submission.digest != digest:
            raise ConflictError(f"the idempotency key {key!r} was used for another submission, {found[0].study.id}")
        return found[0] if found else None

    def _ended(self, submission: Submission, values: dict[str, Any], state: StudyState | None, reason: str) -> bool:
        mine = (_SUBMISSIONS.c.study_id == submission.study_id) & (_SUBMISSIONS.c.job == submission.job)
        with self._engine.begin() as connection:
            if values and connection.execute(sa.update(_SUBMISSIONS).where(mine).values(**values)).rowcount == 0:
                return False
            if state is not None:
                ended_at = time.time() if state in _ENDED else None
                # What its driver has said of its end stands.
                is_open = STUDIES.c.state.in_([each.value for each in (*ACTIVE, StudyState.INTERRUPTED)])
                connection.execute(
                    sa.update(STUDIES)
                    .where((STUDIES.c.id == submission.study_id) & is_open)
                    .values(state=state.value, reason=reason, ended_at=ended_at)
                )
        return True

    def _change(self, study_id: str, values: dict[str, Any], where: sa.ColumnElement[bool]) -> bool:
        with self._engine.begin() as connection:
            done = connection.execute(
                sa.update(_SUBMISSIONS).where((_SUBMISSIONS.c.study_id == study_id) & where).values(**values)
            )
        return done.rowcount == 1

    def _entries(self, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Entry]:
        joined = STUDIES.outerjoin(_SUBMISSIONS, STUDIES.c.id == _SUBMISSIONS.c.study_id)
        query = (
            sa.select(STUDIES, *[column.label(f"submission_{column.name}") for column in _SUBMISSIONS.c])
            .select_from(joined)
            .where(*where)
            .order_by(STUDIES.c.created_at.desc(), STUDIES.c.id.desc())
            .limit(limit)
        )
        with self._engine.connect() as connection:
            return [_entry(dict(row._mapping)) for row in connection.execute(query)]


def _entry(columns: dict[str, Any]) -> Entry:
    study = row_of({column.name: columns[column.name] for column in STUDIES.c})
    values = {column.name: columns[f"submission_{column.name}"] for column in _SUBMISSIONS.c}
    return Entry(study, Submission(**values) if values["study_id"] is not None else None)
