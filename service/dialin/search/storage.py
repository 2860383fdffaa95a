"""The Optuna storages that studies are kept in: SQLite for one machine, another SQL database for many."""

from __future__ import annotations

import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage as BaseStorage
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from dialin.errors import DatabaseError
from dialin.specification.metrics import Metric
from dialin.store.database_errors import explain_errors, explained, other_schema

SQLITE_BUSY_SECONDS = 60
"""How long a statement waits for another process that writes to the same SQLite file."""
MOST_OPENINGS = 8
"""Attempts to open a database while other processes create the same tables; each waits twice as long as the last."""
FIRST_WAIT_SECONDS = 0.05
"""The wait after the first of these attempts."""

_DUPLICATES = ("42P07", "42710")  # PostgreSQL's codes for a table, and for a type, that exists already


def open_storage(url: str) -> BaseStorage:
    """The storage at an SQLAlchemy URL; its tables are created when it is first used.

    A SQLite file is switched to write-ahead logging: readers never wait for the driver, and a commit is one write to
    the log. What a call has stored when it returns survives the process.

    Raises DatabaseError for a database that is damaged, gone, or was made by another version; so do the methods of the
    storage.
    """
    target = sqlalchemy.make_url(url)
    try:
        storage = _open_file(url, target.database) if target.get_backend_name() == "sqlite" else _open(url)
    except RuntimeError as error:  # Optuna's refusal of tables of another version
        raise _other_version(url) from error
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, optuna.exceptions.StorageInternalError) as error:
        behind = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        if (ours := explained(getattr(behind, "orig", None) or error, target)) is not None:
            raise ours from error
        raise
    explain_errors(storage.engine)
    return storage


def _other_version(url: str) -> DatabaseError:
    storage = RDBStorage(url, skip_compatibility_check=True)
    try:
        found, known = storage.get_current_version(), storage.get_all_versions()
    finally:
        close_storage(storage)
    return other_schema(
        url, "Optuna", found, known, f"optuna storage upgrade --storage {sqlalchemy.make_url(url).render_as_string()}"
    )


@contextmanager
def opened_storage(url: str) -> Iterator[BaseStorage]:
    """`open_storage`, closed at the end of the block."""
    storage = open_storage(url)
    try:
        yield storage
    finally:
        close_storage(storage)


def close_storage(storage: BaseStorage) -> None:
    """Close the connections of a storage to its database. It opens new ones when it is used again."""
    if isinstance(storage, RDBStorage):
        storage.remove_session()
        storage.engine.dispose()


def find_or_create_study(storage: BaseStorage, study_id: str, metrics: Sequence[Metric]) -> int:
    """Optuna's id of the study of that name; it is created, with a direction a metric, when there is none."""
    try:
        return storage.get_study_id_from_name(study_id)
    except KeyError:
        directions = [StudyDirection.MAXIMIZE if one.mode == "max" else StudyDirection.MINIMIZE for one in metrics]
        return storage.create_new_study(directions, study_id)


def name_metrics(storage: BaseStorage, study_id: str, metrics: list[str]) -> None:
    """Give the values their names in Optuna's own tools."""
    study = optuna.load_study(study_name=study_id, storage=storage)
    if study.metric_names != metrics:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(metrics)


def fence(storage: BaseStorage, check: Callable[[sqlalchemy.Connection], None]) -> None:
    """Have `check` called inside every transaction of a database storage, before it commits. What it raises rolls the
    transaction back, so a driver that was stopped in the middle of a write cannot finish it after it was replaced."""
    if isinstance(storage, RDBStorage):
        sqlalchemy.event.listen(storage.engine, "commit", check)


def _open_file(url: str, database: str | None) -> RDBStorage:
    if database:
        _use_write_ahead_log(Path(database))
    storage = _open(url, {"connect_args": {"timeout": SQLITE_BUSY_SECONDS}})
    sqlalchemy.event.listen(storage.engine, "connect", _relax_fsync)
    # The connections that Optuna has opened by now do not have that setting.
    storage.remove_session()
    storage.engine.dispose()
    return storage


def _open(url: str, options: dict[str, Any] | None = None) -> RDBStorage:
    """Open a database. Optuna looks which tables exist and then creates the others: when another process creates them
    at the same moment, one of the two fails, and finds them at its next attempt."""
    for attempt in range(MOST_OPENINGS - 1):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except sqlalchemy.exc.DBAPIError as error:
            if not _was_created_meanwhile(error):
                raise
            time.sleep(FIRST_WAIT_SECONDS * 2**attempt)
    return RDBStorage(url, engine_kwargs=options)


def _was_created_meanwhile(error: sqlalchemy.exc.DBAPIError) -> bool:
    """Whether a statement failed because another process has created the same table, or the same first row of it."""
    if isinstance(error, sqlalchemy.exc.IntegrityError):
        return True
    if isinstance(error.orig, sqlite3.Error):
        # SQLite has no code of its own for this, but one for every other reason why it cannot create a table.
        is_creation = (error.statement or "").lstrip().upper().startswith("CREATE")
        return is_creation and error.orig.sqlite_errorcode == sqlite3.SQLITE_ERROR
    return getattr(error.orig, "sqlstate", None) in _DUPLICATES


def _use_write_ahead_log(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + SQLITE_BUSY_SECONDS
    with closing(sqlite3.connect(path, timeout=SQLITE_BUSY_SECONDS)) as connection:
        while connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError as error:
                # For this statement SQLite does not wait while another process changes the mode, or writes.
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(FIRST_WAIT_SECONDS)


def _relax_fsync(connection: sqlite3.Connection, _record: object) -> None:
    # With a write-ahead log, NORMAL survives the death of the process; only a power cut can take the last commits.
    connection.execute("PRAGMA synchronous=NORMAL")
