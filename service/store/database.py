"""The way to the studies' database: dialin's own tables, made on first use, beside Optuna's."""

from __future__ import annotations

from contextlib import suppress

import sqlalchemy as sa

BUSY_SECONDS = 60  # how long a statement waits for a SQLite file that somebody else has locked

METADATA = sa.MetaData()


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
