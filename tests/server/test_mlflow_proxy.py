"""The way to MLflow: who may make which call, what never passes, and what a caller hears when MLflow does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest

from dialin.errors import ForbiddenError, NotFoundError, UsageError
from dialin.server import mlflow_proxy
from dialin.server.mlflow_calls import checked_change, find_call
from dialin.server.mlflow_proxy import MlflowProxy
from tests.server.conftest import bearer

CALLS = "/mlflow/ajax-api/2.0/mlflow"
SECRET = "of this start"


class FakeMlflow:
    """What MLflow was asked, and how it answers."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.answer: Callable[[], httpx.Response] | Exception = lambda: httpx.Response(200, stream=Pieces(b"{}"))

    async def handle(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer()


class Pieces(httpx.AsyncByteStream):
    """A body that comes over the network, as a response that was made whole does not."""

    def __init__(self, *pieces: bytes, error: Exception | None = None) -> None:
        self.pieces, self.error = pieces, error

    async def __aiter__(self):
        for piece in self.pieces:
            yield piece
        if self.error is not None:
            raise self.error


@pytest.fixture
def mlflow():
    return FakeMlflow()


@pytest.fixture
def client(client, app, mlflow):
    transport = httpx.MockTransport(mlflow.handle)
    proxy = MlflowProxy(
        app.state.dialin.auth, "http://127.0.0.1:5000", SECRET, patience_seconds=0.5, transport=transport
    )
    app.mount("/mlflow", proxy)
    return client


@pytest.fixture
def people(tokens):
    return {role: bearer(tokens.create(role, role)) for role in ("viewer", "submitter", "admin")}


LEAST = [
    ("GET", "/mlflow/", "viewer"),
    ("GET", "/mlflow/static-files/static/js/main.js", "viewer"),
    ("GET", "/mlflow/get-artifact?path=a&run_uuid=b", "viewer"),
    ("GET", f"{CALLS}/runs/get?run_id=a", "viewer"),
    ("GET", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/b.yaml", "viewer"),
    ("POST", f"{CALLS}/runs/search", "viewer"),
    ("POST", "/mlflow/api/2.0/mlflow/experiments/search", "viewer"),
    ("POST", "/mlflow/graphql", "viewer"),
    ("POST", f"{CALLS}/runs/create", "submitter"),
    ("POST", f"{CALLS}/runs/set-tag", "submitter"),
    ("POST", f"{CALLS}/runs/log-batch", "submitter"),
    ("POST", f"{CALLS}/experiments/create", "submitter"),
    ("POST", f"{CALLS}/upload-artifact?path=a&run_uuid=b", "submitter"),
    ("PUT", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/b.yaml", "submitter"),
    ("POST", f"{CALLS}/runs/delete", "admin"),
    ("POST", f"{CALLS}/experiments/delete", "admin"),
    ("DELETE", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/b.yaml", "admin"),
]


def test_each_call_needs_a_role(client, mlflow, people):
    order = ["viewer", "submitter", "admin"]
    for method, path, least in LEAST:
        assert client.request(method, path).status_code == 401
        for role in order:
            mlflow.asked.clear()
            answer = client.request(method, path, headers=people[role])
            if order.index(role) < order.index(least):
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
                assert f"{role} is a {role} and may not {method}" in answer.json()["detail"]
                assert mlflow.asked == []
            else:
                assert answer.status_code == 200
                (asked,) = mlflow.asked
                assert (asked.method, f"/mlflow{asked.url.raw_path.decode()}") == (method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/ajax-api/3.0/jobs/"),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
        ("GET", "/ajax-api/2.0/mlflow/gateway-proxy"),
        ("POST", "/api/2.0/mlflow/webhooks"),
        ("POST", "/api/2.0/mlflow/traces"),
        ("POST", "/v1/traces"),
        ("POST", "/gateway/mlflow/v1/chat/completions"),
        ("GET", "/api/3.0/mlflow/get-trace-artifact"),
        ("POST", "/api/3.0/mlflow/gateway/secrets/create"),
        ("PUT", "/api/2.0/mlflow/runs/create"),
    ],
)
def test_what_would_run_or_reach_something_passes_for_nobody(method, path):
    with pytest.raises(ForbiddenError, match="is not passed on to MLflow"):
        find_call(method, path)


@pytest.mark.parametrize(
    "path",
    ["/static-files/../get-artifact", "/static-files/%2e%2e/x", "/static-files//x", "/static-files/a\\b", "/\n"],
)
def test_a_path_that_could_be_read_in_two_ways_is_none(path):
    with pytest.raises(NotFoundError, match="no path"):
        find_call("GET", path)


def test_mlflow_sees_the_secret_and_nothing_of_the_caller(client, mlflow, people):
    client.get(f"{CALLS}/runs/get?run_id=a%20b", headers={**people["viewer"], "Cookie": "a=b", "X-Forwarded-For": "x"})
    (asked,) = mlflow.asked
    assert asked.headers["authorization"] == f"Bearer {SECRET}"
    assert not {"cookie", "origin", "x-forwarded-for"} & set(asked.headers)
    assert (asked.headers["host"], asked.url.query) == ("127.0.0.1:5000", b"run_id=a%20b")


def test_bytes_of_any_kind_are_passed_on_or_refused(client, mlflow):
    said = {"User-Agent": b"\xff\xfe", "Accept": "\u00e9".encode()}
    assert client.get(f"{CALLS}/runs/get?run_id=%ff", headers=said).status_code == 200
    assert not dict(mlflow.asked[-1].headers.raw)[b"user-agent"].isascii()
    mlflow.asked.clear()
    long = client.get(f"/mlflow/static-files/{'%C3%A9' * 6_000}")
    assert (long.status_code, long.json()["code"]) == (400, "usage")
    mlflow.answer = httpx.LocalProtocolError("Illegal header value")
    assert client.get(f"{CALLS}/runs/get").status_code == 400


def test_where_files_lie_is_never_the_callers(client, mlflow, people):
    for path, name, place in (
        ("experiments/create", "artifact_location", "file:///tmp/e"),
        ("experiments/create", "artifactLocation", "file:///tmp/e"),
        ("model-versions/create", "source", "/etc"),
    ):
        answer = client.post(f"{CALLS}/{path}", json={"name": "x", name: place}, headers=people["admin"])
        assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")
        said = f"{name}={place!r}: only the server decides where files lie; leave {name} out"
        assert answer.json()["detail"] == said
        assert (answer.json()["error_code"], answer.json()["message"]) == ("PERMISSION_DENIED", said)  # for MLflow's
    assert mlflow.asked == []


def test_a_change_reaches_mlflow_as_it_was_read_here():
    twice = b'{"name": "a", "artifact_location": "file:///x", "artifact_location": ""}'
    assert json.loads(checked_change(twice)) == {"name": "a", "artifact_location": ""}
    assert checked_change(b"") == b"{}"
    for content in (b'"{}"', b"[]", b"{", b"[" * 100_000, b"\xff"):
        with pytest.raises(UsageError, match="must be a JSON object"):
            checked_change(content)


def test_another_sites_page_changes_nothing(client, mlflow):
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert client.post(f"{CALLS}/runs/set-tag", json={}, headers=headers).status_code == 403
    assert client.get("/mlflow/", headers={"Host": "evil.example"}).status_code == 400
    assert mlflow.asked == []


def test_an_mlflow_that_is_away_is_said_so(client, mlflow):
    for error, status, code in (
        (httpx.ConnectError("refused"), 502, "server"),
        (httpx.RemoteProtocolError("nonsense"), 502, "server"),
        (httpx.ReadTimeout("slow"), 504, "server_timeout"),
        (httpx.PoolTimeout("full"), 504, "server_timeout"),
        (lambda: httpx.Response(401), 502, "server"),
        (lambda: httpx.Response(307, headers={"Location": "http://127.0.0.1:5000/x"}), 502, "server"),
    ):
        mlflow.answer = error
        answer = client.get(f"{CALLS}/runs/get")
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        page = client.get("/mlflow/", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["content-type"]) == (status, "text/html; charset=utf-8")


def test_an_answer_that_breaks_off_ends_without_a_traceback(client, mlflow, caplog):
    mlflow.answer = lambda: httpx.Response(200, stream=Pieces(b"some", error=httpx.ReadError("gone")))
    assert client.get("/mlflow/get-artifact").content == b"some"
    assert [record.levelname for record in caplog.records if record.name == "dialin.server.mlflow_proxy"] == ["WARNING"]


def test_bodies_are_limited(client, mlflow, monkeypatch):
    monkeypatch.setattr(mlflow_proxy, "MAX_CALL_BYTES", 100)
    monkeypatch.setattr(mlflow_proxy, "MAX_FILE_BYTES", 1000)
    assert client.post(f"{CALLS}/runs/search", content=b"x" * 100).status_code == 200
    file = "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/b"
    assert client.put(file, content=iter([b"x" * 500] * 2)).status_code == 200
    assert mlflow.asked[-1].content == b"x" * 1000
    for path, method, size in ((f"{CALLS}/runs/search", "POST", 101), (file, "PUT", 1001)):
        for content in (b"x" * size, iter([b"x"] * size)):
            answer = client.request(method, path, content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert len(mlflow.asked) == 2


def test_a_body_that_stops_coming_is_not_waited_for(app, client, mlflow):
    """Over bare ASGI: a client library would send it whole."""
    sent = []

    async def receive():
        if not sent:
            sent.append(b"half")
            return {"type": "http.request", "body": b"half", "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    answers = []

    async def send(message):
        answers.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{CALLS}/runs/search",
        "raw_path": f"{CALLS}/runs/search".encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("127.0.0.1", 8080),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"127.0.0.1:8080"), (b"content-length", b"100")],
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 20))
    assert answers[0]["status"] == 400
    assert b"no more of the body came" in answers[1]["body"]


def test_one_caller_has_so_many_requests_under_way(client, mlflow, people):
    proxy = next(route.app for route in client.app.routes if getattr(route, "path", "") == "/mlflow")
    for _ in range(mlflow_proxy.MOST_OF_ONE):
        proxy.open_requests.acquire("viewer")
    answer = client.get(f"{CALLS}/runs/get", headers=people["viewer"])
    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert client.get(f"{CALLS}/runs/get", headers=people["admin"]).status_code == 200
    proxy.open_requests.release("viewer")
    for _ in range(2):  # a place is given back
        assert client.get(f"{CALLS}/runs/get", headers=people["viewer"]).status_code == 200


def test_pages_of_mlflow_may_do_what_they_need_and_files_of_runs_nothing(client, mlflow):
    mlflow.answer = lambda: httpx.Response(
        200, stream=Pieces(b"<script>"), headers={"Set-Cookie": "a=b", "X-Frame-Options": "SAMEORIGIN"}
    )
    page, file = client.get("/mlflow/"), client.get("/mlflow/get-artifact?path=a.html&run_uuid=b")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["script-src"] == policy["default-src"] == policy["connect-src"] == "'self'"
    assert file.headers["content-security-policy"].startswith("default-src 'none'; sandbox")
    for answer in (page, file):
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "private, no-cache"
        assert "set-cookie" not in answer.headers


def test_a_browser_that_is_not_signed_in_is_led_to_where_it_signs_in(client, people):
    answer = client.get("/mlflow/?a=b", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Fmlflow%2F%3Fa%3Db")
    assert client.get(f"{CALLS}/runs/get").headers["www-authenticate"] == "Bearer"
