"""What every request passes on its way in, whatever path it is for: small ASGI layers, none of which buffers."""

from __future__ import annotations

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialin.errors import DialinError, RateLimitedError, TooLargeError, UsageError
from dialin.server import problems
from dialin.server.auth import SAFE, Gate, check_origin, host_name

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}
_UNCOUNTED = ("/healthz", "/api/v1/healthz")


class Headers:
    """Adds what every answer carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message.get("headers", [])}
                more = [pair for pair in self._extra if pair[0] not in there]
                message["headers"] = [*message.get("headers", []), *more]
            await send(message)

        await self._app(scope, receive, sending if scope["type"] == "http" else send)


class Addressed:
    """Answers only what was sent to one of the server's names (a page from elsewhere may have made a name of its own
    point here), and by no other site's page where it would change something. `own`: those of the names that others
    know it by, too, where a proxy is in between."""

    def __init__(self, app: ASGIApp, names: frozenset[str], own: frozenset[str]) -> None:
        self._app, self._names, self._own = app, names, own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope)
            except DialinError as error:
                await problems.answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        shown = [value for name, value in scope["headers"] if name == b"host"]
        text = b", ".join(shown).decode("latin-1")
        if len(shown) != 1 or host_name(text) not in self._names:
            raise UsageError(f"host {text[:80]!r} is none of this server's names; see DIALIN_ALLOWED_HOSTS")
        if "\0" in scope["path"] or b"%00" in scope["query_string"]:
            raise UsageError("a path and its query have no NUL in them")  # which databases do not take
        if scope["method"] not in SAFE:
            check_origin(Request(scope), self._own)


class Anonymous:
    """Counts what callers who are not known ask for by their address, whatever comes of it. One who is known gets
    through where others at the same address have asked too often, and so does whoever only asks whether the server is
    there: it costs next to nothing, and one that seems to hang is started again."""

    def __init__(self, app: ASGIApp, gate: Gate) -> None:
        self._app, self._gate = app, gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNCOUNTED:
            await self._app(scope, receive, send)
            return
        request, state = Request(scope), scope.setdefault("state", {})
        try:
            self._gate.check_anonymous(request)
        except RateLimitedError as error:
            try:
                await run_in_threadpool(self._gate.admit, request)
            except DialinError:
                await problems.answer(error)(scope, receive, send)
                return
        try:
            await self._app(scope, receive, send)
        finally:
            if "identity" not in state:
                self._gate.count_anonymous(request)


class Bodies:
    """Ends a request whose body is larger than its path takes: `most(path)` bytes, None for as many as there are."""

    def __init__(self, app: ASGIApp, most: Callable[[str], int | None]) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most = self._most(scope["path"]) if scope["type"] == "http" else None
        if most is None:
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if declared.isdigit() and int(declared) > most:
            error = TooLargeError(f"{int(declared)} bytes were sent; at most {most} are taken")
            await problems.answer(error)(scope, receive, send)
            return
        await _Counted(self._app, most)(scope, receive, send)


class _Counted:
    """One request's body, counted as it is read: it may not have said how long it is."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most
        self._read = 0
        self._has_begun = False  # to answer
        self._is_refused = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receiving() -> Message:
            if self._is_refused:
                return {"type": "http.disconnect"}
            message = await receive()
            self._read += len(message.get("body", b""))
            if self._read <= self._most:
                return message
            self._is_refused = True
            if not self._has_begun:
                error = TooLargeError(f"more than {self._most} bytes were sent; at most so many are taken")
                await problems.answer(error)(scope, receive, send)
            return {"type": "http.disconnect"}

        async def sending(message: Message) -> None:
            self._has_begun = True
            if not self._is_refused:  # else it was answered above
                await send(message)

        await self._app(scope, receiving, sending)
