"""PostgreSQL roles for drivers that run other people's code: each may only access the rows of its own study.

PostgreSQL's row-level security enforces it. The server owns the tables, so the policies do not apply to it. A driver's
role is a member of `dialin_drivers`, whose policies compare each row with the study that the role was created for.
SQLite has no roles.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence

import sqlalchemy as sa

from dialin.store.tables import DRIVER_ROLES, SCHEMA_VERSION

GROUP = "dialin_drivers"
_PREFIX = "dialin_driver_"
_SETUP_LOCK = (
    0x6469616C  # "dial" in ASCII; the lock makes servers that start together create the policies one at a time
)
_OWN, _READABLE = "dialin_own_study()", "dialin_readable_studies()"
_IN_OWN_STUDY = f"study_id IN (SELECT study_id FROM studies WHERE study_name = {_OWN})"
_IN_READABLE_STUDY = f"study_id IN (SELECT study_id FROM studies WHERE study_name = ANY({_READABLE}))"
_IN_OWN_TRIAL = f"trial_id IN (SELECT trial_id FROM trials WHERE {_IN_OWN_STUDY})"
_IN_READABLE_TRIAL = f"trial_id IN (SELECT trial_id FROM trials WHERE {_IN_READABLE_STUDY})"

# Table -> (condition on the rows that a driver may read, on those that it may write, and the privileges on the latter)
_TABLES = {
    "dialin_studies": (f"id = ANY({_READABLE})", f"id = {_OWN}", "UPDATE"),
    "dialin_submissions": (f"study_id = {_OWN}", f"study_id = {_OWN}", "UPDATE (began_at, started_at)"),
    "dialin_leases": (f"study_id = {_OWN}", f"study_id = {_OWN}", "INSERT, UPDATE"),
    "studies": (f"study_name = ANY({_READABLE})", f"study_name = {_OWN}", "INSERT, UPDATE"),
    "study_directions": (_IN_READABLE_STUDY, _IN_OWN_STUDY, "INSERT, UPDATE"),
    "study_user_attributes": (_IN_READABLE_STUDY, _IN_OWN_STUDY, "INSERT, UPDATE, DELETE"),
    "study_system_attributes": (_IN_READABLE_STUDY, _IN_OWN_STUDY, "INSERT, UPDATE, DELETE"),
    "trials": (_IN_READABLE_STUDY, _IN_OWN_STUDY, "INSERT, UPDATE"),
    "trial_user_attributes": (_IN_READABLE_TRIAL, _IN_OWN_TRIAL, "INSERT, UPDATE, DELETE"),
    "trial_system_attributes": (_IN_READABLE_TRIAL, _IN_OWN_TRIAL, "INSERT, UPDATE, DELETE"),
    "trial_params": (_IN_READABLE_TRIAL, _IN_OWN_TRIAL, "INSERT, UPDATE"),
    "trial_values": (_IN_READABLE_TRIAL, _IN_OWN_TRIAL, "INSERT, UPDATE"),
    "trial_intermediate_values": (_IN_READABLE_TRIAL, _IN_OWN_TRIAL, "INSERT, UPDATE"),
    "trial_heartbeats": (_IN_READABLE_TRIAL, _IN_OWN_TRIAL, "INSERT, UPDATE"),
}
# The schema versions that a driver's dialin and its Optuna check when they open the database.
_VERSIONS = (SCHEMA_VERSION.name, "version_info", "alembic_version")


class DriverRoles:
    """Creates and drops the roles, with the server's own access to the database. The tables must exist."""

    def __init__(self, url: str) -> None:
        self._url = sa.make_url(url)
        self._engine = sa.create_engine(url)
        self._is_set_up = False

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def can_be_made(self) -> bool:
        """Return whether the database has roles and the server's user may create them."""
        if self._url.get_backend_name() != "postgresql":
            return False
        query = sa.text("SELECT rolcreaterole OR rolsuper FROM pg_roles WHERE rolname = current_user")
        with self._engine.connect() as connection:
            return bool(connection.execute(query).scalar())

    def url_for(self, study_id: str, readable: Sequence[str] = ()) -> str:
        """Return the URL by which the driver of a study connects. Its role is created, or gets a new password, so that
        the URL of an earlier driver is no longer valid. `readable`: ids of other studies that it may read."""
        role, password = _role_of(study_id), secrets.token_urlsafe(32)
        with self._engine.begin() as connection:
            self._set_up(connection)
            exists = connection.execute(
                sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}
            ).scalar()
            # PostgreSQL takes no parameters in these statements. Name and password need no quoting: they consist of
            # letters, digits, - and _.
            verb = "ALTER" if exists else "CREATE"
            connection.execute(sa.text(f"{verb} ROLE {role} LOGIN PASSWORD '{password}'"))
            connection.execute(sa.text(f"GRANT {GROUP} TO {role}"))
            note = sa.text(
                "INSERT INTO dialin_driver_roles (role, study_id, readable) VALUES (:role, :study, :readable) "
                "ON CONFLICT (role) DO UPDATE SET readable = excluded.readable"
            )
            values = {"role": role, "study": study_id, "readable": [study_id, *readable]}
            connection.execute(note, values)
        return self._url.set(username=role, password=password).render_as_string(hide_password=False)

    def remove(self, study_id: str) -> None:
        """Drop the role of a study's drivers, if there is one."""
        role = _role_of(study_id)
        with self._engine.begin() as connection:
            if connection.execute(sa.text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar():
                connection.execute(sa.text(f"DROP ROLE {role}"))
                connection.execute(sa.text("DELETE FROM dialin_driver_roles WHERE role = :role"), {"role": role})

    def study_ids(self) -> set[str]:
        """Return the studies whose drivers have a role."""
        if self._url.get_backend_name() != "postgresql":
            return set()
        with self._engine.connect() as connection:
            return set(connection.execute(sa.select(DRIVER_ROLES.c.study_id)).scalars())

    def _set_up(self, connection: sa.Connection) -> None:
        if self._is_set_up:
            return
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_SETUP_LOCK})"))
        for statement in _setup_statements(set(sa.inspect(connection).get_table_names())):
            connection.execute(sa.text(statement))
        self._is_set_up = True


def _setup_statements(tables: set[str]) -> list[str]:
    """Return SQL that may run any number of times: the group, the functions that look up a role's study, and the
    policies of each table that exists."""
    statements = [
        f"DO $$ BEGIN CREATE ROLE {GROUP} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        f"GRANT SELECT ON dialin_driver_roles TO {GROUP}",
        # session_user is the role that connected: unlike current_user, SET ROLE does not change it.
        (
            "CREATE OR REPLACE FUNCTION dialin_own_study() RETURNS text LANGUAGE sql STABLE AS "
            "'SELECT study_id FROM dialin_driver_roles WHERE role = session_user'"
        ),
        (
            "CREATE OR REPLACE FUNCTION dialin_readable_studies() RETURNS text[] LANGUAGE sql STABLE AS "
            "'SELECT readable FROM dialin_driver_roles WHERE role = session_user'"
        ),
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {GROUP}",
    ]
    statements += [f"GRANT SELECT ON {name} TO {GROUP}" for name in _VERSIONS if name in tables]
    for name, (readable, own, verbs) in _TABLES.items():
        if name in tables:
            statements += _policy(name, readable, own, verbs)
    return statements


def _policy(table: str, readable: str, own: str, verbs: str) -> list[str]:
    return [
        f"GRANT SELECT, {verbs} ON {table} TO {GROUP}",
        f"DROP POLICY IF EXISTS dialin_read ON {table}",
        f"DROP POLICY IF EXISTS dialin_write ON {table}",
        f"CREATE POLICY dialin_read ON {table} FOR SELECT TO {GROUP} USING ({readable})",
        f"CREATE POLICY dialin_write ON {table} FOR ALL TO {GROUP} USING ({own}) WITH CHECK ({own})",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
    ]


def _role_of(study_id: str) -> str:
    """Return the name of a study's role. It contains a digest, because a name may have 63 bytes and an id more."""
    return _PREFIX + hashlib.sha256(study_id.encode()).hexdigest()[:24]
