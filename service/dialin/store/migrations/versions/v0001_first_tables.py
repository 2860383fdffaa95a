"""The tables of commit 9fc48be, which recorded no version.

In such a database each table may exist or not: it was created by the first process that imported its module.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "dialin_studies",
        sa.Column("id", sa.String(96), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("ended_at", sa.Float),
        if_not_exists=True,
    )
    op.create_index("ix_dialin_studies_name", "dialin_studies", ["name"], if_not_exists=True)
    op.create_table(
        "dialin_submissions",
        sa.Column("study_id", sa.String(96), primary_key=True),
        sa.Column("owner", sa.String(64), nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("idempotency_key", sa.String(128)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("wanted", sa.Boolean, nullable=False),
        sa.Column("archived", sa.Boolean, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Float, nullable=False),
        sa.Column("job", sa.String(128), nullable=False),
        sa.Column("claimed_at", sa.Float),
        sa.Column("began_at", sa.Float),
        sa.Column("started_at", sa.Float),
        sa.Column("concurrency", sa.Integer),
        sa.UniqueConstraint("owner", "idempotency_key"),
        if_not_exists=True,
    )
    op.create_index("ix_dialin_submissions_owner", "dialin_submissions", ["owner"], if_not_exists=True)
    op.create_table(
        "dialin_leases",
        sa.Column("study_id", sa.String(96), primary_key=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("beat_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "dialin_tokens",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "dialin_sessions",
        sa.Column("digest", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("ends_at", sa.Float, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_dialin_sessions_name", "dialin_sessions", ["name"], if_not_exists=True)
