"""The server notes who sent which code bundle. Builds after 9fc48be created the table without recording a version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "dialin_bundles",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("owner", sa.String(64), primary_key=True),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
