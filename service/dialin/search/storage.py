"""Where studies are kept: an Optuna storage over SQLite or another SQL database."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage as BaseStorage
from optuna.storages import RDBStorage

from dialin.errors import DatabaseError
from dialin.store.database_errors import explain_errors, explained

SQLITE_BUSY_SECONDS = 60
MOST_OPENINGS = 8  # of a database whose tables others are making


def open_storage(url: str) -> BaseStorage:
    """The storage at an SQLAlchemy URL, made on first use.

    A SQLite file is switched to write-ahead logging: readers never wait for the driver, and a commit is one write to
    the log. Once a call has returned, a killed process loses nothing of it.

    Raises DatabaseError for one that is damaged, gone, or was made by another version; the storage does so, too.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    target = sqlalchemy.make_url(url)
    try:
        storage = _opened_file(url, target.database) if target.get_backend_name() == "sqlite" else _opened(url)
    except RuntimeError as error:  # Optuna's word for tables of another version
        raise DatabaseError(f"{_named(target)} was made by another version of Optuna: {error}") from error
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        behind = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        if (ours := explained(getattr(behind, "orig", None) or error, target)) is not None:
            raise ours from error
        raise
    explain_errors(storage.engine)
    return storage


def _opened_file(url: str, database: str | None) -> RDBStorage:
    if database:
        _use_write_ahead_log(Path(database))
    storage = _opened(url, {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}})
    sqlalchemy.event.listen(storage.engine, "connect", _relax_fsync)
    storage.remove_session()
    storage.engine.dispose()
    return storage


@contextmanager
def opened_storage(url: str) -> Iterator[BaseStorage]:
    """`open_storage`, closed at the end."""
    storage = open_storage(url)
    try:
        yield storage
    finally:
        close_storage(storage)


def close_storage(storage: BaseStorage) -> None:
    """Close its connections to a database; it opens new ones when it is used again."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def _named(target: sqlalchemy.URL) -> str:
    return target.database if target.get_backend_name() == "sqlite" and target.database else str(target)


def fence(storage: BaseStorage, check: Callable[[sqlalchemy.Connection], None]) -> None:
    """Have `check` asked within every transaction of a database storage, before it commits; what it raises undoes the
    transaction. So not even a driver that was stopped in the middle of a write can finish it after it was replaced."""
    if isinstance(storage, RDBStorage):
        sqlalchemy.event.listen(storage.engine, "commit", check)


def _opened(url: str, options: dict[str, Any] | None = None) -> RDBStorage:
    """Optuna looks which tables there are and then makes the others: when another process makes them at the same
    moment, one of the two fails, and finds them there at its next look."""
    for attempt in range(MOST_OPENINGS - 1):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except sqlalchemy.exc.DBAPIError as error:
            if not isinstance(error, sqlalchemy.exc.IntegrityError) and "already exists" not in str(error):
                raise
            time.sleep(0.05 * 2**attempt)
    return RDBStorage(url, engine_kwargs=options)


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def _use_write_ahead_log(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SQLITE_BUSY_SECONDS
    with closing(sqlite3.connect(path, timeout=SQLITE_BUSY_SECONDS)) as connection:
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                # Somebody else is at it; for this statement SQLite does not wait.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)


def _relax_fsync(connection: sqlite3.Connection, _record: object) -> None:
    # With a write-ahead log, NORMAL survives the death of the process; only a power cut can take the last commits.
    connection.execute("PRAGMA synchronous=NORMAL")
