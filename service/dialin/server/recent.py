"""The response cache: an answer that was given a moment ago is given again; what many ask for at once is made once.

A change that came by this server makes all of them old at once. One that came by another server, or a driver's, is seen
at most a second later: FRESH_SECONDS here and those of what was read from the storage (reading.py) together.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from cachetools import TLRUCache
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialin.errors import DialinError
from dialin.server.auth import SAFE, Gate

FRESH_SECONDS = 0.5
MOST_BYTES, MOST_BYTES_OF_ONE = 32 * 2**20, 2**20
_KEPT_BELOW = ("/api/v1/studies", "/api/v1/search-spaces", "/api/v1/knobs", "/studies", "/live")
_CHANGING = ("/api/v1/studies", "/studies", "/submit")
_KEPT = ("/", "/metrics", "/api/v1/metrics")
_Key = tuple[object, ...]


@dataclass(frozen=True)
class _Answer:
    """`at`: when it was begun, so as old as what it says at most. `size`: bytes that it takes, with its key."""

    at: float
    start: Message
    body: bytes
    size: int

    @property
    def etag(self) -> bytes | None:
        return next((value for name, value in self.start.get("headers", []) if name.lower() == b"etag"), None)


class Recent:
    """Middleware. Whoever asks is let in by the gate first, and a request that gets an old answer counts like any."""

    def __init__(self, app: ASGIApp, gate: Gate, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._gate, self._clock = app, gate, clock
        self._kept: TLRUCache[_Key, _Answer] = TLRUCache(
            MOST_BYTES,
            lambda _key, answer, _now: answer.at + FRESH_SECONDS,
            timer=clock,
            getsizeof=lambda answer: answer.size,
        )
        self._making: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()  # as long as somebody waits
        self._changes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] not in SAFE and scope["path"].startswith(_CHANGING):
            await self._change(scope, receive, send)
        elif scope["method"] == "GET" and _is_kept(scope["path"]):
            await self._give(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                # Before the answer: who has got it must not be told what was before.
                self._changes += 1
                self._kept.clear()
            await send(message)

        await self._app(scope, receive, sending)

    async def _give(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        state = scope.setdefault("state", {})
        try:
            who = state.get("identity") or self._gate.remembered(request)
            who = who or await run_in_threadpool(self._gate.admit, request)
        except DialinError as error:
            # The path says so in its own way: the page with a form to sign in, the API with a document.
            state["refused"] = error
            await self._app(scope, receive, send)
            return
        state["identity"] = who
        accept = request.headers.get("accept", "")
        # Of Accept only what an answer depends on: else there are as many answers as ways to write it.
        key: _Key = (
            scope["path"],
            scope["query_string"],
            who,
            tuple(kind in accept for kind in ("yaml", "text/html")),
            self._changes,
        )
        if (found := self._kept.get(key)) is None:
            lock = self._making.setdefault(key, asyncio.Lock())
            async with lock:
                if (found := self._kept.get(key)) is None:
                    found = await self._make(scope, receive, key)
        await _send(found, request.headers.get("if-none-match"), send)

    async def _make(self, scope: Scope, receive: Receive, key: _Key) -> _Answer:
        start: Message = {}
        body, began = bytearray(), self._clock()

        async def take(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                body.extend(message.get("body", b""))

        # Made whole for whoever asks; `_send` looks whether this one has it already.
        headers = [pair for pair in scope["headers"] if pair[0] != b"if-none-match"]
        await self._app({**scope, "headers": headers}, receive, take)
        size = len(body) + len(scope["path"]) + len(scope["query_string"]) + 2000
        answer = _Answer(began, start, bytes(body), size)
        if start["status"] == 200 and len(body) <= MOST_BYTES_OF_ONE:
            self._kept[key] = answer
        return answer


async def _send(answer: _Answer, known: str | None, send: Send) -> None:
    """An answer, or that it is still the one which the client has."""
    if known is not None and answer.start["status"] == 200 and answer.etag == known.encode("latin-1"):
        kept = [pair for pair in answer.start["headers"] if pair[0].lower() not in (b"content-length", b"content-type")]
        await send({**answer.start, "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
        return
    await send(dict(answer.start))
    await send({"type": "http.response.body", "body": answer.body})


def _is_kept(path: str) -> bool:
    return path in _KEPT or (path.startswith(_KEPT_BELOW) and not path.endswith("/events"))
