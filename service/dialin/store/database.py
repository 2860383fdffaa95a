"""Connects to the studies' database, and makes sure that its tables have the version that this dialin works with."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

import sqlalchemy as sa

from dialin.errors import DatabaseError
from dialin.store import migrate
from dialin.store.database_errors import shown
from dialin.store.engine import open_engine
from dialin.store.schema import HEAD, UNVERSIONED, check_not_newer, create_tables, stored_version


class Tables:
    """Tables of the database at an SQLAlchemy URL. Thread safe; a context manager, which closes its connections.

    Every method raises DatabaseError for a database that is damaged, gone or of another version.
    """

    def __init__(self, url: str) -> None:
        self._engine = connect(url)

    @property
    def engine(self) -> sa.Engine:
        """The engine of this database, for other tables in it."""
        return self._engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. Later calls open new ones."""
        self._engine.dispose()


def connect(url: str) -> sa.Engine:
    """Return an engine whose database has dialin's tables in the version `schema.HEAD`.

    Missing tables are created. An older SQLite file is copied and migrated (see `migrate.upgrade`). An older database
    on a server is refused: other servers and drivers may still be using it with the older dialin, and its administrator
    decides about a backup.

    Raises DatabaseError for a database that is damaged, gone, older (with the command that upgrades it), or newer.
    """
    with ExitStack() as on_error:
        engine = open_engine(url)
        on_error.callback(engine.dispose)
        _prepare(engine, url)
        on_error.pop_all()
    return engine


def _prepare(engine: sa.Engine, url: str) -> None:
    with engine.connect() as connection:
        version = stored_version(connection)
    if version == HEAD:
        return
    check_not_newer(version, engine.url)
    if version is None:
        create_tables(engine)
    elif engine.dialect.name == "sqlite":
        migrate.upgrade(url)
    else:
        named = "an older version" if version == UNVERSIONED else f"version {version}"
        raise DatabaseError(
            f"{shown(url)} has dialin's tables in {named}, and this dialin works with {HEAD}. Stop the servers and "
            "drivers that use it, make a copy of it, and run: dialin db upgrade (DIALIN_UPGRADE_DATABASE=1 has a "
            "server do so when it starts)"
        )
