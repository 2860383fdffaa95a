"""What a connection may cost: real sockets, small limits."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from dialin.server.connections import SPARE_FILES, ConnectionLimits, network_of
from dialin.server.serve import uvicorn_config
from tests.server.wire import ServerProcess, document, exchange, get, listening, rest, status

TCP_ESTABLISHED = 1
LARGE = 32 * 2**20  # more than the sockets of both ends hold
LIMITS = ConnectionLimits(
    connections=8, per_address=6, head_bytes=4096, headers=20, head_seconds=1.0, body_seconds=1.0, write_seconds=1.0
)
HALF = b"GET /small HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half: "


async def application(scope, receive, send):
    """/large: LARGE bytes; /wait: waits for the whole body; /hold: begins to answer; else two bytes at once."""
    assert scope["type"] == "http"
    if scope["path"] == "/wait":
        while (message := await receive()).get("more_body"):
            pass
        if message["type"] == "http.disconnect":
            return
    body = bytes(LARGE) if scope["path"] == "/large" else b"ok"
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    if scope["path"] == "/hold":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    for start in range(0, len(body), 2**20):
        more = start + 2**20 < len(body)
        await send({"type": "http.response.body", "body": body[start : start + 2**20], "more_body": more})


@pytest.fixture
def port():
    config = uvicorn_config(application, "127.0.0.1", 0, LIMITS)
    config.lifespan = "off"
    with listening(config) as port:
        yield port


@pytest.mark.parametrize(
    ("request_", "expected", "says"),
    [
        (get("/small", "X-Large: " + "a" * 5000), 431, "at most 4096 bytes"),
        (get("/small", *[f"X-{n}: 1" for n in range(30)]), 431, "at most 20 headers"),
        (get("/" + "a" * 5000), 414, "at most 4096 bytes"),
        (b"NO SUCH THING\r\n\r\n", 400, "not a request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not a request"),
    ],
)
def test_what_is_too_large_or_no_request_is_refused(port, request_, expected, says):
    answer = exchange(port, request_)
    assert (status(answer), document(answer)["status"]) == (expected, expected)
    assert says in document(answer)["detail"]


def test_what_is_large_comes_through_below_the_limit(port):
    assert status(exchange(port, get("/small", "X-Large: " + "a" * 3500))) == 200


BODY = b"POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\n\r\n"
UNFINISHED = {
    HALF: 408,
    b"": None,
    b"\r\n": None,
    BODY % (b"/wait", b"Content-Length: 10") + b"12345": 408,
    BODY % (b"/wait", b"Transfer-Encoding: chunked") + b"5\r\n12": 408,
    BODY % (b"/small", b"Content-Length: 10") + b"12345": 200,  # answered before its body was there
}


def test_what_does_not_go_on_is_ended(port):
    with ExitStack() as stack:
        begun = [(stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)), sent) for sent in UNFINISHED]
        for connection, sent in begun:
            connection.sendall(sent)
        assert {sent: status(rest(connection)) for connection, sent in begun} == UNFINISHED


def test_a_header_without_an_end_is_refused_before_it_ends(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HALF)
        time.sleep(0.1)  # so that it comes by itself
        connection.sendall(b"a" * 5000)
        assert status(rest(connection)) == 431


def test_a_request_that_comes_byte_by_byte_is_ended_too(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HALF)
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 10:
                connection.sendall(b"a")
                time.sleep(0.1)


def test_a_slow_but_steady_body_is_waited_for(port):
    size = 40 * 1024
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = f"POST /wait HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(20):
            connection.sendall(bytes(size // 20))
            time.sleep(0.1)
        assert status(rest(connection)) == 200


def test_who_does_not_read_is_ended(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(get("/large"))
        deadline = time.monotonic() + 20
        while connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == TCP_ESTABLISHED:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_half_requests_make_room_for_whole_ones(port):
    with ExitStack() as stack:
        halves = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(30)]
        for half in halves:
            with suppress(ConnectionError):  # the server may have ended it already, to make room
                half.sendall(HALF)
        assert status(exchange(port, get("/small"))) == 200


def test_there_is_room_for_so_many_that_are_served_and_no_more(port):
    with ExitStack() as stack:
        for _ in range(LIMITS.per_address):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            slow.sendall(get("/hold"))
            slow.recv(1)  # it is served now
        refused = exchange(port, get("/small"))
        assert (status(refused), document(refused)["code"]) == (503, "busy")
        other = socket.create_connection(("127.0.0.1", port), timeout=10, source_address=("127.0.0.2", 0))
        with other:
            other.sendall(get("/small"))
            assert status(rest(other)) == 200


def test_not_too_many_requests_are_taken_before_the_first_is_answered(port):
    one = b"GET /small HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(one * 8 + get("/small"))
        assert rest(connection).count(b"HTTP/1.1 200") == 9
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(one * 10_000)
        assert rest(connection).count(b"HTTP/1.1 200") < 100


def test_the_limits_follow_from_the_files_that_may_be_open():
    assert ConnectionLimits.within(1000, None, files=20_000) == ConnectionLimits(1000, 500)
    assert ConnectionLimits.within(1000, None, files=1024).connections == 1024 - SPARE_FILES
    assert ConnectionLimits.within(1000, 10_000, files=100) == ConnectionLimits(50, 50)
    assert ConnectionLimits.within(1000, 7, files=resource.RLIM_INFINITY) == ConnectionLimits(1000, 7)


def test_an_ipv6_customer_is_one_client():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:2") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("unix") == "unix"
    assert len(network_of("x" * 30_000)) == 64  # as a header may say


def test_more_half_requests_than_files_silence_nobody(tmp_path):
    with ServerProcess(tmp_path, files=1024) as server, ExitStack() as stack:
        for _ in range(1100):
            half = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            with suppress(ConnectionError):
                half.sendall(HALF)
        for _ in range(3):
            assert status(exchange(server.port, get("/healthz"), seconds=3)) == 200
            assert status(exchange(server.port, get("/api/v1/studies"), seconds=3)) == 200
        assert "Traceback" not in server.text()
