"""What every request passes: names, origins, bodies, and limits for those who are not known."""

from __future__ import annotations

import io
import json
import logging
import re

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from dialin.errors import ForbiddenError, RateLimitedError
from dialin.server.app import create_app
from dialin.server.origin import check_origin, host_name
from dialin.server.rate_limit import ConcurrencyLimit, RateLimiter
from dialin.settings import ServerSettings
from dialin.supervisor import logs
from tests.server.conftest import SPEC, bearer, submit

OURS = "https://dialin.example.org"


def request_with(**headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": pairs})


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({}, True),
        # What the browser says of the site goes first, whatever a proxy made of Host.
        ({"sec_fetch_site": "same-origin", "origin": OURS, "host": "10.0.0.7:8080"}, True),
        ({"sec_fetch_site": "none", "host": "10.0.0.7:8080"}, True),
        ({"sec_fetch_site": "same-site", "origin": OURS, "host": "dialin.example.org"}, False),
        ({"sec_fetch_site": "cross-site", "host": "dialin.example.org"}, False),
        ({"sec_fetch_site": "", "host": "dialin.example.org"}, False),
        # Without it, the host asked for or a name of ours.
        ({"origin": "http://127.0.0.1:8080", "host": "127.0.0.1:8080"}, True),
        ({"origin": "http://127.0.0.1:8888", "host": "127.0.0.1:8080"}, False),
        ({"origin": "http://127.0.0.1", "host": "127.0.0.1:80"}, True),
        ({"origin": "HTTP://Dialin.example.org:8080", "host": "dialin.EXAMPLE.org:8080"}, True),
        ({"origin": OURS, "host": "10.0.0.7:8080"}, True),
        ({"origin": f"{OURS}:8443", "host": "10.0.0.7:8080"}, False),
        ({"origin": "https://evil.example", "host": "dialin.example.org"}, False),
        ({"origin": "null", "host": "dialin.example.org"}, False),
        ({"origin": "http://[", "host": "dialin.example.org"}, False),
        ({"origin": "", "host": "dialin.example.org"}, False),
        ({"origin": "http://[::1]:8080", "host": "[::1]:8080"}, True),
    ],
)
def test_one_rule_says_which_page_may_change_something(headers, is_allowed):
    if is_allowed:
        check_origin(request_with(**headers), {"dialin.example.org"})
    else:
        with pytest.raises(ForbiddenError, match="may not change anything here"):
            check_origin(request_with(**headers), {"dialin.example.org"})


@pytest.mark.parametrize(
    "path", ["/sign-in", "/sign-out", "/submit", "/submit/check", "/api/v1/studies", "/api/v1/plan"]
)
def test_page_and_api_agree_on_origins(settings, jobs, tokens, path):
    token = tokens.create("ana", "admin")
    app = create_app(settings, ServerSettings(allowed_hosts=("dialin.example.org",)), jobs, host="0.0.0.0")
    client = TestClient(app, base_url="http://dialin.example.org:8080", follow_redirects=False)
    for headers, is_refused in (
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "http://["}, True),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://dialin.example.org:8080"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": OURS}, False),
        ({"Origin": OURS}, False),
    ):
        content = {"token": token} if "sign" in path else None
        answer = client.post(path, headers={**bearer(token), **headers}, data=content)
        assert (answer.status_code == 403) is is_refused, (headers, answer.text)
        assert answer.headers["x-content-type-options"] == "nosniff"
    client.close()


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        ("Dialin.Example.ORG:8080", "dialin.example.org"),
        ("[::1]:8080", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("[", None),
        ("", None),
        ("a b", None),
        ("a@b", None),
        ("a:b", None),
        ("\u00e9", None),
    ],
)
def test_the_name_in_a_host_header(shown, name):
    assert host_name(shown) == name


@pytest.mark.parametrize("setting", ["Dialin.Example.org", " dialin.example.org ,"])
def test_allowed_hosts_are_names_whatever_their_case(settings, jobs, setting):
    server = ServerSettings.read({"DIALIN_ALLOWED_HOSTS": setting})
    client = TestClient(create_app(settings, server, jobs), base_url="http://DIALIN.example.org")
    assert client.get("/healthz").status_code == 200
    client.close()


@pytest.mark.parametrize("headers", [{"Host": "["}, {"Host": "[::1"}, {"Host": "a\u00e9".encode("latin-1")}])
def test_a_host_that_is_none_is_refused(client, headers):
    answer = client.get("/healthz", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "usage")


def test_two_hosts_are_none(client):
    headers = [("Host", "evil.example"), ("Host", "127.0.0.1:8080")]
    assert client.get("/healthz", headers=headers).status_code == 400


@pytest.mark.parametrize("path", ["/sign-in", "/submit"])
def test_a_form_of_many_fields_is_refused(client, path):
    answer = client.post(path, data={f"field{n}": "x" for n in range(30)})
    assert answer.status_code == 400
    assert "more than 20 fields" in answer.text


@pytest.mark.parametrize("path", ["/studies/none/extend", "/studies/none/stop", "/studies", "/plan", "/nothing"])
@pytest.mark.parametrize("is_declared", [True, False])
def test_no_path_reads_a_body_without_an_end(client, path, is_declared):
    sent = 0

    def chunks():
        nonlocal sent
        for _ in range(40):
            sent += 2**18
            yield bytes(2**18)

    content = bytes(10 * 2**20) if is_declared else chunks()
    answer = client.post(f"/api/v1{path}", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in ((413,) if is_declared else (413, 404)), answer.text
    assert sent <= 40 * 2**18


def test_who_is_not_known_has_limits_by_address_whatever_they_ask_for(settings, jobs, tokens):
    token = tokens.create("ana", "admin")
    app = create_app(settings, ServerSettings(anonymous=0.01, poll_seconds=3600), jobs)
    client = TestClient(app, base_url="http://127.0.0.1", client=("192.0.2.1", 1))
    paths = ["/readyz", "/static/none.js", "/nothing", "/api/v1/studies", "/sign-in"]
    assert 429 not in [client.get(path).status_code for path in paths]
    assert [client.get("/nothing").status_code for _ in range(10)][-1] == 429
    for path in paths:
        answer = client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (429, "application/problem+json"), path
    assert client.get("/nothing", headers=bearer("dialin_wrong")).status_code == 429
    assert client.get("/healthz").status_code == 200  # a server that does not say so is started again
    # Others at the same address, who are known, and those of other addresses.
    assert client.get("/nothing", headers=bearer(token)).status_code == 404
    assert client.get("/api/v1/studies", headers=bearer(token)).status_code == 200
    other = TestClient(app, base_url="http://127.0.0.1", client=("192.0.2.2", 1))
    assert other.get("/readyz").status_code == 200
    client.close()
    other.close()


def test_what_nobody_knows_is_not_remembered(client, tokens):
    token = tokens.create("ana", "admin")
    auth = client.app.state.dialin.auth
    auth.forget()
    for number in range(20):
        client.get("/api/v1/studies", headers=bearer(f"dialin_{number}" + "x" * 2**16))
        client.get("/api/v1/studies", headers={"Cookie": f"dialin_session={number}" + "x" * 2**16})
    assert len(auth.remembered) == 0
    assert client.get("/api/v1/studies", headers=bearer(token)).status_code == 200
    assert [len(digest) for digest in auth.remembered] == [32]


def test_plans_cost_their_caller_what_they_take(client, tokens, monkeypatch):
    spent = 0.0
    ana, ben = tokens.create("ana", "viewer"), tokens.create("ben", "viewer")

    def thread_time():
        nonlocal spent
        spent += 3.0  # seconds of processor time between two looks
        return spent

    monkeypatch.setattr("dialin.server.auth.time.thread_time", thread_time)
    plan = "/api/v1/plan"
    answers = [client.post(plan, content=SPEC, headers=bearer(ana)) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 1
    assert client.post("/submit/check", content=SPEC, headers=bearer(ana)).json()["plan"] is None
    assert client.post(plan, content=SPEC, headers=bearer(ben)).status_code == 200


def test_a_limiter_remembers_so_many_callers_at_most():
    limiter = RateLimiter(1.0)
    for _ in range(10):
        limiter.take("ana")
    for number in range(9_000):
        limiter.take(f"address {number}")
    with pytest.raises(RateLimitedError):
        limiter.take("ana")
    for number in range(20_000):
        limiter.take(f"other {number}")
    assert len(limiter) <= 10_000


def test_one_caller_cannot_take_all_places():
    limit = ConcurrencyLimit(5, 3, "streams")
    for _ in range(3):
        limit.acquire("eve")
    with pytest.raises(RateLimitedError, match="you have 3 streams open, which is the limit"):
        limit.acquire("eve")
    limit.acquire("ana")
    limit.acquire("ana")
    with pytest.raises(RateLimitedError, match="the server has 5 streams open, which is its limit"):
        limit.acquire("ana")
    limit.release("eve")
    limit.acquire("ana")


def test_who_knows_nothing_cannot_make_answers_old(client):
    """Only what has changed something does."""
    cache = _response_cache(client)
    submit(client)
    before = cache.changes
    client.post("/sign-out")
    client.post("/api/v1/studies/none/stop")
    client.post("/nothing")
    assert cache.changes == before
    submit(client)
    assert cache.changes == before + 1


def _response_cache(client):
    from dialin.server.response_cache import ResponseCache

    client.get("/healthz")  # the layers are made then
    layer = client.app.middleware_stack
    while not isinstance(layer, ResponseCache):
        layer = getattr(layer, "_app", None) or layer.app
    return layer


def test_every_answer_has_the_id_that_its_log_records_carry(client, monkeypatch, caplog):
    def broken(_self, _study_id):
        raise RuntimeError("broken")

    monkeypatch.setattr("dialin.server.services.studies.StudyService.in_full", broken)
    seen, level = [], logging.getLogger("dialin").level
    handler = logs.configure("error", "json", stream=io.StringIO())
    try:
        answer = client.get("/api/v1/studies/small-abcdef", headers={"X-Request-ID": "from-a-proxy"})
        seen = [json.loads(line) for line in handler.stream.getvalue().splitlines()]
    finally:
        logging.getLogger("dialin").removeHandler(handler)
        logging.getLogger("dialin").setLevel(level)
    assert answer.status_code == 500
    assert [(line["request_id"], line["study"]) for line in seen] == [("from-a-proxy", "small-abcdef")]
    assert "RuntimeError: broken" in seen[0]["exception"]


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1.2_3", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_a_request_id_is_taken_over_where_a_log_can_hold_it(client, sent, is_kept):
    given = client.get("/healthz", headers={"X-Request-ID": sent} if sent else {}).headers["x-request-id"]
    assert (given == sent) is is_kept
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", given)


def test_two_requests_have_different_ids(client):
    assert client.get("/healthz").headers["x-request-id"] != client.get("/healthz").headers["x-request-id"]
