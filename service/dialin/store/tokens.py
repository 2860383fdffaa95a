"""The callers of a server: their tokens, of which only digests are stored, and their sessions on the web page.

A token has 256 random bits, so it cannot be guessed from its SHA-256 digest, and a slow password hash is not needed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass

import sqlalchemy as sa

from dialin.errors import ConflictError, NotFoundError, UsageError, did_you_mean
from dialin.lifecycle import Role
from dialin.store.database import Tables
from dialin.store.studies import Clock
from dialin.store.tables import SESSIONS, TOKENS

SESSION_SECONDS = 7 * 24 * 3600.0
MOST_SESSIONS = 100  # of one token: its holder must not be able to fill the table
_PREFIX = "dialin_"  # lets secret scanners find a token that has leaked into a text


@dataclass(frozen=True)
class Identity:
    """A caller of the server."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Return whether the caller's role is this one or a higher one."""
        return self.role.includes(role)


class Tokens(Tables):
    """The tokens and sessions in the database at an SQLAlchemy URL. Thread safe; a context manager, which closes its
    connections.

    `clock`: where the times of creation and expiry come from.
    """

    def __init__(self, url: str, clock: Clock = time.time) -> None:
        super().__init__(url)
        self._clock = clock

    def create(self, name: str, role: str) -> str:
        """Create a token for a name and return it; it cannot be read again.

        Raises UsageError for a name or a role that is not allowed, and ConflictError for a name that has a token.
        """
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            raise UsageError(f"name {name!r}; allowed: 1 to 64 of a-z, 0-9, '.', '-' and '_', a letter or digit first")
        if role not in list(Role):
            raise UsageError(f"role {role!r}: {did_you_mean(role, list(Role))}")
        token = _PREFIX + secrets.token_urlsafe(32)
        values = {"name": name, "role": role, "digest": _digest(token), "created_at": self._clock()}
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(TOKENS).values(**values))
        except sa.exc.IntegrityError:
            raise ConflictError(f"{name!r} has a token already; revoke it with: dialin token revoke {name}") from None
        return token

    def revoke(self, name: str) -> None:
        """Delete a token and the sessions that were opened with it. Raises NotFoundError for a name without a token."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.name == name))
            done = connection.execute(sa.delete(TOKENS).where(TOKENS.c.name == name))
        if done.rowcount == 0:
            raise NotFoundError(f"{name!r} has no token; dialin token list shows who has one")

    def list(self) -> list[tuple[str, Role, float]]:
        """Return the name, the role and the time of creation of every token, the oldest first."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(TOKENS).order_by(TOKENS.c.created_at))
            return [(row.name, Role(row.role), row.created_at) for row in found]

    def exist(self) -> bool:
        """Return whether there is any token."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(TOKENS.c.name).limit(1)).first() is not None

    def identify(self, token: str) -> Identity | None:
        """Return the caller whose token this is; None for an unknown token."""
        query = sa.select(TOKENS.c.name, TOKENS.c.role).where(TOKENS.c.digest == _digest(token))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return Identity(row.name, Role(row.role)) if row is not None else None

    def open_session(self, identity: Identity) -> str:
        """Open a session and return its secret, for a cookie. If the caller has MOST_SESSIONS, the oldest ones are
        closed."""
        secret = secrets.token_urlsafe(32)
        now = self._clock()
        values = {"digest": _digest(secret), "name": identity.name, "ends_at": now + SESSION_SECONDS}
        with self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.ends_at < now))
            own = SESSIONS.c.name == identity.name
            newest = sa.select(SESSIONS.c.ends_at).where(own).order_by(SESSIONS.c.ends_at.desc())
            oldest = connection.execute(newest.offset(MOST_SESSIONS - 1).limit(1)).scalar()
            if oldest is not None:
                connection.execute(sa.delete(SESSIONS).where(own, SESSIONS.c.ends_at <= oldest))
            connection.execute(sa.insert(SESSIONS).values(**values))
        return secret

    def identify_session(self, secret: str) -> Identity | None:
        """Return the caller whose session this is; None if it has expired or was closed, or its token was revoked."""
        query = (
            sa.select(TOKENS.c.name, TOKENS.c.role)
            .join(SESSIONS, SESSIONS.c.name == TOKENS.c.name)
            .where(SESSIONS.c.digest == _digest(secret), SESSIONS.c.ends_at > self._clock())
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return Identity(row.name, Role(row.role)) if row is not None else None

    def close_session(self, secret: str) -> None:
        """End a session, if it is known."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.digest == _digest(secret)))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
