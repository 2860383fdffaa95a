"""The way to the studies' database: dialin's own tables, made on first use, beside Optuna's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

BUSY_SECONDS = 60  # how long a statement waits for a SQLite file that somebody else has locked

METADATA = sa.MetaData()


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
    """An engine with every table of `METADATA` there."""
    arguments = {"timeout": BUSY_SECONDS} if url.startswith("sqlite") else {}
    engine = sa.create_engine(url, connect_args=arguments)
    for _ in METADATA.tables:
        # Another process can make a table between the look and the making; what else is wrong will be so again.
        with suppress(sa.exc.OperationalError, sa.exc.ProgrammingError, sa.exc.IntegrityError):
            METADATA.create_all(engine)
            return engine
    METADATA.create_all(engine)
    return engine
