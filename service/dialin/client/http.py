"""A server's answers over HTTP: asked again where that is safe, and its errors raised as what the server raised.

The only module of the client that knows httpx.
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

from dialin.errors import DialinError, Problem, RateLimitedError, ServerError, SpecError, UsageError, by_code

Transport = httpx.BaseTransport
PREFIX = "/api/v1"
_BUSY = (429, 502, 503, 504)  # worth another try
_SHOWN = 200  # characters of an answer that nobody understands


@dataclass(frozen=True)
class Retries:
    """How often a request is made at most, and how long it waits in between: twice as long each time, by half of it
    less at random, so that many clients do not come back at once. A wait that a server asks for is waited instead,
    unless it is longer than `longest_seconds`."""

    attempts: int = 4
    first_seconds: float = 0.25
    longest_seconds: float = 30.0
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[], float] = random.random

    def seconds(self, attempt: int) -> float:
        """The wait after a failed attempt (from 0)."""
        most: float = min(self.first_seconds * 2.0 ** min(attempt, 30), self.longest_seconds)
        return most * (1 - self.draw() / 2)


@dataclass(frozen=True)
class Message:
    """One message of an event stream; `kind` is what it calls `event`."""

    id: str
    kind: str
    data: str


class Connection:
    """One server, for one caller. A context manager; safe to use from several threads.

    Raises UsageError for an address that is none. Every other method raises the server's own errors as the classes of
    `dialin.errors`, and ServerError when it cannot be reached or answers what no dialin server would.
    """

    def __init__(
        self, url: str, token: str | None, timeout: float, transport: Transport | None, retries: Retries
    ) -> None:
        self.url = _base(url)
        self.timeout = timeout
        self.retries = retries
        headers = {"User-Agent": "dialin"}
        if token:
            headers["Authorization"] = f"Bearer {_plain(token)}"
        self._http = httpx.Client(base_url=self.url + PREFIX, headers=headers, timeout=timeout, transport=transport)

    def close(self) -> None:
        self._http.close()

    def json(self, method: str, path: str, *, safe: bool | None = None, **request: Any) -> Any:
        """The answer as plain data. `safe`: asking twice is the same as asking once, as it is of every GET."""
        response = self._ask(method, path, method == "GET" if safe is None else safe, request)
        try:
            return response.json()
        except ValueError:
            raise self._nonsense(response, "which is no JSON") from None

    def text(self, path: str, **request: Any) -> str:
        """The answer to a GET as text."""
        return self._ask("GET", path, True, request).text

    def send(self, method: str, path: str) -> None:
        """Ask for something that has no answer."""
        self._ask(method, path, False, {})

    @contextmanager
    def stream(self, path: str, last_id: str | None, timeout: float) -> Iterator[Iterator[Message | None]]:
        """The messages of an event stream from the one after `last_id` on, until it ends or breaks; None for a sign of
        life that says nothing. One attempt. Raises ServerError as well when the stream breaks or is silent for
        `timeout` seconds."""
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        try:
            with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._error(response)
                if not _is(response, "text/event-stream"):
                    raise ServerError(f"{response.request.url} answers {_kind(response)}, which is no event stream")
                yield _messages(_lines(response.iter_text()))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _ask(self, method: str, path: str, safe: bool, request: Mapping[str, Any]) -> httpx.Response:
        """A good answer, after as many attempts as are safe."""
        attempts = self.retries.attempts if safe else 1
        for attempt in range(attempts):
            last = attempt == attempts - 1
            try:
                response = self._http.request(method, path, **request)
            except httpx.HTTPError as error:
                if last or not isinstance(error, httpx.TransportError):
                    raise self._unreachable(error) from error
                self.retries.sleep(self.retries.seconds(attempt))
                continue
            if response.is_success:
                return response
            wait = _retry_after(response)
            too_long = wait is not None and wait > self.retries.longest_seconds
            if last or response.status_code not in _BUSY or too_long:
                raise self._error(response)
            self.retries.sleep(self.retries.seconds(attempt) if wait is None else wait)
        raise ServerError(f"{self.url} was asked {attempts} times")  # only with no attempt at all

    def _unreachable(self, error: Exception) -> ServerError:
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.TimeoutException):
            reason = f"no answer within {self.timeout:g} s"
        return ServerError(f"the server {self.url} cannot be reached: {reason}")

    def _nonsense(self, response: httpx.Response, what: str) -> ServerError:
        start = " ".join(response.text[:_SHOWN].split())
        answer = f"{response.status_code} {response.reason_phrase}".strip()
        return ServerError(f"{response.request.url} answers {answer}, {what}: {start!a}; is it a dialin server?")

    def _error(self, response: httpx.Response) -> Exception:
        """What a problem document says, as the class of our tree that the server raised."""
        if response.is_redirect:
            return self._nonsense(response, f"elsewhere: {response.headers.get('Location', '')[:_SHOWN]}")
        try:
            problem = response.json()
        except ValueError:
            problem = None
        if not isinstance(problem, dict) or not isinstance(problem.get("code"), str):
            return self._nonsense(response, "which is no problem document")
        detail = str(problem.get("detail") or problem.get("title") or response.reason_phrase)
        cls = by_code(problem["code"])
        if cls is DialinError and 400 <= response.status_code < 500:
            cls = UsageError  # of HTTP's own, not of the tree
        if issubclass(cls, SpecError):
            return cls(_problems(problem.get("errors")) or [Problem("", detail)])
        if issubclass(cls, RateLimitedError):
            return cls(detail, _retry_after(response) or 1.0)
        return cls(detail)


def _base(url: str) -> str:
    """The address without its end. Raises UsageError."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise UsageError(f"server {url!r}; allowed: http://HOST:PORT or https://HOST")
    if parsed.userinfo:
        raise UsageError(f"server https://...@{parsed.host}: no password in an address; the token is DIALIN_TOKEN's")
    return str(parsed).rstrip("/").removesuffix(PREFIX)


def _plain(token: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise UsageError("the token holds a character that no token has; is it whole, and nothing else?")
    return token


def _problems(errors: Any) -> list[Problem]:
    found = []
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            line = error.get("line")
            text = str(error.get("message", ""))
            found.append(Problem(str(error.get("path") or ""), text, line if isinstance(line, int) else None))
    return found


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds until another try is wanted: the header has them, or a date."""
    text = response.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _is(response: httpx.Response, kind: str) -> bool:
    return _kind(response) == kind


def _kind(response: httpx.Response) -> str:
    return str(response.headers.get("Content-Type", "nothing")).partition(";")[0].strip().lower()


def _lines(chunks: Iterator[str]) -> Iterator[str]:
    """Lines, each as soon as it is whole. Only what the standard calls an end of line is one (LF, CR LF, or CR alone):
    httpx's own reader takes U+2028 for one too, which may stand in JSON. httpx-sse keeps comments to itself, which are
    the signs of life here."""
    rest, after_cr = "", False
    for chunk in chunks:
        if not chunk:
            continue
        text = chunk.removeprefix("\n") if after_cr else chunk  # the CR has ended that line
        after_cr = chunk.endswith("\r")
        *whole, rest = (rest + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        yield from whole


def _messages(lines: Iterator[str]) -> Iterator[Message | None]:
    """Messages of lines, as the standard has it (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
    last_id, kind, data = "", "", list[str]()
    for line in lines:
        if not line:
            if data:
                yield Message(last_id, kind or "message", "\n".join(data))
            kind, data = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
        elif not name:  # a comment, sent to keep the connection
            yield None
