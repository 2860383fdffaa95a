"""Who drives a study. One driver at a time: a second one is refused while the first lives, and the first writes nothing
more once another has taken its study over.

A lease has an attempt number, that only ever rises. Its driver says every few seconds that it lives; one that was
silent for `STALE_SECONDS`, or whose process is gone from this machine, can be replaced.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from service.errors import ConflictError, FencedError
from service.store.database import METADATA, connect

BEAT_SECONDS = 3.0
STALE_SECONDS = 20.0

_LEASES = sa.Table(
    "dialin_leases",
    METADATA,
    sa.Column("study_id", sa.String(96), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("owner", sa.String(255), nullable=False),  # empty: nobody
    sa.Column("beat_at", sa.Float, nullable=False),
)


@dataclass(frozen=True)
class Owner:
    """A process: `host`, its id there, and when it started (in ticks since the machine did; an id comes again)."""

    host: str
    pid: int
    started: int

    @classmethod
    def this_process(cls) -> Owner:
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()))

    @classmethod
    def parse(cls, text: str) -> Owner:
        host, pid, started = text.rsplit(" ", 2)
        return cls(host, int(pid), int(started))

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.started}"

    def is_gone(self) -> bool:
        """Whether it is known to be dead; False for a process of another machine, of which nothing is known."""
        return self.host == socket.gethostname() and _started(self.pid) != self.started


class Lease:
    """A study's lease, held by this process. As a context manager it says in the background that it lives, and lets go
    at the end."""

    def __init__(self, url: str, study_id: str, attempt: int) -> None:
        self.study_id, self.attempt = study_id, attempt
        self._engine = connect(url)
        self._done = threading.Event()
        self._beat = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    def check(self) -> None:
        """Raises FencedError when another driver has taken the study over."""
        with self._engine.connect() as connection:
            self.check_within(connection)

    def check_within(self, connection: sa.Connection) -> None:
        """`check` inside a transaction on the same database: until it ends, nobody can take the study over either."""
        row = connection.execute(
            sa.select(_LEASES.c.attempt, _LEASES.c.owner).where(_LEASES.c.study_id == self.study_id)
        ).one_or_none()
        if row is None or row.attempt != self.attempt:
            by = Owner.parse(row.owner) if row is not None and row.owner else None
            whom = f"process {by.pid} on {by.host}" if by is not None else "another driver"
            raise FencedError(f"study {self.study_id} was taken over by {whom}; this driver writes nothing more")

    def __enter__(self) -> Lease:
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._beat.join()
        with suppress(sa.exc.OperationalError):  # on a full disk; its process being gone says as much
            self._change(owner="")
        self._engine.dispose()

    def _beat_on(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            try:
                self._change(beat_at=time.time())
            except sa.exc.OperationalError:
                continue  # the database is locked or away; `check` is what counts

    def _change(self, **values: object) -> None:
        mine = (_LEASES.c.study_id == self.study_id) & (_LEASES.c.attempt == self.attempt)
        with self._engine.begin() as connection:
            connection.execute(sa.update(_LEASES).where(mine).values(**values))


def acquire(url: str, study_id: str) -> Lease:
    """The lease of a study for this process. Raises ConflictError, which names the owner, while another one lives."""
    engine, owner = connect(url), str(Owner.this_process())
    try:
        with engine.begin() as connection:
            row = connection.execute(sa.select(_LEASES).where(_LEASES.c.study_id == study_id)).one_or_none()
            if row is None:
                values = {"study_id": study_id, "attempt": 1, "owner": owner, "beat_at": time.time()}
                connection.execute(sa.insert(_LEASES).values(**values))
                return Lease(url, study_id, 1)
            _refuse_living(row, study_id)
            taken = connection.execute(
                sa.update(_LEASES)
                .where((_LEASES.c.study_id == study_id) & (_LEASES.c.attempt == row.attempt))
                .values(attempt=row.attempt + 1, owner=owner, beat_at=time.time())
            )
            if taken.rowcount == 0:
                raise ConflictError(f"study {study_id} was taken over by another driver just now")
            return Lease(url, study_id, int(row.attempt) + 1)
    except sa.exc.IntegrityError:
        raise ConflictError(f"study {study_id} was taken by another driver just now") from None
    finally:
        engine.dispose()


def holder(url: str, study_id: str) -> Owner | None:
    """Who drives a study, as far as is known; None: nobody."""
    engine = connect(url)
    try:
        with engine.connect() as connection:
            row = connection.execute(sa.select(_LEASES).where(_LEASES.c.study_id == study_id)).one_or_none()
    finally:
        engine.dispose()
    return Owner.parse(row.owner) if row is not None and _lives(row) else None


def _refuse_living(row: sa.Row[tuple[str, int, str, float]], study_id: str) -> None:
    if _lives(row):
        owner, age = Owner.parse(row.owner), time.time() - row.beat_at
        raise ConflictError(
            f"study {study_id} is being driven by process {owner.pid} on {owner.host}, which last said so {age:.0f} s "
            f"ago; it can be taken over {STALE_SECONDS:.0f} s after its last word"
        )


def _lives(row: sa.Row[tuple[str, int, str, float]]) -> bool:
    fresh = time.time() - row.beat_at < STALE_SECONDS
    return bool(row.owner) and fresh and not Owner.parse(row.owner).is_gone()


def _started(pid: int) -> int:
    """When a process started, in clock ticks; -1 when there is none, 0 where that cannot be told."""
    if not Path("/proc/self/stat").exists():
        return 0
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces
    return -1 if fields[0] in "ZX" else int(fields[19])
