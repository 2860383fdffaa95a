"""The way to the studies' database: dialin's own tables, made on first use, beside Optuna's."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from dialin.errors import DatabaseError
from dialin.texts import one_line

BUSY_SECONDS = 60  # how long a statement waits for a SQLite file that somebody else has locked

METADATA = sa.MetaData()

_DAMAGED = ("file is not a database", "malformed", "disk I/O error", "not a database")
_GONE = ("unable to open database", "readonly database", "no such table", "UndefinedTable")
_OTHER_VERSION = ("no such column", "has no column", "UndefinedColumn")
_NOT_NULL = re.compile(r"NOT NULL constraint failed: (\w+)\.(\w+)|null value in column \"(\w+)\" of relation \"(\w+)\"")


class database_now(sa.sql.functions.FunctionElement[float]):  # noqa: N801  reads as the SQL function that it is
    """Seconds since 1970 by the database's clock, finer than a millisecond or as fine. Each statement asks anew."""

    type = sa.Float()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _now_in_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_now, "postgresql")
def _now_in_postgresql(*_: Any, **__: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)"


@contextmanager
def serialized(engine: sa.Engine, key: str) -> Iterator[sa.Connection]:
    """A transaction that runs alone among those of the same `key`: what it has read is still true when it writes.

    SQLite has one writer at a time, whatever the key; PostgreSQL locks the key until the end of the transaction. Only
    transactions that are begun here wait for one another.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # pysqlite would begin with the first write, after the reads
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(key))))
        yield connection
        connection.commit()  # otherwise the way out rolls back


def connect(url: str) -> sa.Engine:
    """An engine with every table of `METADATA` there. What it raises for a database that is damaged, gone or of another
    version is a DatabaseError."""
    arguments = {"timeout": BUSY_SECONDS} if url.startswith("sqlite") else {}
    engine = sa.create_engine(url, connect_args=arguments)
    explain_errors(engine)
    if url.startswith("sqlite"):
        sa.event.listen(engine, "connect", _read_any_bytes)
    for _ in METADATA.tables:
        # Another process can make a table between the look and the making; what else is wrong will be so again.
        with suppress(sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
            METADATA.create_all(engine)
            return engine
    METADATA.create_all(engine)
    return engine


def explain_errors(engine: sa.Engine) -> None:
    """Have an engine raise DatabaseError where `explained` has one."""

    def handle(context: sa.engine.ExceptionContext) -> None:
        error = explained(context.original_exception, engine.url)
        if error is not None:
            raise error from context.original_exception

    sa.event.listen(engine, "handle_error", handle)


def explained(error: BaseException, url: sa.URL | str) -> DatabaseError | None:
    """What a database's error means for whoever reads it: which database, what is wrong with it, what to do. None for
    an error that may be over at the next try, such as a lock, and for one of ours."""
    said = f"{type(error).__name__}: {error}"
    target = sa.make_url(url)
    name = target.render_as_string(hide_password=True)
    remedy = "restore a copy of it"
    if target.get_backend_name() == "sqlite" and target.database:
        name, remedy = target.database, _remedy(Path(target.database))
    if any(text in said for text in _DAMAGED):
        return DatabaseError(f"{name} is damaged ({_first_line(error)}); {remedy}")
    if any(text in said for text in _GONE):
        return DatabaseError(
            f"{name} is gone, is not what it was, or may not be opened ({_first_line(error)}); {remedy}"
        )
    if any(text in said for text in _OTHER_VERSION) or _wants_more(said):
        text = "was made by another version of dialin, or of Optuna"
        return DatabaseError(f"{name} {text} ({_first_line(error)}); use that version with it, or another folder")
    return None


def check_mlflow_file(database: Path) -> None:
    """Raises DatabaseError for a file of MLflow's that is there and cannot be read."""
    if not database.is_file():
        return
    try:
        with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("select count(*) from sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if any(text in str(error) for text in _DAMAGED):
            remedy = "restore a copy of it, or move it away: dialin sync STUDY writes a study into a new one"
            raise DatabaseError(f"{database} is damaged ({_first_line(error)}); {remedy}") from error


def gone(engine: sa.Engine) -> DatabaseError:
    """The error for a file that was removed or replaced while it was open."""
    database = Path(engine.url.database or "")
    return DatabaseError(f"{database} was removed or replaced while it was in use; {_remedy(database)}")


def _remedy(database: Path) -> str:
    studies = database.parent / "studies"
    kept = f"; the folders in {studies} still hold the journals, logs and checkpoints" if studies.is_dir() else ""
    return f"restore a copy of it, or use another folder{kept}"


def _wants_more(said: str) -> bool:
    """Whether a value is missing in a column that only a newer version knows."""
    found = _NOT_NULL.search(said)
    if found is None:
        return False
    table, column = (found[1], found[2]) if found[1] else (found[4], found[3])
    return table in METADATA.tables and column not in METADATA.tables[table].c


def _first_line(error: BaseException) -> str:
    return one_line(str(error).partition("\n")[0], 200)


def _read_any_bytes(connection: sqlite3.Connection, _record: Any) -> None:
    """A damaged text is read as far as it is one: it must not keep the rows beside it from being read."""
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
