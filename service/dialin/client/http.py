"""Requests to a dialin server: repeated where that is safe, its errors raised as the classes that the server raised.

The only module of the client that imports httpx and httpx-sse.
"""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from httpx_sse import EventSource

from dialin.errors import (
    DialinError,
    Problem,
    ProtocolError,
    RateLimitedError,
    ServerUnreachableError,
    SpecError,
    UsageError,
    by_code,
)

Transport = httpx.BaseTransport
PREFIX = "/api/v1"
_GATEWAY = (502, 503, 504)  # a proxy answers so when it cannot reach the server behind it
_BUSY = (429, *_GATEWAY)  # a request that is safe to repeat is repeated after these
_SHOWN = 200  # characters of an unreadable answer that an error message quotes
_EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True)
class Retries:
    """How often a request is repeated and how long the client waits before each repetition.

    The wait doubles each time (exponential backoff). Up to half of it is taken off at random, so that many clients do
    not return at the same moment. A `Retry-After` header replaces the wait unless it is longer than `longest_seconds`.
    """

    attempts: int = 4
    """Requests in total, the first one included."""
    first_seconds: float = 0.25
    """Wait before the second attempt."""
    longest_seconds: float = 30.0
    """Upper bound of every wait."""
    sleep: Callable[[float], None] = time.sleep
    """Waits for a number of seconds; tests pass in their own."""
    draw: Callable[[], float] = random.random
    """A random number in [0, 1); tests pass in their own."""

    def seconds(self, attempt: int) -> float:
        """Seconds to wait after the failed attempt of this number (from 0)."""
        most: float = min(self.first_seconds * 2.0 ** min(attempt, 30), self.longest_seconds)
        return most * (1 - self.draw() / 2)


@dataclass(frozen=True)
class Message:
    """One message of a server-sent event stream."""

    id: str
    """Position in the stream; sent back as `Last-Event-ID` to continue after this message."""
    kind: str
    """The message's `event` field; `message` where the server named none."""
    data: str
    """The payload, JSON text."""


class Connection:
    """HTTP connections to one server for one caller. Safe to use from several threads; `close` it at the end.

    Raises UsageError for an address that is not one of a server. Every other method raises the server's own errors as
    the classes of `dialin.errors`, ServerUnreachableError when the server does not answer, and ProtocolError when the
    answer is not one of a dialin server.
    """

    def __init__(
        self, url: str, token: str | None, timeout: float, transport: Transport | None, retries: Retries
    ) -> None:
        self.url = _base(url)
        self.timeout = timeout
        self.retries = retries
        headers = {"User-Agent": "dialin"}
        if token:
            headers["Authorization"] = f"Bearer {_checked_token(token)}"
        self._http = httpx.Client(base_url=self.url + PREFIX, headers=headers, timeout=timeout, transport=transport)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, method: str, path: str, *, safe: bool | None = None, **request: Any) -> Any:
        """The answer as plain data. `safe`: the request may be repeated; by default only a GET may."""
        response = self._request(method, path, method == "GET" if safe is None else safe, request)
        try:
            return response.json()
        except ValueError:
            raise self._not_understood(response, "which is no JSON") from None

    def text(self, path: str, **request: Any) -> str:
        """The answer to a GET as text."""
        return self._request("GET", path, True, request).text

    def send(self, method: str, path: str) -> None:
        """Make a request whose answer has no content."""
        self._request(method, path, False, {})

    @contextmanager
    def stream(
        self, path: str, last_id: str | None, timeout: float, heartbeat: Callable[[], None] = lambda: None
    ) -> Iterator[Iterator[Message]]:
        """The messages of an event stream after the one with the id `last_id`, until the stream ends or breaks.

        One attempt, not repeated. `heartbeat` is called whenever bytes arrive, also those of the comments that servers
        send to keep an idle connection open; an exception that it raises ends the stream and reaches the caller. Raises
        ServerUnreachableError also when the stream breaks or no bytes arrive for `timeout` seconds.
        """
        headers = {"Accept": _EVENT_STREAM, "Cache-Control": "no-store"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._error(response)
                if _media_type(response) != _EVENT_STREAM:
                    raise ProtocolError(f"{response.request.url} answers {_media_type(response)}, not {_EVENT_STREAM}")
                # httpx-sse passes over comments, and a caller with a deadline has to look at its clock on them too.
                response.stream = _Heard(response.stream, heartbeat)
                yield _messages(response)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _request(self, method: str, path: str, safe: bool, request: Mapping[str, Any]) -> httpx.Response:
        """A successful answer, after as many attempts as are allowed."""
        attempts = self.retries.attempts if safe else 1
        attempt = 0
        while True:
            outcome = self._attempt(method, path, request)
            if isinstance(outcome, httpx.Response):
                return outcome
            if attempt + 1 >= attempts or not outcome.is_temporary:
                raise outcome.error from outcome.cause
            self.retries.sleep(self.retries.seconds(attempt) if outcome.wait is None else outcome.wait)
            attempt += 1

    def _attempt(self, method: str, path: str, request: Mapping[str, Any]) -> httpx.Response | _Failure:
        try:
            response = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            return _Failure(self._unreachable(error), isinstance(error, httpx.TransportError), cause=error)
        if response.is_success:
            return response
        wait = _retry_after(response)
        soon = wait is None or wait <= self.retries.longest_seconds
        return _Failure(self._error(response), response.status_code in _BUSY and soon, wait)

    def _unreachable(self, error: Exception) -> ServerUnreachableError:
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            reason = f"no answer within {self.timeout:g} s"
        return ServerUnreachableError(f"the server {self.url} cannot be reached: {reason}")

    def _not_understood(self, response: httpx.Response, what: str) -> ProtocolError | ServerUnreachableError:
        """The error for an answer that no dialin server gives; a gateway's says that the server behind it is down."""
        start = " ".join(response.text[:_SHOWN].split())
        answer = f"{response.status_code} {response.reason_phrase}".strip()
        cls = ServerUnreachableError if response.status_code in _GATEWAY else ProtocolError
        return cls(f"{response.request.url} answers {answer}, {what}: {start!a}; is it a dialin server?")

    def _error(self, response: httpx.Response) -> Exception:
        """The error that an answer stands for, as the class that the server raised."""
        if response.is_redirect:
            target = response.headers.get("Location", "")[:_SHOWN]
            return self._not_understood(response, f"a redirect to {target}")
        problem = _problem_document(response)
        if problem is None:
            return self._not_understood(response, "which is not a problem document")
        detail = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
        cls = _class_of(problem["code"], response.status_code)
        if issubclass(cls, SpecError):
            return cls(_problems(problem.get("errors")) or [Problem("", detail)])
        if issubclass(cls, RateLimitedError):
            return cls(detail, _retry_after(response) or 1.0)
        return cls(detail)


@dataclass(frozen=True)
class _Failure:
    """An attempt that failed. `is_temporary`: another one may succeed, after `wait` seconds if the server says so."""

    error: Exception
    is_temporary: bool
    wait: float | None = None
    cause: Exception | None = None


class _Heard(httpx.SyncByteStream):
    """A stream of bytes that calls `heartbeat` before it passes each chunk on."""

    def __init__(self, stream: Any, heartbeat: Callable[[], None]) -> None:
        self._stream, self._heartbeat = stream, heartbeat

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._heartbeat()
            yield chunk

    def close(self) -> None:
        self._stream.close()


def _messages(response: httpx.Response) -> Iterator[Message]:
    for event in EventSource(response).iter_sse():
        # The standard dispatches no message without data, httpx-sse 0.4.3 does for an empty line after an id.
        if event.data:
            yield Message(event.id, event.event, event.data)


def _base(url: str) -> str:
    """The server's address without the path of the API. Raises UsageError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise UsageError(f"server {url!r}; allowed: http://HOST:PORT or https://HOST")
    if parsed.userinfo:
        raise UsageError(
            f"server https://...@{parsed.host}: an address may not hold a password; set the token as DIALIN_TOKEN"
        )
    return str(parsed).rstrip("/").removesuffix(PREFIX)


def _checked_token(token: str) -> str:
    """The token, fit for a header. Raises UsageError without quoting it."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError("the token holds a space, a line end or another character that no token has; copy it again")
    return token


def _problem_document(response: httpx.Response) -> dict[str, Any] | None:
    """The problem document (RFC 9457) of an answer, with dialin's `code`; None where there is none."""
    try:
        problem = response.json()
    except ValueError:
        return None
    return problem if isinstance(problem, dict) and isinstance(problem.get("code"), str) else None


def _class_of(code: str, status: int) -> type[DialinError]:
    """The class of the tree with this code."""
    cls = by_code(code)
    if cls is DialinError and 400 <= status < 500:
        return UsageError  # a code of HTTP's own (405, 406, ...), which the tree does not have
    return cls


def _problems(errors: Any) -> list[Problem]:
    found = []
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            line = error.get("line")
            text = str(error.get("message", ""))
            found.append(Problem(str(error.get("path") or ""), text, line if isinstance(line, int) else None))
    return found


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds until the server wants another attempt, from its `Retry-After` header: seconds or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _media_type(response: httpx.Response) -> str:
    return str(response.headers.get("Content-Type", "nothing")).partition(";")[0].strip().lower()
