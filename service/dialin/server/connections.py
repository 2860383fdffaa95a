"""Limits on what a connection may cost: uvicorn's protocol over httptools, with the limits that it lacks.

The line and the headers of a request are limited in bytes and number, and have to arrive in time; its body has to
arrive at a least rate, and the client has to read what it is sent. There are fewer connections than the process may
open files, and one address cannot have all of them. Where there are too many, the connection that has waited longest
for its client is closed, so that unfinished requests do not keep others out. A refused request is answered, and not
logged.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import resource
import socket
import struct
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dialin.errors import TooLargeError
from dialin.server.problems import MEDIA_TYPE, problem

SPARE_FILES = 384  # for databases, journals, logs, and connections to MLflow
LEAST_BODY_RATE = 16 * 1024  # bytes a second, after `body_seconds`
CLOSING_SECONDS = 10.0  # for the client to read the last bytes of a connection that is being closed
MOST_PIPELINED = 16  # requests that a client sends before the first is answered
MOST_DISCARDED_BYTES = 16 * 2**20  # of a body that is read after the answer
_NO_LINGER = struct.pack("ii", 1, 0)
_CODES = {400: "bad_request", 408: "timeout", 503: "busy"}


@dataclass(frozen=True)
class ConnectionLimits:
    """What connections may use."""

    connections: int = 1000
    """Connections that are open at a time."""
    per_address: int = 500
    """Connections of one address that are open at a time."""
    head_bytes: int = 32 * 1024
    """Bytes of a request's line and headers together."""
    headers: int = 100
    """Headers of a request."""
    head_seconds: float = 10.0
    """From the last answer, or the connection's beginning, until a request's headers are complete."""
    body_seconds: float = 30.0
    """Until a body is complete; one second more for each LEAST_BODY_RATE bytes of it."""
    write_seconds: float = 30.0
    """Within which a client has to read something of what is ready for it."""

    @classmethod
    def within(cls, connections: int, per_address: int | None, files: int | None = None) -> ConnectionLimits:
        """Limits of at most `connections`, and of SPARE_FILES fewer than the process may open files.

        `files`: how many that are; None: the process's limit as it is now. `per_address`: by default half of them.
        """
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if files is None else files
        spare = min(SPARE_FILES, files // 2)
        most = max(1, connections if files == resource.RLIM_INFINITY else min(connections, files - spare))
        return cls(most, min(most, per_address or max(1, most // 2)))


@dataclass
class _Group:
    """Connections that are counted together."""

    size: int = 0
    # Those that wait for their client, the one that has waited longest first.
    waiting: OrderedDict[LimitedProtocol, None] = field(default_factory=OrderedDict)


class Connections:
    """All connections of a server. For its event loop; not thread safe."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._all = _Group()
        self._by_address: dict[str, _Group] = {}
        self._members: dict[LimitedProtocol, tuple[_Group, ...]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._all.size

    def admit(self, connection: LimitedProtocol, address: str) -> bool:
        """Add a connection. Returns False where there is no room, and no waiting connection that can be closed."""
        own = self._by_address.get(address) or _Group()
        for group, most in ((own, self.limits.per_address), (self._all, self.limits.connections)):
            if group.size >= most:
                if not group.waiting:
                    return False
                next(iter(group.waiting)).abort()
        # Looked up again: the group is removed with its last member, which may just have been closed.
        own = self._by_address.setdefault(address, own)
        self._members[connection] = (self._all, own)
        for group in self._members[connection]:
            group.size += 1
        self.mark_waiting(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(1.0, self._sweep, connection.loop)
        return True

    def remove(self, connection: LimitedProtocol, address: str) -> None:
        """Remove a connection that is closed."""
        for group in self._members.pop(connection, ()):
            group.size -= 1
            group.waiting.pop(connection, None)
        if (own := self._by_address.get(address)) is not None and own.size == 0:
            del self._by_address[address]

    def mark_waiting(self, connection: LimitedProtocol) -> None:
        """Note that a connection waits for its client from now on."""
        for group in self._members.get(connection, ()):
            group.waiting[connection] = None
            group.waiting.move_to_end(connection)

    def mark_served(self, connection: LimitedProtocol) -> None:
        """Note that it is the server's turn to answer."""
        for group in self._members.get(connection, ()):
            group.waiting.pop(connection, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._members):
            connection.check(now)
        self._sweeper = loop.call_later(1.0, self._sweep, loop) if self._members else None


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `protocol(limits)` makes the class that uvicorn uses.

    The methods named after events override uvicorn's; asyncio and httptools call them.
    """

    registry: ClassVar[Connections]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._address = ""
        self._since = 0.0  # when the head or the body that is awaited was begun
        self._refused: tuple[HTTPStatus, str] | None = None
        self._is_in_head, self._is_in_body = False, False
        self._head_size = self._headers = self._fed = 0
        self._has_just_begun = False
        self._blocked_since: float | None = None
        self._closing_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Admit the connection, or refuse it where there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._since = self.loop.time()
        self._address = network_of(self.client[0] if self.client is not None else "")
        if not self.registry.admit(self, self._address):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open; try again")

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for another connection."""
        self.registry.remove(self, self._address)
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close it now, even in the middle of an answer."""
        self.registry.remove(self, self._address)
        with suppress(OSError):  # the kernel must not keep what the client did not read
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and refuse a request that is malformed or has too long a head."""
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._has_just_begun = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as an ordinary request; no other can follow on this connection.
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        except httptools.HttpParserError:
            self._refuse(*(self._refused or (HTTPStatus.BAD_REQUEST, "this is not a request of HTTP/1.1")))
            return
        if self._is_in_head and not self._has_just_begun:
            self._fed += len(data)  # _head_size lacks a name or value that is not complete
            if self._fed > self.registry.limits.head_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._head_text())

    def on_message_begin(self) -> None:
        """Count the head of a new request from zero."""
        super().on_message_begin()
        self._is_in_head = self._has_just_begun = True
        self._head_size = self._headers = self._fed = 0

    def on_url(self, url: bytes) -> None:
        """Refuse a path that is too long."""
        super().on_url(url)
        self._head_size += len(url)
        if self._head_size > self.registry.limits.head_bytes:
            self._stop(HTTPStatus.REQUEST_URI_TOO_LONG, self._head_text())

    def on_header(self, name: bytes, value: bytes) -> None:
        """Refuse headers that are too many or too long."""
        limits = self.registry.limits
        self._headers += 1
        self._head_size += len(name) + len(value) + 4
        if self._headers > limits.headers:
            most = f"a request has at most {limits.headers} headers"
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, most)
        if self._head_size > limits.head_bytes:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._head_text())
        if self._is_in_head:  # trailers after a body would change headers that were checked already
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin to time the body."""
        if len(self.pipeline) >= MOST_PIPELINED:
            self._stop(HTTPStatus.BAD_REQUEST, f"at most {MOST_PIPELINED} requests are taken before the first answer")
        self._is_in_head, self._is_in_body, self._fed = False, True, 0
        self._since = self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count the body, and refuse one that is still being sent long after the answer."""
        self._fed += len(body)
        self.registry.mark_waiting(self)
        if self.cycle.response_complete and self._fed > MOST_DISCARDED_BYTES:
            self._stop(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is complete: it is the server's turn."""
        self._is_in_body = False
        super().on_message_complete()
        self._mark_turn()

    def on_response_complete(self) -> None:
        """The answer is complete: it is the client's turn."""
        super().on_response_complete()
        self._mark_turn()

    def pause_writing(self) -> None:
        """Begin to time a client that does not read."""
        super().pause_writing()
        self._blocked_since = self.loop.time()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._blocked_since = None

    def check(self, now: float) -> None:
        """Close the connection where the client takes too long. Called about once a second."""
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now - self._closing_since > CLOSING_SECONDS:
                self.abort()
        elif self._blocked_since is not None and now - self._blocked_since > self.registry.limits.write_seconds:
            self.abort()
        elif self._is_in_body and not self.flow.read_paused:
            self._check_body(now)
        elif not self._is_served() and not self.flow.read_paused:
            self._check_head(now)

    def _check_body(self, now: float) -> None:
        if now - self._since <= self.registry.limits.body_seconds + self._fed / LEAST_BODY_RATE:
            return
        if self.cycle.response_complete:
            self.transport.close()
        else:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's body was not there in time")

    def _check_head(self, now: float) -> None:
        seconds = self.registry.limits.head_seconds
        if now - self._since <= seconds:
            return
        if self._is_in_head:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"a head has to be there within {seconds:g} s")
        else:
            self.transport.close()

    def _is_served(self) -> bool:
        """Whether it is the server's turn to answer."""
        return not self._is_in_body and self.cycle is not None and not self.cycle.response_complete

    def _mark_turn(self) -> None:
        if self._is_served():
            self.registry.mark_served(self)
        elif not self._is_in_body:
            self._since = self.loop.time()
            self.registry.mark_waiting(self)

    def _head_text(self) -> str:
        return f"a request's line and headers have at most {self.registry.limits.head_bytes} bytes"

    def _stop(self, status: HTTPStatus, detail: str) -> None:
        """Refuse the request from within the parser, which turns what is raised here into its own error."""
        self._refused = (status, detail)
        raise ValueError(detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer a request that does not reach the application, and close the connection."""
        waits = self.cycle is None or self.cycle.response_complete
        if not waits and (self.pipeline or self.cycle.response_started):
            self.abort()  # an answer now would be taken for that to another request
            return
        if not waits:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps(problem(status, _CODES.get(status, TooLargeError.code), detail)).encode()
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()


def protocol(limits: ConnectionLimits) -> type[LimitedProtocol]:
    """The class of connections with these limits, for uvicorn's setting `http`."""
    return type("LimitedProtocol", (LimitedProtocol,), {"registry": Connections(limits)})


def network_of(host: str) -> str:
    """The network that counts as one client: an IPv4 address, or the 64 bits of an IPv6 address that one customer gets.

    A text that is not an address stands for itself, cut to 64 characters: a proxy may send any text.
    """
    return _network_of(host[:64])


@lru_cache(maxsize=4096)
def _network_of(host: str) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return host
