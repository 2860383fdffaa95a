"""Who drives a study. One driver at a time: a second one is refused while the first lives, and the first writes nothing
more once another has taken its study over.

A lease has an attempt number, that only ever rises. Its driver says every few seconds that it lives (the heartbeat);
one that was silent for `STALE_SECONDS`, or whose process is gone from this machine, can be replaced. Silence is
measured by the database's clock alone, so clocks of machines may differ as they like.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import sqlalchemy as sa

from dialin.errors import ConflictError, DatabaseError, FencedError
from dialin.store.database import connect
from dialin.store.database_errors import replaced_file
from dialin.store.engine import database_now
from dialin.store.tables import LEASES

BEAT_SECONDS = 3.0
STALE_SECONDS = 20.0


@dataclass(frozen=True)
class Owner:
    """A process: `host`, its id there, and when it started (in ticks since the machine did; an id comes again).

    `boot` and `pid_namespace` say where that id means something: two containers of one host name may have the same
    ids for other processes. Both are empty where the system has none, and of an owner that an older version wrote.
    `job`: the server's job that the process is; empty for the command line's.
    """

    host: str
    pid: int
    started: int
    boot: str = ""
    pid_namespace: str = ""
    job: str = ""

    @classmethod
    def this_process(cls, job: str = "") -> Owner:
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), *_place(), job)

    @classmethod
    def parse(cls, text: str) -> Owner:
        place, pid, started = text.rsplit(" ", 2)
        host, boot, pid_namespace, job = (place.split("/") + [""] * 3)[:4]
        return cls(host, int(pid), int(started), boot, pid_namespace, job)

    def __str__(self) -> str:
        # An older version reads all of the first word as the host, and so takes this process for one elsewhere.
        place = "/".join([self.host, self.boot, self.pid_namespace, self.job]).rstrip("/")
        return f"{place} {self.pid} {self.started}"

    def is_here(self) -> bool:
        """Whether its process id means the same process here: on the same boot of the same machine, and in the same PID
        namespace."""
        boot, pid_namespace = _place()
        same_host = bool(boot) or self.host == socket.gethostname()
        return same_host and (self.boot, self.pid_namespace) == (boot, pid_namespace)

    def is_gone(self) -> bool:
        """Whether it is known to be dead; False for a process of which nothing can be known from here."""
        return self.is_here() and _started(self.pid) != self.started


@dataclass(frozen=True)
class Holding:
    """A lease as it is stored. `silent_seconds`: since the last heartbeat, by the database's clock."""

    attempt: int
    owner: Owner
    silent_seconds: float

    def lives(self) -> bool:
        return self.silent_seconds < STALE_SECONDS and not self.owner.is_gone()


class Lease:
    """A study's lease, held by this process. As a context manager it says in the background that it lives, and lets go
    at the end. Within `watched` it says so only while the driver's loop makes progress."""

    def __init__(self, url: str, study_id: str, attempt: int) -> None:
        self.study_id, self.attempt = study_id, attempt
        self._engine = connect(url)
        self._file = _file_of(self._engine)
        self._done = threading.Event()
        self._patience: float | None = None  # None: whatever the driver does now may take its time
        self._progress_at = 0.0
        self._beat = threading.Thread(target=self._beat_on, name="lease", daemon=True)

    def check(self) -> None:
        """Raises FencedError when another driver has taken the study over, and DatabaseError when the database's file
        is no longer where it was: what is open of it could be written to, and would be lost."""
        if self._file != _file_of(self._engine):
            raise replaced_file(self._engine)
        with self._engine.connect() as connection:
            self.check_within(connection)

    def check_within(self, connection: sa.Connection) -> None:
        """`check` inside a transaction on the same database: until it ends, nobody can take the study over either."""
        row = connection.execute(
            sa.select(LEASES.c.attempt, LEASES.c.owner).where(LEASES.c.study_id == self.study_id)
        ).one_or_none()
        if row is None:
            text = "its database knows nothing of it any more, so another one is in its place"
            raise FencedError(f"study {self.study_id}: {text}; this driver writes nothing more")
        if row.attempt != self.attempt:
            by = Owner.parse(row.owner) if row.owner else None
            whom = f"process {by.pid} on {by.host}" if by is not None else "another driver"
            raise FencedError(f"study {self.study_id} was taken over by {whom}; this driver writes nothing more")

    def progress(self) -> None:
        """The driver's loop has come round once more."""
        self._progress_at = time.monotonic()

    @contextmanager
    def watched(self, patience_seconds: float) -> Iterator[None]:
        """Within this, a driver that does not call `progress` for so long falls silent, so that it is replaced."""
        self.progress()
        self._patience = patience_seconds
        try:
            yield
        finally:
            self._patience = None

    def __enter__(self) -> Lease:
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._beat.join()
        with suppress(DatabaseError, sa.exc.OperationalError):  # on a full disk; its process being gone says as much
            self._change(owner="")
        self._engine.dispose()

    def _beat_on(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            if self._hangs():
                continue
            try:
                self._change(beat_at=database_now())
            except (DatabaseError, sa.exc.SQLAlchemyError):
                continue  # the database is locked, away or damaged; `check` is what counts

    def _hangs(self) -> bool:
        return self._patience is not None and time.monotonic() - self._progress_at > self._patience

    def _change(self, **values: object) -> None:
        mine = (LEASES.c.study_id == self.study_id) & (LEASES.c.attempt == self.attempt)
        with self._engine.begin() as connection:
            connection.execute(sa.update(LEASES).where(mine).values(**values))


def _file_of(engine: sa.Engine) -> tuple[int, int] | None:
    """Which file a SQLite database is; None where there is none, and for other databases."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database:
        return None
    with suppress(OSError):
        stat = Path(database).stat()
        return stat.st_dev, stat.st_ino
    return None


def acquire(url: str, study_id: str, job: str = "") -> Lease:
    """The lease of a study for this process. Raises ConflictError, which names the owner, while another one lives."""
    engine, owner = connect(url), str(Owner.this_process(job))
    try:
        with engine.begin() as connection:
            row = connection.execute(_row_of(study_id)).one_or_none()
            if row is None:
                values = {"study_id": study_id, "attempt": 1, "owner": owner, "beat_at": database_now()}
                connection.execute(sa.insert(LEASES).values(**values))
                return Lease(url, study_id, 1)
            if (holding := _holding(row)) is not None and holding.lives():
                raise ConflictError(_refusal(study_id, holding))
            taken = connection.execute(
                sa.update(LEASES)
                .where((LEASES.c.study_id == study_id) & (LEASES.c.attempt == row.attempt))
                .values(attempt=row.attempt + 1, owner=owner, beat_at=database_now())
            )
            if taken.rowcount == 0:
                raise ConflictError(f"study {study_id} was taken over by another driver just now")
            return Lease(url, study_id, int(row.attempt) + 1)
    except sa.exc.IntegrityError:
        raise ConflictError(f"study {study_id} was taken by another driver just now") from None
    finally:
        engine.dispose()


def holding(engine: sa.Engine, study_id: str) -> Holding | None:
    """Whose a study's lease is, alive or not; None: nobody's. The engine is one of `database.connect`."""
    with engine.connect() as connection:
        row = connection.execute(_row_of(study_id)).one_or_none()
    return _holding(row) if row is not None else None


def holder(engine: sa.Engine, study_id: str) -> Owner | None:
    """Who drives a study, as far as is known; None: nobody. The engine is one of `database.connect`."""
    found = holding(engine, study_id)
    return found.owner if found is not None and found.lives() else None


def _row_of(study_id: str) -> sa.Select[tuple[int, str, float]]:
    silent = (database_now() - LEASES.c.beat_at).label("silent")
    return sa.select(LEASES.c.attempt, LEASES.c.owner, silent).where(LEASES.c.study_id == study_id)


def _holding(row: sa.Row[tuple[int, str, float]]) -> Holding | None:
    return Holding(int(row.attempt), Owner.parse(row.owner), float(row.silent)) if row.owner else None


def _refusal(study_id: str, holding: Holding) -> str:
    owner, silent = holding.owner, holding.silent_seconds
    said = f"study {study_id} is being driven by process {owner.pid} on {owner.host}"
    if silent > 2 * BEAT_SECONDS:
        left = STALE_SECONDS - silent
        return f"{said}, which has said nothing for {silent:.0f} s; try again in {max(1.0, left):.0f} s"
    return f"{said}; stop it (dialin stop {study_id}), or wait until it has ended"


@cache
def _place() -> tuple[str, str]:
    """What process ids depend on: the id of the system's boot, and the PID namespace; empty where there are none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, str(Path("/proc/self/ns/pid").readlink()).rpartition("[")[2].rstrip("]")
    except OSError:
        return "", ""


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
