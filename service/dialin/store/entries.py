"""Studies with their submissions, read from the database."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from dialin.errors import ConflictError, NotFoundError
from dialin.lifecycle import ACTIVE
from dialin.store.studies import StudyRow, number, row_of
from dialin.store.tables import STUDIES, SUBMISSIONS


@dataclass(frozen=True)
class Submission:
    """A study's submission to a server: its owner, its place in the queue and its driver. Times are in seconds since
    1970."""

    study_id: str
    owner: str
    """The name of the caller who submitted the study."""
    priority: int
    """Studies of a higher priority start first."""
    idempotency_key: str | None
    """The key that the owner sent with the request, so that a repeated request creates no second study."""
    digest: str
    """SHA-256 of the request, which has to be the same if the key is used again."""
    wanted: bool = True
    """Whether the study shall run; False: it shall stop."""
    archived: bool = False
    """Whether lists leave the study out."""
    attempt: int = 0
    """How many drivers were started for the study."""
    failures: int = 0
    """Consecutive drivers that died; ENDING if the job that still exists belongs to an earlier run of the study."""
    not_before: float = 0.0
    """The next driver starts no earlier than this."""
    job: str = ""
    """The Ray job that drives the study, of attempt number `attempt`; empty: none."""
    claimed_at: float | None = None
    """When a server claimed the study for `job`."""
    began_at: float | None = None
    """When the driver of this attempt began."""
    started_at: float | None = None
    """When the first driver began."""
    concurrency: int | None = None
    """The study's allocation, the number of trials that it may run at a time; None: not computed yet."""


@dataclass(frozen=True)
class Entry:
    """A study with its submission."""

    study: StudyRow
    submission: Submission | None
    """None for a study that was run without a server."""


def queue_order(entry: Entry) -> tuple[int, float]:
    """Return the sort key of the queue: higher priorities first, then older studies."""
    return -(entry.submission.priority if entry.submission is not None else 0), entry.study.created_at


def read_entry(connection: sa.Connection, study_id: str) -> Entry:
    """Return the study with this id. Raises NotFoundError."""
    found = read_entries(connection, STUDIES.c.id == study_id)
    if not found:
        raise NotFoundError(f"no study {study_id!r}")
    return found[0]


def read_entries(connection: sa.Connection, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Entry]:
    """Return the studies for which all conditions hold, the newest first."""
    joined = STUDIES.outerjoin(SUBMISSIONS, STUDIES.c.id == SUBMISSIONS.c.study_id)
    query = (
        sa.select(STUDIES, *[column.label(f"submission_{column.name}") for column in SUBMISSIONS.c])
        .select_from(joined)
        .where(*where)
        .order_by(STUDIES.c.created_at.desc(), STUDIES.c.id.desc())
        .limit(limit)
    )
    return [_entry(dict(row._mapping)) for row in connection.execute(query)]


def find_by_key(connection: sa.Connection, owner: str, key: str | None, digest: str) -> Entry | None:
    """Return the study that an owner submitted with this idempotency key. Raises ConflictError if the key was used for
    another request."""
    if key is None:
        return None
    found = read_entries(connection, (SUBMISSIONS.c.owner == owner) & (SUBMISSIONS.c.idempotency_key == key))
    if found and found[0].submission is not None and found[0].submission.digest != digest:
        raise ConflictError(f"the idempotency key {key!r} was used for another submission, {found[0].study.id}")
    return found[0] if found else None


def count_active(connection: sa.Connection, owner: str) -> int:
    """Return how many studies of an owner are queued or running."""
    query = (
        sa.select(sa.func.count())
        .select_from(STUDIES.join(SUBMISSIONS, STUDIES.c.id == SUBMISSIONS.c.study_id))
        .where(SUBMISSIONS.c.owner == owner, STUDIES.c.state.in_([state.value for state in ACTIVE]))
    )
    return int(connection.execute(query).scalar_one())


def _entry(columns: dict[str, Any]) -> Entry:
    """Return the entry in the columns of a joined row. Values that cannot be read are named in the study's `damage`."""
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
