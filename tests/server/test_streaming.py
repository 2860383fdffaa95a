"""Event streams of a real server: how many there may be, and when one ends."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import pytest

from dialin.lifecycle import Role
from dialin.server.app import create_app
from dialin.server.connections import ConnectionLimits
from dialin.server.serve import uvicorn_config
from dialin.settings import ServerSettings
from dialin.store.tokens import Identity
from tests.server.conftest import SPEC
from tests.server.wire import get, listening, rest, status


@pytest.fixture
def served(settings, jobs, tokens):
    """A server with a study that is queued for ever, which has few places for streams: its port, and the stream's path."""
    server = ServerSettings(poll_seconds=3600, max_streams=5, max_streams_per_caller=3)
    app = create_app(settings, server, jobs)
    study, _ = app.state.dialin.submission.submit(Identity("ana", Role.ADMIN), SPEC)
    with listening(uvicorn_config(app, "127.0.0.1", 0, ConnectionLimits())) as port:
        yield port, study.links.events


def opened(stack: ExitStack, port: int, path: str, *headers: str) -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
    connection.sendall(get(path, *headers))
    return connection


def test_one_caller_has_so_many_streams_and_leaves_the_others_theirs(served, tokens):
    port, path = served
    eve, ana = tokens.create("eve", "viewer"), tokens.create("ana", "admin")
    with ExitStack() as stack:
        # Sent all at once: each is counted before it is let in.
        hers = [opened(stack, port, path, f"Authorization: Bearer {eve}") for _ in range(12)]
        answers = [connection.recv(12) for connection in hers]
        assert sorted(map(status, answers)) == [200] * 3 + [429] * 9
        admins = opened(stack, port, path, f"Authorization: Bearer {ana}")
        assert status(admins.recv(12)) == 200
    deadline = time.monotonic() + 10
    while True:  # the places of those who went are free again
        with ExitStack() as stack:
            got = [status(opened(stack, port, path, f"Authorization: Bearer {eve}").recv(12)) for _ in range(3)]
        if got == [200] * 3:
            break
        assert time.monotonic() < deadline, got
        time.sleep(0.2)


def test_a_stream_ends_when_its_token_is_revoked(served, tokens):
    port, path = served
    tokens.create("root", "admin")
    token = tokens.create("eve", "viewer")
    with ExitStack() as stack:
        stream = opened(stack, port, path, f"Authorization: Bearer {token}")
        assert status(stream.recv(4096)) == 200
        tokens.revoke("eve")
        began = time.monotonic()
        ended = rest(stream)
    assert ended.endswith(b"0\r\n\r\n")
    assert time.monotonic() - began < 5  # about 1.25 s, on a machine that is not busy


def test_a_stream_ends_when_its_session_is_closed(served, tokens):
    port, path = served
    session = tokens.open_session(Identity("eve", Role.VIEWER))
    tokens.create("eve", "viewer")
    with ExitStack() as stack:
        stream = opened(stack, port, path, f"Cookie: dialin_session={session}")
        assert status(stream.recv(4096)) == 200
        tokens.close_session(session)
        assert rest(stream).endswith(b"0\r\n\r\n")


def test_who_listens_without_a_token_does_so_until_the_first_is_made(served, tokens):
    port, path = served
    with ExitStack() as stack:
        stream = opened(stack, port, path)
        assert status(stream.recv(4096)) == 200
        tokens.create("ana", "admin")
        assert rest(stream).endswith(b"0\r\n\r\n")
