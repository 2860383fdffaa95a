"""Any bytes on the wire: whatever is sent, no server error, no traceback in the log, and the server still answers.

Requests are put together from pieces that are each wrong, odd or large in a way of their own, with a generator of a
fixed seed, so that what was found is found again.
"""

from __future__ import annotations

import os
import random
import socket
import time
from contextlib import suppress

import pytest

from tests.server.conftest import SPEC
from tests.server.wire import ServerProcess, exchange, get, rest, status

# More of them: RAW_HTTP_FUZZ="SEED REQUESTS".
SEED, REQUESTS = map(int, os.environ.get("RAW_HTTP_FUZZ", "13 500").split())
MOST_SECONDS = 60.0 * max(1, REQUESTS / 500)
GENEROUS = {f"DIALIN_{name}_PER_SECOND": "100000" for name in ("ANONYMOUS", "READS", "WRITES")}

ODD = [
    b"", b"[", b"]", b"[::1", b"http://[", b"\x00", b"\xff\xfe", b"\xc3\x28", b"%", b"%zz", b"%00", b"%ff%fe", b"%ED%A0%80",
    b"\xe2\x80\xae", b"%0d%0a", b"\\ud800", b'"\\ud800"', b"..", b"../../etc/passwd", b"%2e%2e%2f", b"//", b"*", b"a" * 3000,
    b"9" * 400, b"-1", b"1e999", b"nan", b"NaN", b"Infinity", b"0x10", "²".encode(), b"null", b"{}", b"[]",
    b"';--", b"<script>", b"\x1b[2J", b"\t", b" ", b";", b"=", b"a=b;c", b'"', b"W/\"", b"bytes=-1", b"bytes=9-1,5-", b"*/*;q=x",
    b"text/html;q=", b"Bearer", b"Bearer \xff", b"Basic ::", b"Thu, 99 Foo 2026", b"gzip, x", b"127.0.0.1:99999", b"127.0.0.1:",
    b"bm9uZQ", b"W1tbW10", b"W05hTiwiYSJd", b"WzFlOTk5LCAiXHVkODAwIl0", b"WzEsICJcdTAwMDAiXQ", b"WzFlMzA4LCAiYSJd",
]  # fmt: skip
METHODS = [b"GET", b"GET", b"GET", b"POST", b"POST", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"CONNECT",
           b"get", b"PROPFIND", b"SUBSCRIBE", b"", b"\x00", b"G ET", b"M-SEARCH"]  # fmt: skip
PATHS = [b"/", b"/live", b"/sign-in", b"/sign-out", b"/submit", b"/submit/check", b"/healthz", b"/metrics", b"/nothing", b"*",
         b"/static/page.css", b"/static/%s", b"/studies/%s", b"/studies/%s/live", b"/studies/%s/stop", b"/api/v1/studies",
         b"/api/v1/studies/%s", b"/api/v1/studies/%s/trials", b"/api/v1/studies/%s/trials/%s", b"/api/v1/studies/%s/best",
         b"/api/v1/studies/%s/curve", b"/api/v1/studies/%s/logs", b"/api/v1/studies/%s/extend", b"/api/v1/studies/%s/stop",
         b"/api/v1/plan", b"/api/v1/bundles", b"/api/v1/session", b"/api/v1/knobs", b"/api/v1/openapi.json", b"%s",
         b"http://127.0.0.1/%s", b"http://evil.example/", b"http://[/", b"/studies/", b"//studies", b"/studies?%s", b"/?%s"]  # fmt: skip
QUERIES = [b"limit", b"cursor", b"state", b"sort", b"name", b"owner", b"archived", b"tail", b"priority", b"bundle", b"next",
           b"space", b"knob"]  # fmt: skip
HEADERS = [b"Host", b"Origin", b"Sec-Fetch-Site", b"Cookie", b"Authorization", b"Accept", b"If-None-Match", b"If-Modified-Since",
           b"Range", b"Content-Type", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade", b"Connection",
           b"Idempotency-Key", b"Last-Event-ID", b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host", b"Forwarded",
           b"Referer", b"Accept-Encoding", b"TE", b"Trailer", b"HTTP2-Settings", b"X\xff", b"", b"A B"]  # fmt: skip
VALUES = {
    b"Cookie": [b"dialin_session=%s", b"%s", b"dialin_session", b"=%s;;;%s"],
    b"Authorization": [b"Bearer %s", b"%s"],
    b"Content-Type": [b"application/json", b"application/yaml", b"application/x-www-form-urlencoded", b"multipart/form-data",
                      b"multipart/form-data; boundary=%s", b"application/json; charset=%s", b"%s"],
    b"Transfer-Encoding": [b"chunked", b"chunked, chunked", b"gzip, chunked", b"%s"],
    b"Upgrade": [b"websocket", b"h2c", b"%s"],
    b"Connection": [b"close", b"Upgrade", b"keep-alive, %s", b"%s"],
    b"Expect": [b"100-continue", b"%s"],
    b"Host": [b"127.0.0.1", b"localhost", b"[", b"[::1", b"%s"],
    b"Origin": [b"http://127.0.0.1", b"null", b"http://[", b"http://%s", b"%s"],
}  # fmt: skip
BODIES = [b"", SPEC.encode(), b"&".join(b"f%d=x" % n for n in range(30)), b"token=%s&next=%s", b"spec=%s&priority=%s&key=%s",
          b'{"trials": %s}', b'{"trials": "+1", "epochs": "%s"}', b'{"name": "\\ud800", "objective": {"dataset": "%s"}}',
          b"[" * 5000, b"{" * 5000, b"%s", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\nx", b"-1\r\n\r\n", b"0\r\nX: %s\r\n\r\n",
          b'name: "\\x1b[2J\\ud800"\nobjective: {dataset: synthetic}\nspace: {lr: "%s"}', b"name: &a [*a]", b"PK\x03\x04%s",
          SPEC.replace("1e-4", "1e-400").encode(), SPEC.replace("trials: 4", "trials: 9" + "9" * 300).encode()]  # fmt: skip

KNOWN = {
    "host": b"GET / HTTP/1.1\r\nHost: [\r\nConnection: close\r\n\r\n",
    "origin": b"POST /api/v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "origin of a form": b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://[\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "fields": b"POST /sign-in HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 109\r\nConnection: close\r\n\r\n"
    + b"&".join(b"f=x" for _ in range(30))[:109].ljust(109, b"x"),
    "no host": b"GET / HTTP/1.0\r\n\r\n",
    "upgrade": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "a surrogate in a cursor": get("/api/v1/studies?cursor=WzEuMCwgIlx1ZDgwMCJd"),
    "a key beyond printing": b"POST /api/v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nIdempotency-Key: \x85\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n",
}  # fmt: skip


def filled(text: bytes, generator: random.Random, known: bytes) -> bytes:
    while b"%s" in text:
        text = text.replace(b"%s", generator.choice([known, *ODD]), 1)
    return text


def made(generator: random.Random, known: bytes) -> bytes:
    """One request, most of which is right, so that it gets far."""
    target = filled(generator.choice(PATHS), generator, known)
    for _ in range(generator.choice([0, 0, 1, 2])):
        joint = b"&" if b"?" in target else b"?"
        target += joint + generator.choice(QUERIES) + b"=" + generator.choice(ODD)
    lines = [
        generator.choice(METHODS)
        + b" "
        + target
        + generator.choice([b" HTTP/1.1"] * 8 + [b" HTTP/1.0", b"", b" HTTP/9.9"])
    ]
    lines += [b"Host: 127.0.0.1"] * (generator.random() < 0.9)
    for _ in range(generator.randrange(4)):
        name = generator.choice(HEADERS)
        lines.append(name + b": " + filled(generator.choice(VALUES.get(name, [b"%s"])), generator, known))
    body = filled(generator.choice(BODIES), generator, known) if generator.random() < 0.6 else b""
    lines += [b"Content-Length: %d" % len(body)] * (generator.random() < 0.8)
    lines += [b"Connection: close"] * (generator.random() < 0.8)
    return generator.choice([b"\r\n"] * 9 + [b"\n"]).join([*lines, b"", b""]) + body


def sent(port: int, data: bytes) -> list[int]:
    """The statuses that came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=3) as connection:
        with suppress(ConnectionError):
            connection.sendall(data)
        connection.settimeout(0.5)  # it may wait for more
        answer = rest(connection)
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("raw"), **GENEROUS) as server:
        yield server


@pytest.mark.parametrize("name", KNOWN)
def test_what_was_found_once_is_refused(server, name):
    before = len(server.text())
    answer = exchange(server.port, KNOWN[name], seconds=3)
    assert status(answer) in (200, 400, 403, 413), answer
    assert "Traceback" not in server.text()[before:]


def test_no_bytes_bring_about_a_server_error(server):
    request = (
        f"POST /api/v1/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: {len(SPEC)}\r\n\r\n"
    )
    answer = exchange(server.port, (request + SPEC).encode())
    assert status(answer) == 201, answer
    known = answer.partition(b'"id":"')[2].partition(b'"')[0]
    generator, began, before = random.Random(SEED), time.monotonic(), len(server.text())
    statuses: set[int] = set()
    for number in range(REQUESTS):
        data = made(generator, known)
        got = sent(server.port, data)
        assert all(each < 500 for each in got), f"request {number}: {data[:600]!r} -> {got}"
        statuses |= set(got)
        if time.monotonic() - began > MOST_SECONDS:
            break
    assert {200, 400, 403, 404, 405, 422} <= statuses, statuses  # they got far
    assert status(exchange(server.port, get("/healthz"))) == 200
    logged = server.text()[before:]
    assert "Traceback" not in logged
    assert len(logged) < 10_000


def test_memory_does_not_grow_with_what_is_refused(server):
    """A megabyte of header each, without a token."""
    before = server.memory()
    for number in range(100):
        exchange(server.port, get("/api/v1/studies", f"Authorization: Bearer {number}" + "a" * 2**20), 3)
    assert server.memory() - before < 30 * 2**20
