"""The version of dialin's tables in a database, read by plain SQL.

Every command checks the version. Alembic, whose import takes long, is imported only to migrate (`migrate.py`).
"""

from __future__ import annotations

import sqlalchemy as sa

from dialin.errors import DatabaseError
from dialin.store.database_errors import shown
from dialin.store.engine import serialized
from dialin.store.tables import METADATA, POSTGRESQL_METADATA, SCHEMA_VERSION, STUDIES

VERSIONS = ("0001", "0002", "0003")  # the revisions in migrations/versions, the oldest first
HEAD = VERSIONS[-1]  # the schema that this version of dialin works with
UNVERSIONED = "none"  # tables that were created before the version was recorded
LOCK = "dialin schema"  # the key of `serialized` for whatever changes tables


def stored_version(connection: sa.Connection) -> str | None:
    """Return the version of dialin's tables: one of `VERSIONS`, one of a newer dialin, or UNVERSIONED; None: the
    database has no tables of dialin."""
    if _has(connection, SCHEMA_VERSION):
        found: str | None = connection.execute(sa.select(SCHEMA_VERSION.c.version_num)).scalar()
        return found or UNVERSIONED
    return UNVERSIONED if _has(connection, STUDIES) else None


def check_not_newer(version: str | None, url: sa.URL) -> None:
    """Raise DatabaseError for a version that this dialin does not know."""
    if version not in (None, UNVERSIONED, *VERSIONS):
        raise DatabaseError(
            f"{shown(url)} has dialin's tables in version {version}, and this dialin knows versions up to {HEAD}: a "
            "newer dialin has upgraded it. Nothing was changed; use that dialin, or another folder"
        )


def create_tables(engine: sa.Engine) -> None:
    """Create all tables in their newest version, unless another process has done so meanwhile."""
    with serialized(engine, LOCK) as connection:
        if stored_version(connection) is None:
            METADATA.create_all(connection)
            if engine.dialect.name == "postgresql":
                POSTGRESQL_METADATA.create_all(connection)
            connection.execute(sa.insert(SCHEMA_VERSION).values(version_num=HEAD))


def _has(connection: sa.Connection, table: sa.Table) -> bool:
    return sa.inspect(connection).has_table(table.name)
