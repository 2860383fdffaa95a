"""Migrations of dialin's tables: reads the version that a database has, and upgrades it to the newest one.

The revisions are Alembic's, in `migrations/versions/`. A migration is one transaction, which holds the lock of the
schema from before the version is read: two processes that open an old database at once migrate it once, and a migration
that fails changes nothing.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import sqlalchemy as sa

from dialin.errors import DatabaseError
from dialin.store.database_errors import shown
from dialin.store.engine import open_engine, serialized
from dialin.store.schema import HEAD, LOCK, check_not_newer, create_tables, stored_version
from dialin.store.tables import SCHEMA_VERSION
from dialin.texts import one_line

_LOG = logging.getLogger(__name__)
_MIGRATIONS = Path(__file__).parent / "migrations"


def current(url: str) -> str | None:
    """Return the version of dialin's tables in a database (`schema.stored_version`). Changes nothing. Raises
    DatabaseError for a database that cannot be read."""
    target = sa.make_url(url)
    if target.get_backend_name() == "sqlite" and not Path(target.database or "").exists():
        return None  # SQLite would create the file
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            return stored_version(connection)
    finally:
        engine.dispose()


def upgrade(url: str) -> str | None:
    """Bring dialin's tables to the version `schema.HEAD`, and create them where there are none.

    A SQLite file is copied first, to the name that `copy_of` gives. Returns the version that the tables had before:
    `HEAD` if there was nothing to do, None if there were none.

    Raises DatabaseError for a database that a newer dialin has upgraded, and for one that cannot be copied, written or
    migrated; its tables are unchanged then.
    """
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            version = stored_version(connection)
        if version is None:
            create_tables(engine)
        elif version != HEAD:
            check_not_newer(version, engine.url)
            return _migrate(engine)
        return version
    finally:
        engine.dispose()


def copy_of(database: Path, version: str) -> Path:
    """Return the path of the copy that is made before a SQLite file with this version is migrated."""
    return database.with_name(f"{database.name}.before-upgrade-from-{version}")


def _migrate(engine: sa.Engine) -> str | None:
    copy = None
    try:
        with serialized(engine, LOCK) as connection:
            version = stored_version(connection)  # another process may have been faster
            if version is None or version == HEAD:
                return version
            check_not_newer(version, engine.url)
            copy = _copy(engine, version)
            _run_revisions(connection)
    except (DatabaseError, sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        if isinstance(error, DatabaseError) and error.__cause__ is None:
            raise  # from `check_not_newer`
        said = one_line(str(error.__cause__ or error).partition("\n")[0], 300)
        kept = f"; {copy} is a copy of it" if copy is not None else ""
        raise DatabaseError(
            f"{shown(engine.url)} could not be upgraded to version {HEAD} of dialin's tables ({said}); nothing in it "
            f"was changed{kept}"
        ) from error
    where = f"; {copy} is a copy of it from before" if copy is not None else ""
    _LOG.warning("%s was upgraded from version %s to %s%s", shown(engine.url), version, HEAD, where)
    return version


def _copy(engine: sa.Engine, version: str) -> Path | None:
    """Copy a SQLite file, with what is still in its write-ahead log, under a name that says its version. A copy from an
    earlier attempt is replaced. None for a database of another kind."""
    if engine.dialect.name != "sqlite" or not engine.url.database:
        return None
    database = Path(engine.url.database)
    copy = copy_of(database, version)
    partial = copy.with_name(f"{copy.name}.partial")
    with suppress(FileNotFoundError):
        partial.unlink()
    mode = database.stat().st_mode & 0o777  # no account may read the copy that may not read the database
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        source = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(partial)) as target:
            source.backup(target)
        partial.replace(copy)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
    return copy


def _run_revisions(connection: sa.Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes.update(connection=connection, version_table=SCHEMA_VERSION.name)
    command.upgrade(config, "head")
