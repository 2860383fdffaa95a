"""Passes requests below /mlflow on to the MLflow server of `dialin up`, by the API's tokens, roles and rules."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpx
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from dialin.errors import (
    DialinError,
    ServerError,
    ServerTimeoutError,
    TooLargeError,
    UsageError,
)
from dialin.server import problems
from dialin.server.auth import Authenticator
from dialin.server.mlflow_calls import Body, Call, check_role, checked_change, find_call
from dialin.server.rate_limit import ConcurrencyLimit
from dialin.settings import MLFLOW_PATH
from dialin.web.responses import error_page

MAX_CALL_BYTES = 4 * 2**20  # MLflow takes a thousand points in a call
MAX_FILE_BYTES = 256 * 2**20
MAX_TARGET_BYTES = 32_768
MOST_AT_A_TIME, MOST_OF_ONE = 128, 32  # requests, in all and of one caller; a browser has six at a time
PATIENCE_SECONDS = 30.0  # for the next part of a body, from either side
_REQUEST_HEADERS = (
    *(b"accept", b"accept-encoding", b"content-type", b"if-none-match", b"if-modified-since", b"range"),
    b"user-agent",
)
_RESPONSE_HEADERS = (
    *("content-type", "content-length", "content-encoding", "content-disposition", "content-range", "accept-ranges"),
    *("cache-control", "etag", "last-modified"),
)
# What MLflow's pages need: styles that their scripts write, and files of runs that they show from memory.
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; frame-src blob:; frame-ancestors 'none'; "
    "form-action 'none'; base-uri 'none'; object-src 'none'"
)
# Whatever else MLflow sends, such as a run's file, may do nothing in a browser.
_FILE_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_MLFLOW_CODES = {  # by status
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "ENDPOINT_NOT_FOUND",
    413: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
}
_NO_HARM = "studies continue, and it gets everything later"
_LOG = logging.getLogger(__name__)


class MlflowProxy:
    """An ASGI application for MLFLOW_PATH. `uri`: MLflow's server. `secret`: the token that it demands."""

    def __init__(
        self,
        auth: Authenticator,
        uri: str,
        secret: str,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._auth, self._patience = auth, patience_seconds
        self.open_requests = ConcurrencyLimit(MOST_AT_A_TIME, MOST_OF_ONE, "requests to MLflow")
        self._client = httpx.AsyncClient(
            base_url=uri,
            headers={"Authorization": f"Bearer {secret}"},
            timeout=httpx.Timeout(patience_seconds, connect=2.0, pool=5.0),
            limits=httpx.Limits(max_connections=128, max_keepalive_connections=16),
            trust_env=False,
            transport=transport,
        )

    async def close(self) -> None:
        """Close the connections to MLflow."""
        await self._client.aclose()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope, receive)
        answer = _Answer(send, self._patience)
        try:
            await self._pass_on(request, answer)
        except ClientDisconnect:
            return
        except DialinError as error:
            if not answer.has_begun:
                await _refusal(request, error)(scope, receive, send)
            else:  # part of the answer is sent: the caller sees the broken connection
                _LOG.warning("MLflow's answer to %s broke off: %s", request.url.path, error)

    async def _pass_on(self, request: Request, answer: _Answer) -> None:
        path = request.scope["path"].removeprefix(MLFLOW_PATH) or "/"
        who = await run_in_threadpool(self._auth.admit, request)
        call = find_call(request.method, path)
        check_role(who, call, request.method, path)
        with self._counted(who.name), _mlflow_errors():
            wanted = (*_REQUEST_HEADERS, b"content-length") if call.body is Body.FILE else _REQUEST_HEADERS
            headers = [pair for pair in request.headers.raw if pair[0] in wanted]
            content = await self._content(request, call)
            target = _target(path, request.scope["query_string"])
            sent = self._client.build_request(request.method, target, headers=headers, content=content)
            response = await self._client.send(sent, stream=True)
            try:
                await answer.send_on(response, _PAGE_POLICY if _is_page(path) else _FILE_POLICY)
            finally:
                await response.aclose()

    async def _content(self, request: Request, call: Call) -> bytes | AsyncIterator[bytes] | None:
        if call.body is Body.NONE:
            return None
        if call.body is Body.FILE:
            return self._pieces(request, MAX_FILE_BYTES)
        content = b"".join([piece async for piece in self._pieces(request, MAX_CALL_BYTES)])
        return checked_change(content) if call.body is Body.CHANGE else content

    async def _pieces(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """The parts of a body as they arrive. Raises TooLargeError, and UsageError where no more arrive in time."""
        size, pieces = 0, request.stream()
        declared = request.headers.get("content-length", "")
        while True:
            if size > most or (declared.isdecimal() and int(declared) > most):
                raise TooLargeError(f"a body of more than {most:,} bytes was sent, which is the limit here")
            try:
                async with asyncio.timeout(self._patience):
                    piece = await anext(pieces, None)
            except TimeoutError:
                raise UsageError(f"no more of the body came for {self._patience:g} s") from None
            if piece is None:
                return
            size += len(piece)
            yield piece

    @contextmanager
    def _counted(self, name: str) -> Iterator[None]:
        self.open_requests.acquire(name)
        try:
            yield
        finally:
            self.open_requests.release(name)


class _Answer:
    """The answer to the caller, sent on while it arrives from MLflow."""

    def __init__(self, send: Send, patience_seconds: float) -> None:
        self._send, self._patience = send, patience_seconds
        self.has_begun = False

    async def send_on(self, response: httpx.Response, policy: str) -> None:
        """Send all of it. Raises ServerError for an answer that concerns this server, not the caller."""
        if response.status_code == 401 or (response.is_redirect and response.status_code != 304):
            raise ServerError(f"MLflow answers {response.status_code}, though this server has signed in there")
        headers = [(name, value) for name in _RESPONSE_HEADERS if (value := response.headers.get(name)) is not None]
        headers += [("content-security-policy", policy), ("vary", "Cookie, Authorization")]
        if "cache-control" not in response.headers:
            headers.append(("cache-control", "private, no-cache"))
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers]
        self.has_begun = True
        await self._send_message({"type": "http.response.start", "status": response.status_code, "headers": raw})
        async for piece in response.aiter_raw():
            await self._send_message({"type": "http.response.body", "body": piece, "more_body": True})
        await self._send_message({"type": "http.response.body", "body": b""})

    async def _send_message(self, message: Message) -> None:
        """Raises ServerTimeoutError where the caller does not read it."""
        try:
            async with asyncio.timeout(self._patience):
                await self._send(message)
        except TimeoutError:
            raise ServerTimeoutError(f"the caller took nothing for {self._patience:g} s") from None


@contextmanager
def _mlflow_errors() -> Iterator[None]:
    """Raise errors of `dialin.errors` for those of the connection to MLflow."""
    try:
        yield
    except httpx.TimeoutException as error:
        raise ServerTimeoutError(f"MLflow does not answer in time; {_NO_HARM}") from error
    except httpx.LocalProtocolError as error:
        raise UsageError(f"the request cannot be passed on: {error}") from None
    except httpx.HTTPError as error:
        raise ServerError(f"MLflow does not answer; {_NO_HARM}") from error


def _target(path: str, query: bytes) -> httpx.URL:
    """The address on MLflow's server. Encoded anew, so that MLflow reads exactly the path that was checked."""
    raw = quote(path).encode()
    if query:
        raw += b"?" + quote(query, safe="%/:?@!$&'()*+,;=-._~[]").encode()
    if len(raw) > MAX_TARGET_BYTES:
        raise UsageError(f"an address of {len(raw):,} bytes; at most {MAX_TARGET_BYTES:,} are passed on")
    return httpx.URL("/").copy_with(raw_path=raw)


def _is_page(path: str) -> bool:
    """Whether it is a page, script or style of MLflow itself, not a file of a run."""
    return path == "/" or path.startswith("/static-files/")


def _refusal(request: Request, error: DialinError) -> Response:
    """The answer for an error: a page for a person's browser, which leads to the form to sign in; for a program, a
    problem document that MLflow's clients and pages understand too."""
    if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
        return error_page(request, error)
    return problems.answer(
        error, error_code=_MLFLOW_CODES.get(error.status, "TEMPORARILY_UNAVAILABLE"), message=str(error)
    )
