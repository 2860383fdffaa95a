"""SQLAlchemy engines for the studies' database, the database's clock, and transactions that run one at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from dialin.store.database_errors import explain_errors

BUSY_SECONDS = 60  # how long a statement waits for a SQLite file that another process has locked


class database_now(sa.sql.functions.FunctionElement[float]):  # noqa: N801  used like an SQL function
    """Seconds since 1970 by the database's clock, with a resolution of a millisecond or better. Every statement
    evaluates it again."""

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
    """Open a transaction that runs alone among the transactions with the same `key`, so that what it has read is still
    true when it writes. It commits at the end of the block, and rolls back if the block raises.

    SQLite has one writer at a time, whatever the key. PostgreSQL locks the key until the transaction ends. Only
    transactions that are opened here wait for one another.
    """
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            # pysqlite would begin the transaction at the first write, after the reads.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(key))))
        yield connection
        connection.commit()  # closing the connection without it rolls back


def open_engine(url: str) -> sa.Engine:
    """Return an engine that raises DatabaseError for a database that is damaged, gone or of another version. It neither
    checks nor creates tables; `database.connect` does both."""
    is_sqlite = url.startswith("sqlite")
    engine = sa.create_engine(url, connect_args={"timeout": BUSY_SECONDS} if is_sqlite else {})
    explain_errors(engine)
    if is_sqlite:
        sa.event.listen(engine, "connect", _decode_leniently)
    return engine


def _decode_leniently(connection: sqlite3.Connection, _record: Any) -> None:
    """Replace bytes that are not UTF-8 instead of raising: a damaged text must not make other rows unreadable."""
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
