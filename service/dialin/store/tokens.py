"""Who may ask a server for what: tokens, of which only digests are stored, and the sessions of the page.

A token has 256 random bits, so a plain SHA-256 of it gives nothing away.
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
from dialin.store.database import connect
from dialin.store.tables import SESSIONS, TOKENS

SESSION_SECONDS = 7 * 24 * 3600.0
MOST_SESSIONS = 100  # of one token: whoever has it could fill the table
_PREFIX = "dialin_"  # so that a token that leaked into a text is recognized


@dataclass(frozen=True)
class Identity:
    """Somebody who asks."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether their role is that one or a higher one."""
        return self.role.includes(role)


class Tokens:
    """The tokens behind an SQLAlchemy URL. A context manager, thread safe."""

    def __init__(self, url: str) -> None:
        self._engine = connect(url)

    def __enter__(self) -> Tokens:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._engine.dispose()

    def create(self, name: str, role: str) -> str:
        """A new token, which nobody can read again. Raises UsageError, and ConflictError for a name that has one."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
            raise UsageError(f"name {name!r}; allowed: 1 to 64 of a-z, 0-9, '.', '-' and '_', a letter or digit first")
        if role not in list(Role):
            raise UsageError(f"role {role!r}: {did_you_mean(role, list(Role))}")
        token = _PREFIX + secrets.token_urlsafe(32)
        values = {"name": name, "role": role, "digest": _digest(token), "created_at": time.time()}
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.insert(TOKENS).values(**values))
        except sa.exc.IntegrityError:
            raise ConflictError(f"{name!r} has a token; revoke it first with: dialin token revoke {name}") from None
        return token

    def revoke(self, name: str) -> None:
        """End a token, and the sessions that were opened with it. Raises NotFoundError."""
        with self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.name == name))
            done = connection.execute(sa.delete(TOKENS).where(TOKENS.c.name == name))
        if done.rowcount == 0:
            raise NotFoundError(f"no token of the name {name!r}")

    def list(self) -> list[tuple[str, Role, float]]:
        """Name, role and when it was made, of every token."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(TOKENS).order_by(TOKENS.c.created_at))
            return [(row.name, Role(row.role), row.created_at) for row in found]

    def any(self) -> bool:
        """Whether there is one at all."""
        with self._engine.connect() as connection:
            return connection.execute(sa.select(TOKENS.c.name).limit(1)).first() is not None

    def identify(self, token: str) -> Identity | None:
        """Whose token it is; None: nobody's."""
        query = sa.select(TOKENS.c.name, TOKENS.c.role).where(TOKENS.c.digest == _digest(token))
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return Identity(row.name, Role(row.role)) if row is not None else None

    def open_session(self, identity: Identity) -> str:
        """A session's secret, for a cookie. Of more than MOST_SESSIONS of one caller the oldest ends."""
        secret = secrets.token_urlsafe(32)
        values = {"digest": _digest(secret), "name": identity.name, "ends_at": time.time() + SESSION_SECONDS}
        with self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.ends_at < time.time()))
            own = SESSIONS.c.name == identity.name
            newest = sa.select(SESSIONS.c.ends_at).where(own).order_by(SESSIONS.c.ends_at.desc())
            oldest = connection.execute(newest.offset(MOST_SESSIONS - 1).limit(1)).scalar()
            if oldest is not None:
                connection.execute(sa.delete(SESSIONS).where(own, SESSIONS.c.ends_at <= oldest))
            connection.execute(sa.insert(SESSIONS).values(**values))
        return secret

    def of_session(self, secret: str) -> Identity | None:
        """Whose session it is; None when it is over, or the token was revoked."""
        query = (
            sa.select(TOKENS.c.name, TOKENS.c.role)
            .join(SESSIONS, SESSIONS.c.name == TOKENS.c.name)
            .where(SESSIONS.c.digest == _digest(secret), SESSIONS.c.ends_at > time.time())
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return Identity(row.name, Role(row.role)) if row is not None else None

    def close_session(self, secret: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(sa.delete(SESSIONS).where(SESSIONS.c.digest == _digest(secret)))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
