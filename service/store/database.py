"""The way to the studies' database: dialin's own tables, made on first use, beside Optuna's."""

from __future__ import annotations

import sqlalchemy as sa

BUSY_SECONDS = 60  # how long a statement waits for a SQLite file that somebody else has locked

METADATA = sa.MetaData()


def connect(url: str) -> sa.Engine:
    """An engine with every table of `METADATA` there."""
    arguments = {"timeout": BUSY_SECONDS} if url.startswith("sqlite") else {}
    engine = sa.create_engine(url, connect_args=arguments)
    METADATA.create_all(engine)
    return engine
