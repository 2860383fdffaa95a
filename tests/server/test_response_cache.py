"""Answers that are given again: how old they get, how much of them is kept."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace

import pytest

from dialin.lifecycle import Role
from dialin.server import response_cache
from dialin.server.response_cache import ResponseCache
from dialin.server.study_reader import SharedStudyReader
from dialin.store.tokens import Identity

ANA = Identity("ana", Role.VIEWER)


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def asked(app, path="/api/v1/studies", **headers):
    """Status and body of one answer."""
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": pairs}
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, None, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def answering(text, clock, etag=None):
    """A response cache over an application that answers with what `text()` gives."""
    made = []

    async def app(scope, receive, send):
        made.append(scope["path"])
        headers = [(b"content-length", b"0")] + ([(b"etag", etag)] if etag else [])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text()})

    gate = SimpleNamespace(admit_remembered=lambda request: ANA)
    return ResponseCache(app, gate, clock), made


def test_no_answer_is_older_than_a_second(clock, settings, monkeypatch):
    stored = b"old"
    monkeypatch.setattr(
        "dialin.server.study_reader.read_cursor", lambda spool: SimpleNamespace(experiment=stored, parent="", runs={})
    )
    settings.out.mkdir()
    reader, row = SharedStudyReader(settings), SimpleNamespace(id="study")
    app, _ = answering(lambda: reader.mlflow_runs(row).experiment, clock)
    for begin in range(20):
        stored = b"old"
        clock.now += 10
        asked(app, "/studies/first")  # now the storage is read
        stored = b"new"
        changed_at = clock.now
        clock.now += begin / 20
        for step in range(60):
            _, body = asked(app, "/studies/second")
            assert body == b"new" or clock.now - changed_at <= 1.0, f"{clock.now - changed_at} s old"
            clock.now += 0.03 + step / 1000


def test_what_many_ask_is_made_once(clock):
    app, made = answering(lambda: b"x", clock)
    for number in range(50):
        asked(app, accept=f"text/{number}", host=f"127.0.0.1:{number}")
    assert len(made) == 1


def test_kinds_of_answers_are_kept_apart(clock):
    app, made = answering(lambda: b"x", clock)
    for accept in ("application/json", "application/yaml", "text/html"):
        asked(app, accept=accept)
    assert len(made) == 3


def test_all_answers_together_have_so_many_bytes_at_most(clock):
    app, _ = answering(lambda: bytes(500_000), clock)
    for number in range(200):
        asked(app, f"/studies/{number}")
    assert app.bytes <= response_cache.MOST_BYTES == 32 * 2**20


def test_a_client_that_has_an_answer_already_is_told_so(clock):
    app, made = answering(lambda: b"x", clock, etag=b'W/"1"')
    assert asked(app) == (200, b"x")
    assert asked(app, if_none_match='W/"1"') == (304, b"")
    assert asked(app, if_none_match='W/"2"') == (200, b"x")
    assert len(made) == 1


def test_requests_that_fail_leave_nothing_behind(clock):
    async def app(scope, receive, send):
        raise OSError("no")

    layer = ResponseCache(app, SimpleNamespace(admit_remembered=lambda request: ANA), clock)
    for number in range(5):
        with pytest.raises(OSError, match="no"):
            asked(layer, f"/studies/{number}")
    gc.collect()  # the errors' tracebacks
    assert layer.in_progress == 0
