"""The ASGI middleware that every request passes, whatever its path; none of it buffers."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dialin.errors import DialinError, RateLimitedError, TooLargeError, UsageError
from dialin.server import problems
from dialin.server.auth import SAFE_METHODS, Authenticator
from dialin.server.origin import check_origin, host_name
from dialin.supervisor.logs import log_context

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'none'; object-src 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "x-frame-options": "DENY",
}
_REQUEST_ID = b"x-request-id"
_VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STUDY_PATH = re.compile(r"(?:/api/v1)?/studies/([A-Za-z0-9._-]{1,96})(?:/|$)")
_UNCOUNTED = ("/healthz", "/api/v1/healthz")


class RequestIds:
    """Gives each request an id, which its log records carry and its answer has in the header `X-Request-ID`.

    An id that a proxy has given is kept, where it is one that a log can hold.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == _REQUEST_ID), "")
        request_id = sent if _VALID_ID.fullmatch(sent) else secrets.token_hex(8)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (_REQUEST_ID, request_id.encode())]
            await send(message)

        ids = {"request_id": request_id}
        if (found := _STUDY_PATH.match(scope["path"])) is not None:
            ids["study"] = found[1]
        # For the handler of unexpected errors, which Starlette calls outside of all middleware.
        scope.setdefault("state", {})["log_ids"] = ids
        with log_context(**ids):
            await self._app(scope, receive, sending)


class SecurityHeaders:
    """Adds the headers that every answer carries, unless its route has set them."""

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


class HostAndOriginCheck:
    """Refuses requests that were not sent to one of the server's names, or by another site's page.

    `names`: the names that Host may hold; a page from elsewhere may have had another name point to this address.
    `own`: those of them that a proxy before the server is called by.
    """

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
        if scope["method"] not in SAFE_METHODS:
            check_origin(Request(scope), self._own)


class AnonymousLimit:
    """Counts the requests of unknown callers by their address, whatever comes of them.

    A known caller gets through where unknown ones of the same address have asked too often. So does a request for
    `/healthz`: it costs next to nothing, and a server that seems to hang is restarted.
    """

    def __init__(self, app: ASGIApp, auth: Authenticator) -> None:
        self._app, self._auth = app, auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _UNCOUNTED:
            await self._app(scope, receive, send)
            return
        request, state = Request(scope), scope.setdefault("state", {})
        try:
            self._auth.check_anonymous(request)
        except RateLimitedError as error:
            try:
                await run_in_threadpool(self._auth.admit, request)
            except DialinError:
                await problems.answer(error)(scope, receive, send)
                return
        try:
            await self._app(scope, receive, send)
        finally:
            if "identity" not in state:
                self._auth.count_anonymous(request)


class BodyLimit:
    """Ends a request whose body is larger than its path allows. `most(path)`: in bytes; None: any size."""

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
        await _CountedBody(self._app, most)(scope, receive, send)


class _CountedBody:
    """Counts the body of one request as it is read: a request need not declare how long its body is."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most
        self._read = 0
        self._has_begun = False  # the answer
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
