"""dialin's own tables, in the schema that this version works with; `migrations/` upgrades older schemas to it.

They are in the same database as Optuna's tables. Times are in seconds since 1970.
"""

from __future__ import annotations

import sqlalchemy as sa

METADATA = sa.MetaData()
POSTGRESQL_METADATA = sa.MetaData()  # tables that only a PostgreSQL database has

# The schema's version: Alembic's table, under a name of its own, because Optuna's `alembic_version` is in the database.
SCHEMA_VERSION = sa.Table(
    "dialin_schema_version",
    METADATA,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="dialin_schema_version_pkc"),
)

# Studies: their ids, specifications and states.
STUDIES = sa.Table(
    "dialin_studies",
    METADATA,
    sa.Column("id", sa.String(96), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("spec", sa.Text, nullable=False),  # YAML
    sa.Column("summary", sa.Text, nullable=False, default="{}"),  # JSON, written by the driver
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("ended_at", sa.Float),
)

# Submissions of studies to a server; a study that was run without a server has no row here.
SUBMISSIONS = sa.Table(
    "dialin_submissions",
    METADATA,
    sa.Column("study_id", sa.String(96), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False, index=True),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("idempotency_key", sa.String(128)),
    sa.Column("digest", sa.String(64), nullable=False),  # SHA-256 of the request
    sa.Column("wanted", sa.Boolean, nullable=False),  # the study shall run; False: it shall stop
    sa.Column("archived", sa.Boolean, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),  # drivers that died in a row
    sa.Column("not_before", sa.Float, nullable=False),  # the next driver starts no earlier
    sa.Column("job", sa.String(128), nullable=False),  # the Ray job that drives the study; empty: none
    sa.Column("claimed_at", sa.Float),
    sa.Column("began_at", sa.Float),
    sa.Column("started_at", sa.Float),
    sa.Column("concurrency", sa.Integer),
    sa.UniqueConstraint("owner", "idempotency_key"),
)

# The process that drives each study.
LEASES = sa.Table(
    "dialin_leases",
    METADATA,
    sa.Column("study_id", sa.String(96), primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("owner", sa.String(255), nullable=False),  # see leases.Owner; empty: the lease was released
    sa.Column("beat_at", sa.Float, nullable=False),  # the last heartbeat, by the database's clock
)

TOKENS = sa.Table(
    "dialin_tokens",
    METADATA,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),  # SHA-256 of the token
    sa.Column("created_at", sa.Float, nullable=False),
)

# Sessions of the web page; `name` is the token's that opened it.
SESSIONS = sa.Table(
    "dialin_sessions",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), nullable=False, index=True),
    sa.Column("ends_at", sa.Float, nullable=False),
)

# The code bundles that a server keeps: one row for each bundle and each submitter who sent it.
BUNDLES = sa.Table(
    "dialin_bundles",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("owner", sa.String(64), primary_key=True),  # empty: unknown, because an older version received it
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("sent_at", sa.Float, nullable=False),  # or when a submission last named it
)

# The PostgreSQL role of each driver that runs a person's code, and the studies that it may read.
DRIVER_ROLES = sa.Table(
    "dialin_driver_roles",
    POSTGRESQL_METADATA,
    sa.Column("role", sa.Text, primary_key=True),
    sa.Column("study_id", sa.Text, nullable=False),
    sa.Column("readable", sa.ARRAY(sa.Text), nullable=False),
)
