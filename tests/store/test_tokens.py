from __future__ import annotations

import sqlite3

import pytest

from dialin.errors import ConflictError, NotFoundError, UsageError
from dialin.lifecycle import Role
from dialin.store.tokens import MOST_SESSIONS, Identity, Tokens


@pytest.fixture
def path(tmp_path):
    return tmp_path / "studies.db"


@pytest.fixture
def tokens(path):
    with Tokens(f"sqlite:///{path}") as tokens:
        yield tokens


def test_a_token_is_known_by_its_digest_only(path, tokens):
    assert not tokens.exist()
    secret = tokens.create("ana", "submitter")
    assert tokens.identify(secret) == Identity("ana", Role.SUBMITTER)
    assert tokens.identify(secret[:-1]) is None
    session = tokens.open_session(tokens.identify(secret))
    assert tokens.identify_session(session) == Identity("ana", Role.SUBMITTER)
    stored = "\n".join(sqlite3.connect(path).iterdump())
    assert secret not in stored
    assert session not in stored
    assert [(name, role) for name, role, _ in tokens.list()] == [("ana", Role.SUBMITTER)]


def test_a_revoked_token_ends_its_sessions(tokens):
    secret = tokens.create("ana", "viewer")
    session = tokens.open_session(tokens.identify(secret))
    with pytest.raises(ConflictError, match="dialin token revoke ana"):
        tokens.create("ana", "viewer")
    tokens.revoke("ana")
    assert tokens.identify(secret) is None
    assert tokens.identify_session(session) is None
    with pytest.raises(NotFoundError, match="'ana'"):
        tokens.revoke("ana")


def test_a_session_ends(tokens, monkeypatch):
    session = tokens.open_session(tokens.identify(tokens.create("ana", "viewer")))
    tokens.close_session(session)
    assert tokens.identify_session(session) is None
    monkeypatch.setattr("dialin.store.tokens.SESSION_SECONDS", -1.0)
    assert tokens.identify_session(tokens.open_session(Identity("ana", Role.VIEWER))) is None


@pytest.mark.parametrize(("name", "role"), [("", "admin"), ("Ana", "admin"), ("a" * 65, "admin"), ("ana", "root")])
def test_bad_names_and_roles_are_refused(tokens, name, role):
    with pytest.raises(UsageError):
        tokens.create(name, role)


def test_roles_hold_what_lower_ones_do():
    assert Identity("ana", Role.ADMIN).may(Role.VIEWER)
    assert Identity("ana", Role.SUBMITTER).may(Role.SUBMITTER)
    assert not Identity("ana", Role.VIEWER).may(Role.SUBMITTER)


def test_one_token_has_so_many_sessions_at_most(tokens):
    ana, ben = (tokens.identify(tokens.create(name, "viewer")) for name in ("ana", "ben"))
    bens = tokens.open_session(ben)
    opened = [tokens.open_session(ana) for _ in range(MOST_SESSIONS + 20)]
    alive = [session for session in opened if tokens.identify_session(session) == ana]
    assert alive == opened[-MOST_SESSIONS:]
    assert tokens.identify_session(bens) == ben
