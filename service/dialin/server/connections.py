"""What a connection may cost: uvicorn's protocol over httptools, with the limits that it has not got itself.

A request's line and headers are limited in bytes and number, and have to be there in time; so has its body, at a least
rate. A reader has to read. There are fewer connections than the process may open files, and one address cannot have all
of them: where there are too many, the one that has waited for its client the longest makes room, so that half requests
do not keep whole ones out. What is refused is answered, and not logged.
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

SPARE_FILES = 384  # for databases, journals, logs, and the way to MLflow
LEAST_BODY_RATE = 16 * 1024  # bytes a second, once `body_seconds` are over
CLOSING_SECONDS = 10.0  # in which a closed connection's last bytes have to be taken
MOST_PIPELINED = 16  # requests sent before the first was answered
MOST_DISCARDED_BYTES = 16 * 2**20  # of a body that was answered before it was read
_AT_ONCE = struct.pack("ii", 1, 0)
_CODES = {400: "bad_request", 408: "timeout", 503: "busy"}


@dataclass(frozen=True)
class ConnectionLimits:
    """`connections` at a time, `per_address` of one client. `head_bytes` of a request's line and headers, `headers` in
    number. `head_seconds` from the last answer, or the connection's beginning, to a complete head; `body_seconds` for
    the body, and a second more for each LEAST_BODY_RATE bytes. `write_seconds` in which a reader has to take something
    of what is ready."""

    connections: int = 1000
    per_address: int = 500
    head_bytes: int = 32 * 1024
    headers: int = 100
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    write_seconds: float = 30.0

    @classmethod
    def within(cls, connections: int, per_address: int | None, files: int | None = None) -> ConnectionLimits:
        """At most `connections`, and SPARE_FILES fewer than `files`, the most that the process may have open (None:
        its limit as it is now). `per_address` None: half of them."""
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if files is None else files
        spare = min(SPARE_FILES, files // 2)
        most = max(1, connections if files == resource.RLIM_INFINITY else min(connections, files - spare))
        return cls(most, min(most, per_address or max(1, most // 2)))


@dataclass
class _Group:
    """Connections that are counted together; of them those that wait for their client, the longest first."""

    size: int = 0
    waiting: OrderedDict[LimitedProtocol, None] = field(default_factory=OrderedDict)


class Connections:
    """All connections of a server. Used by its event loop only."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self._everybody = _Group()
        self._by_address: dict[str, _Group] = {}
        self._members: dict[LimitedProtocol, tuple[_Group, ...]] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return self._everybody.size

    def admit(self, connection: LimitedProtocol, address: str) -> bool:
        """Whether there is room for one more; what waits has made it where there was none."""
        own = self._by_address.get(address) or _Group()
        for group, most in ((own, self.limits.per_address), (self._everybody, self.limits.connections)):
            if group.size >= most:
                if not group.waiting:
                    return False
                next(iter(group.waiting)).abort()
        # Only now: the group goes when its last member does.
        own = self._by_address.setdefault(address, own)
        self._members[connection] = (self._everybody, own)
        for group in self._members[connection]:
            group.size += 1
        self.waits(connection)
        if self._sweeper is None:
            self._sweeper = connection.loop.call_later(1.0, self._sweep, connection.loop)
        return True

    def leave(self, connection: LimitedProtocol, address: str) -> None:
        for group in self._members.pop(connection, ()):
            group.size -= 1
            group.waiting.pop(connection, None)
        if (own := self._by_address.get(address)) is not None and own.size == 0:
            del self._by_address[address]

    def waits(self, connection: LimitedProtocol) -> None:
        """A connection waits for its client, from now on."""
        for group in self._members.get(connection, ()):
            group.waiting[connection] = None
            group.waiting.move_to_end(connection)

    def is_served(self, connection: LimitedProtocol) -> None:
        for group in self._members.get(connection, ()):
            group.waiting.pop(connection, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._members):
            connection.check(now)
        self._sweeper = loop.call_later(1.0, self._sweep, loop) if self._members else None


class LimitedProtocol(HttpToolsProtocol):
    """One connection. `protocol(limits)` makes the class that uvicorn gets."""

    registry: ClassVar[Connections]

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._address = ""
        self._since = 0.0  # when this part of the conversation began
        self._refused: tuple[HTTPStatus, str] | None = None
        self._is_in_head, self._is_in_body = False, False
        self._head_size = self._headers = self._fed = 0
        self._has_just_begun = False
        self._blocked_since: float | None = None
        self._closing_since: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self._since = self.loop.time()
        self._address = network_of(self.client[0] if self.client is not None else "")
        if not self.registry.admit(self, self._address):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open; try again")

    def connection_lost(self, exc: Exception | None) -> None:
        self.registry.leave(self, self._address)
        super().connection_lost(exc)

    def abort(self) -> None:
        """End it now, whatever is under way."""
        self.registry.leave(self, self._address)
        with suppress(OSError):  # nor does the kernel keep what was not read
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._has_just_begun = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as the request that it also is; nothing else can follow on this connection.
            if self.cycle is not None:
                self.cycle.keep_alive = False
            return
        except httptools.HttpParserError:
            self._refuse(*(self._refused or (HTTPStatus.BAD_REQUEST, "this is not a request of HTTP/1.1")))
            return
        if self._is_in_head and not self._has_just_begun:
            self._fed += len(data)  # a name or a value that has no end yet is not in _head_size
            if self._fed > self.registry.limits.head_bytes:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._head_text())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = self._has_just_begun = True
        self._head_size = self._headers = self._fed = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._head_size += len(url)
        if self._head_size > self.registry.limits.head_bytes:
            self._stop(HTTPStatus.REQUEST_URI_TOO_LONG, self._head_text())

    def on_header(self, name: bytes, value: bytes) -> None:
        limits = self.registry.limits
        self._headers += 1
        self._head_size += len(name) + len(value) + 4
        if self._headers > limits.headers:
            most = f"a request has at most {limits.headers} headers"
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, most)
        if self._head_size > limits.head_bytes:
            self._stop(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, self._head_text())
        if self._is_in_head:  # after a body they would change what was looked at already
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self._stop(HTTPStatus.BAD_REQUEST, f"at most {MOST_PIPELINED} requests are taken before the first answer")
        self._is_in_head, self._is_in_body, self._fed = False, True, 0
        self._since = self.loop.time()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._fed += len(body)
        self.registry.waits(self)
        if self.cycle.response_complete and self._fed > MOST_DISCARDED_BYTES:
            self._stop(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too large")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._is_in_body = False
        super().on_message_complete()
        self._note_what_goes_on()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._note_what_goes_on()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._blocked_since = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._blocked_since = None

    def check(self, now: float) -> None:
        """End what takes too long. Called about once a second."""
        limits = self.registry.limits
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
            if now - self._closing_since > CLOSING_SECONDS:
                self.abort()
        elif self._blocked_since is not None and now - self._blocked_since > limits.write_seconds:
            self.abort()
        elif self._is_served() or self.flow.read_paused:
            return
        elif self._is_in_body:
            if now - self._since <= limits.body_seconds + self._fed / LEAST_BODY_RATE:
                return
            if self.cycle.response_complete:
                self.transport.close()
            else:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, "the request's body was not there in time")
        elif now - self._since > limits.head_seconds:
            if self._is_in_head:
                self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"a head has to be there within {limits.head_seconds:g} s")
            else:
                self.transport.close()

    def _is_served(self) -> bool:
        """Whether it is the server that has something to do."""
        return not self._is_in_body and self.cycle is not None and not self.cycle.response_complete

    def _note_what_goes_on(self) -> None:
        if self._is_served():
            self.registry.is_served(self)
        elif not self._is_in_body:
            self._since = self.loop.time()
            self.registry.waits(self)

    def _head_text(self) -> str:
        return f"a request's line and headers have at most {self.registry.limits.head_bytes} bytes"

    def _stop(self, status: HTTPStatus, detail: str) -> None:
        """Within the parser: have it raise, and the request refused."""
        self._refused = (status, detail)
        raise ValueError(detail)

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer what is no request that the application could, and close."""
        waits = self.cycle is None or self.cycle.response_complete
        if not waits and (self.pipeline or self.cycle.response_started):
            self.abort()  # an answer now would be taken for another request's
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
    """What uvicorn takes as `http`."""
    return type("LimitedProtocol", (LimitedProtocol,), {"registry": Connections(limits)})


def network_of(host: str) -> str:
    """What is counted as one client: an address, of IPv6 the network of 64 bits that one customer gets. A proxy may say
    anything of any length."""
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
