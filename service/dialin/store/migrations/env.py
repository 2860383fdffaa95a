"""Alembic's environment: the revisions run in the connection, and in the transaction, of `dialin.store.migrate`."""

from __future__ import annotations

from alembic import context

from dialin.store.tables import METADATA

_attributes = context.config.attributes
context.configure(
    connection=_attributes["connection"],
    target_metadata=METADATA,
    version_table=_attributes["version_table"],
    render_as_batch=True,  # SQLite cannot change most things about a column in place
)
context.run_migrations()
