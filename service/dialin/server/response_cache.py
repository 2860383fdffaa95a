"""The response cache: how old an answer may be, and that an answer which many ask for at once is made once."""

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
from dialin.server.auth import SAFE_METHODS, Authenticator

FRESH_SECONDS = 1.0  # an answer is given again for that long, from when it was begun
MOST_BYTES, MOST_BYTES_OF_ONE = 32 * 2**20, 2**20
_CACHED_BELOW = ("/api/v1/studies", "/api/v1/search-spaces", "/api/v1/knobs", "/studies", "/live")
_CACHED = ("/", "/metrics", "/api/v1/metrics")
_CHANGED_BELOW = ("/api/v1/studies", "/studies", "/submit")
_Key = tuple[object, ...]


@dataclass(frozen=True)
class _Answer:
    """An answer, whole."""

    at: float  # when it was begun, so what it says is not older
    start: Message
    body: bytes
    size: int  # of memory, in bytes, with its key

    @property
    def etag(self) -> bytes | None:
        return next((value for name, value in self.start.get("headers", []) if name.lower() == b"etag"), None)


class ResponseCache:
    """Middleware that gives an answer again for FRESH_SECONDS.

    The caller is admitted first, and a request that gets an old answer is counted like any other. A change that comes
    through this server makes all answers old at once; one by another server, or by a driver, shows after FRESH_SECONDS.
    """

    def __init__(self, app: ASGIApp, auth: Authenticator, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._auth, self._clock = app, auth, clock
        self._answers: TLRUCache[_Key, _Answer] = TLRUCache(
            MOST_BYTES,
            lambda _key, answer, _now: answer.at + FRESH_SECONDS,
            timer=clock,
            getsizeof=lambda answer: answer.size,
        )
        # Held while an answer is made; weak, so that a lock goes with the last request that waits for it.
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()
        self.changes = 0
        """How often all answers became old at once."""

    @property
    def bytes(self) -> int:
        """How much memory the answers take."""
        return int(self._answers.currsize)

    @property
    def in_progress(self) -> int:
        """How many answers are being made."""
        return len(self._locks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["method"] not in SAFE_METHODS and scope["path"].startswith(_CHANGED_BELOW):
            await self._change(scope, receive, send)
        elif scope["method"] == "GET" and _is_cached(scope["path"]):
            await self._answer(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 400:
                # Before the answer is sent: its receiver must not be shown the state before the change afterwards.
                self.changes += 1
                self._answers.clear()
            await send(message)

        await self._app(scope, receive, sending)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        state = scope.setdefault("state", {})
        try:
            caller = state.get("identity") or self._auth.admit_remembered(request)
            caller = caller or await run_in_threadpool(self._auth.admit, request)
        except DialinError as error:
            # The route answers in its own way: the page with a form to sign in, the API with a document.
            state["refused"] = error
            await self._app(scope, receive, send)
            return
        state["identity"] = caller
        accept = request.headers.get("accept", "")
        # Of Accept only what answers depend on; there would be as many answers as ways to write it otherwise.
        kinds = tuple(kind in accept for kind in ("yaml", "text/html"))
        key: _Key = (scope["path"], scope["query_string"], caller, kinds, self.changes)
        if (found := self._answers.get(key)) is None:
            lock = self._locks.setdefault(key, asyncio.Lock())
            async with lock:
                if (found := self._answers.get(key)) is None:
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

        # Made whole for every caller; `_send` looks whether this one has it already.
        headers = [pair for pair in scope["headers"] if pair[0] != b"if-none-match"]
        await self._app({**scope, "headers": headers}, receive, take)
        size = len(body) + len(scope["path"]) + len(scope["query_string"]) + 2000
        answer = _Answer(began, start, bytes(body), size)
        if start["status"] == 200 and len(body) <= MOST_BYTES_OF_ONE:
            self._answers[key] = answer
        return answer


async def _send(answer: _Answer, known: str | None, send: Send) -> None:
    """Send an answer; or 304, where its ETag is the `known` one, which the client has."""
    if known is not None and answer.start["status"] == 200 and answer.etag == known.encode("latin-1"):
        kept = [pair for pair in answer.start["headers"] if pair[0].lower() not in (b"content-length", b"content-type")]
        await send({**answer.start, "status": 304, "headers": kept})
        await send({"type": "http.response.body", "body": b""})
        return
    await send(dict(answer.start))
    await send({"type": "http.response.body", "body": answer.body})


def _is_cached(path: str) -> bool:
    return path in _CACHED or (path.startswith(_CACHED_BELOW) and not path.endswith("/events"))
