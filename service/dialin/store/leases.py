"""Leases: which process drives a study. A study has one driver at a time. A second driver is refused while the first is
alive, and a driver that was replaced writes nothing more (fencing).

A lease has an attempt number, which only rises. Its driver writes a heartbeat every few seconds. A driver whose last
heartbeat is `STALE_SECONDS` old, or whose process is gone from this machine, can be replaced. Heartbeats are written
and compared by the database's clock alone, so the clocks of the machines need not agree.
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
"""Time between two heartbeats."""
STALE_SECONDS = 20.0
"""Age of the last heartbeat from which on the driver counts as dead."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lease.

    `boot` and `pid_namespace` say where `pid` is valid: two containers with the same host name may use one process id
    for different processes. Both are empty on systems that have neither, and for owners that an older version wrote.
    """

    host: str
    """The host name of its machine."""
    pid: int
    """Its process id."""
    started: int
    """Its start in clock ticks since boot, which tells it from a later process with the same id; 0 if unknown."""
    boot: str = ""
    """The id of the boot of its machine."""
    pid_namespace: str = ""
    """The number of its PID namespace."""
    job: str = ""
    """The Ray job of a driver that a server started; empty for `dialin run` and `dialin resume`."""

    @classmethod
    def this_process(cls, job: str = "") -> Owner:
        """Return this process as an owner."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()), *_pid_scope(), job)

    @classmethod
    def parse(cls, text: str) -> Owner:
        """Return the owner whose `str` is this text."""
        scope, pid, started = text.rsplit(" ", 2)
        host, boot, pid_namespace, job = (scope.split("/") + [""] * 3)[:4]
        return cls(host, int(pid), int(started), boot, pid_namespace, job)

    def __str__(self) -> str:
        # An older dialin expects the host name alone. It takes the whole first word for one, and the process for a
        # remote one, which is safe.
        scope = "/".join([self.host, self.boot, self.pid_namespace, self.job]).rstrip("/")
        return f"{scope} {self.pid} {self.started}"

    def is_here(self) -> bool:
        """Return whether its process id is valid here: in the same boot of the same machine, and the same PID
        namespace."""
        boot, pid_namespace = _pid_scope()
        same_host = bool(boot) or self.host == socket.gethostname()
        return same_host and (self.boot, self.pid_namespace) == (boot, pid_namespace)

    def is_gone(self) -> bool:
        """Return whether the process is known to be dead; False for a process that cannot be seen from here."""
        return self.is_here() and _started(self.pid) != self.started


@dataclass(frozen=True)
class Holding:
    """A lease as it is stored."""

    attempt: int
    owner: Owner
    silent_seconds: float
    """The age of the last heartbeat, by the database's clock."""

    def is_alive(self) -> bool:
        """Return whether the driver may be alive, so that it must not be replaced."""
        return self.silent_seconds < STALE_SECONDS and not self.owner.is_gone()


class Lease:
    """A study's lease, held by this process. As a context manager it writes heartbeats in the background, and releases
    the lease at the end. Within `watched` it writes them only while the driver's loop makes progress."""

    def __init__(self, url: str, study_id: str, attempt: int) -> None:
        self.study_id, self.attempt = study_id, attempt
        self._engine = connect(url)
        self._file = _file_of(self._engine)
        self._done = threading.Event()
        self._progress_timeout: float | None = None  # seconds; None: the driver is not in its loop
        self._progress_at = 0.0
        self._beat = threading.Thread(target=self._write_heartbeats, name="lease", daemon=True)

    def check(self) -> None:
        """Raise FencedError if another driver has taken the study over, and DatabaseError if the database's file was
        removed or replaced: writing to the open file would succeed, and be lost."""
        if self._file != _file_of(self._engine):
            raise replaced_file(self._engine)
        with self._engine.connect() as connection:
            self.check_within(connection)

    def check_within(self, connection: sa.Connection) -> None:
        """Do what `check` does inside a transaction of the same database; until that ends, no driver can take the study
        over. Raises FencedError."""
        row = connection.execute(
            sa.select(LEASES.c.attempt, LEASES.c.owner).where(LEASES.c.study_id == self.study_id)
        ).one_or_none()
        if row is None:
            text = "its lease is missing in the database, which must have been replaced since the driver started"
            raise FencedError(f"study {self.study_id}: {text}; this driver writes nothing more")
        if row.attempt != self.attempt:
            by = Owner.parse(row.owner) if row.owner else None
            whom = f"process {by.pid} on {by.host}" if by is not None else "another driver"
            raise FencedError(f"study {self.study_id} was taken over by {whom}; this driver writes nothing more")

    def record_progress(self) -> None:
        """Record that the driver's loop has completed another round."""
        self._progress_at = time.monotonic()

    @contextmanager
    def watched(self, timeout_seconds: float) -> Iterator[None]:
        """Inside the block, write no heartbeats once `record_progress` was not called for this long. A driver that
        hangs loses its lease that way, and can be replaced."""
        self.record_progress()
        self._progress_timeout = timeout_seconds
        try:
            yield
        finally:
            self._progress_timeout = None

    def __enter__(self) -> Lease:
        self._beat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._beat.join()
        with suppress(
            DatabaseError, sa.exc.OperationalError
        ):  # a full disk, for example; the lease of a dead process is free anyway
            self._change(owner="")
        self._engine.dispose()

    def _write_heartbeats(self) -> None:
        while not self._done.wait(BEAT_SECONDS):
            if self._hangs():
                continue
            try:
                self._change(beat_at=database_now())
            except (DatabaseError, sa.exc.SQLAlchemyError):
                continue  # `check` raises the errors that concern the driver

    def _hangs(self) -> bool:
        return self._progress_timeout is not None and time.monotonic() - self._progress_at > self._progress_timeout

    def _change(self, **values: object) -> None:
        mine = (LEASES.c.study_id == self.study_id) & (LEASES.c.attempt == self.attempt)
        with self._engine.begin() as connection:
            connection.execute(sa.update(LEASES).where(mine).values(**values))


def _file_of(engine: sa.Engine) -> tuple[int, int] | None:
    """Return the device and the inode of a SQLite file; None if it does not exist, and for other databases."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database:
        return None
    with suppress(OSError):
        stat = Path(database).stat()
        return stat.st_dev, stat.st_ino
    return None


def acquire(url: str, study_id: str, job: str = "") -> Lease:
    """Take the lease of a study for this process. Raises ConflictError, which names the owner, while another driver is
    alive."""
    engine, owner = connect(url), str(Owner.this_process(job))
    try:
        with engine.begin() as connection:
            row = connection.execute(_row_of(study_id)).one_or_none()
            if row is None:
                values = {"study_id": study_id, "attempt": 1, "owner": owner, "beat_at": database_now()}
                connection.execute(sa.insert(LEASES).values(**values))
                return Lease(url, study_id, 1)
            if (holding := _holding(row)) is not None and holding.is_alive():
                raise ConflictError(_refusal(study_id, holding))
            taken = connection.execute(
                sa.update(LEASES)
                .where((LEASES.c.study_id == study_id) & (LEASES.c.attempt == row.attempt))
                .values(attempt=row.attempt + 1, owner=owner, beat_at=database_now())
            )
            if taken.rowcount == 0:
                raise ConflictError(f"study {study_id} was just taken over by another driver; wait until it has ended")
            return Lease(url, study_id, int(row.attempt) + 1)
    except sa.exc.IntegrityError:
        raise ConflictError(f"study {study_id} was just taken by another driver; wait until it has ended") from None
    finally:
        engine.dispose()


def holding(engine: sa.Engine, study_id: str) -> Holding | None:
    """Return the lease of a study, whether its driver is alive or not; None if no driver holds it. The
    engine is one of `database.connect`."""
    with engine.connect() as connection:
        row = connection.execute(_row_of(study_id)).one_or_none()
    return _holding(row) if row is not None else None


def holder(engine: sa.Engine, study_id: str) -> Owner | None:
    """Return the process that drives a study; None if no living one is known. The engine is one of
    `database.connect`."""
    found = holding(engine, study_id)
    return found.owner if found is not None and found.is_alive() else None


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
        return f"{said}, whose last heartbeat was {silent:.0f} s ago; try again in {max(1.0, left):.0f} s"
    return f"{said}; stop it (dialin stop {study_id}), or wait until it has ended"


@cache
def _pid_scope() -> tuple[str, str]:
    """Return where process ids are valid: the id of this boot and the PID namespace; both empty if there is no
    /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return boot, str(Path("/proc/self/ns/pid").readlink()).rpartition("[")[2].rstrip("]")
    except OSError:
        return "", ""


def _started(pid: int) -> int:
    """Return the start of a process in clock ticks since boot; -1 if it is dead, 0 if this system does not tell."""
    if not Path("/proc/self/stat").exists():
        return 0
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may contain spaces
    return -1 if fields[0] in "ZX" else int(fields[19])
