"""The PostgreSQL roles of drivers. Builds after 9fc48be created the table with the first role, without a version."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.create_table(
            "dialin_driver_roles",
            sa.Column("role", sa.Text, primary_key=True),
            sa.Column("study_id", sa.Text, nullable=False),
            sa.Column("readable", sa.ARRAY(sa.Text), nullable=False),
            if_not_exists=True,
        )
