"""Answers that were given a moment ago, given again: what many ask for at once is made once a second.

A change that came by this server makes all of them old at once; one that came by another server, or a driver's, is seen
a second later.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.auth import Gate
from service.errors import DialinError

FRESH_SECONDS = 1.0
MOST_KEPT, MOST_BYTES = 512, 2**20
_KEPT_BELOW = ("/api/v1/studies", "/api/v1/search-spaces", "/api/v1/knobs", "/studies", "/live")
_SAFE = ("GET", "HEAD", "OPTIONS")
# Whatever an answer depends on besides its path, its query and who asks.
_VARY = (b"accept", b"if-none-match", b"host")
_Key = tuple[object, ...]


@dataclass(frozen=True)
class _Answer:
    at: float
    start: Message
    body: bytes


class Recent:
    """Middleware. Whoever asks is let in by the gate first, and a request that gets an old answer counts like any."""

    def __init__(self, app: ASGIApp, gate: Gate, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._gate, self._clock = app, gate, clock
        self._kept: OrderedDict[_Key, _Answer] = OrderedDict()
        self._making: dict[_Key, asyncio.Lock] = {}
        self._changes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] not in _SAFE:
            try:
                await self._app(scope, receive, send)
            finally:
                if not scope["path"].endswith(("/plan", "/check")):  # which change nothing
                    self._changes += 1
                    self._kept.clear()
        elif scope["method"] == "GET" and _is_kept(scope["path"]):
            await self._give(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _give(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        try:
            who = self._gate.remembered(request) or await run_in_threadpool(self._gate.admit, request)
        except DialinError as error:
            # The path says so in its own way: the page with a form to sign in, the API with a document.
            scope.setdefault("state", {})["refused"] = error
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["identity"] = who
        varied = tuple(value for name, value in scope["headers"] if name in _VARY)
        key: _Key = (scope["path"], scope["query_string"], who, varied, self._changes)
        if (found := self._fresh(key)) is None:
            async with self._making.setdefault(key, asyncio.Lock()):
                if (found := self._fresh(key)) is None:
                    found = await self._make(scope, receive, key)
            self._making.pop(key, None)
        await send(found.start)
        await send({"type": "http.response.body", "body": found.body})

    def _fresh(self, key: _Key) -> _Answer | None:
        found = self._kept.get(key)
        return found if found is not None and self._clock() - found.at < FRESH_SECONDS else None

    async def _make(self, scope: Scope, receive: Receive, key: _Key) -> _Answer:
        start: Message = {}
        body = bytearray()

        async def take(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
            else:
                body.extend(message.get("body", b""))

        await self._app(scope, receive, take)
        answer = _Answer(self._clock(), start, bytes(body))
        if start["status"] == 200 and len(body) <= MOST_BYTES:
            self._kept[key] = answer
            self._kept.move_to_end(key)
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return answer


def _is_kept(path: str) -> bool:
    return path == "/" or (path.startswith(_KEPT_BELOW) and not path.endswith("/events"))
