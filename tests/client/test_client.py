"""The client against a server of canned answers: what is asked, what is asked again, what is raised."""

from __future__ import annotations

import itertools
import json
import zipfile
from io import BytesIO

import httpx
import pytest

from dialin.client.client import Client
from dialin.client.events import MAX_BREAKS, MAX_FAILURES
from dialin.client.http import Retries
from dialin.errors import (
    BundleError,
    ConflictError,
    ForbiddenError,
    NoResultError,
    NotFoundError,
    Problem,
    ProtocolError,
    RateLimitedError,
    ServerError,
    ServerUnreachableError,
    SpecError,
    TooLargeError,
    UnauthorizedError,
    UsageError,
)
from dialin.schemas import Best, Study
from tests.client.wire import SPACE, TRAIN, best, problem, study, study_in_full, study_stream, trial


class Waits(list):
    """Instead of sleeping: how long it would have been."""

    def __call__(self, seconds):
        self.append(seconds)


class Server:
    """Answers with what `routes` has for "METHOD path": a value for JSON, a response, a function of the request, or a
    list of such, one after the other, the last of them for ever."""

    def __init__(self, **settings):
        self.routes, self.asked, self.waits = {}, [], Waits()
        retries = Retries(sleep=self.waits, draw=lambda: 0.0)
        self.client = Client(
            "http://host:8000/", "secret", transport=httpx.MockTransport(self._answer), retries=retries, **settings
        )

    def _answer(self, request):
        self.asked.append(request)
        path = request.url.path.removeprefix("/api/v1")
        answer = self.routes.get(f"{request.method} {path}", problem(404, "not_found", f"nothing at {path}"))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(request)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def count(self, method, path):
        return sum(request.method == method and request.url.path == f"/api/v1{path}" for request in self.asked)


@pytest.fixture
def server():
    server = Server()
    with server.client:
        yield server


def test_a_study_is_asked_for_with_the_token(server):
    server.routes["GET /studies/mine-abc"] = study_in_full() | {"from": "a newer server"}
    found = server.client.study("mine-abc")
    assert (found.id, found.state, found.info.trials.budget) == ("mine-abc", "running", 6)
    assert server.asked[0].headers["Authorization"] == "Bearer secret"
    assert str(server.asked[0].url) == "http://host:8000/api/v1/studies/mine-abc"
    assert "secret" not in repr(server.client) + repr(found)


def test_a_study_by_its_name_and_the_last_one(server):
    server.routes["GET /studies"] = {"studies": [study()], "next": None}
    assert server.client.study("mine").id == "mine-abc"
    assert server.client.study("last").id == "mine-abc"
    asked = [dict(request.url.params) for request in server.asked if request.url.path.endswith("/studies")]
    assert [query.get("name") for query in asked] == ["mine", None]
    server.routes["GET /studies"] = {"studies": [], "next": None}
    with pytest.raises(NotFoundError, match="nothing at"):
        server.client.study("other")


@pytest.mark.parametrize("reference", ["..", "a/b", "", "a b", "x" * 200, "ä"])
def test_what_can_be_no_study_is_not_asked_for(server, reference):
    with pytest.raises(NotFoundError, match="no study"):
        server.client.study(reference)
    assert server.asked == []


def test_all_pages(server):
    pages = {
        None: {"studies": [study("a-1"), study("a-2")], "next": "x"},
        "x": {"studies": [study("a-3")], "next": None},
    }
    server.routes["GET /studies"] = lambda request: httpx.Response(200, json=pages[request.url.params.get("cursor")])
    assert [found.id for found in server.client.studies(["queued", "running"], owner="me")] == ["a-1", "a-2", "a-3"]
    for request in server.asked:
        assert request.url.params.get_list("state") == ["queued", "running"]
        assert request.url.params["owner"] == "me"
    server.routes["GET /studies"] = {"studies": [], "next": "x"}
    with pytest.raises(ServerError, match="leads to itself"):
        list(server.client.studies())


@pytest.mark.parametrize(
    ("status", "code", "cls"),
    [
        (401, "unauthorized", UnauthorizedError),
        (403, "forbidden", ForbiddenError),
        (404, "not_found", NotFoundError),
        (409, "conflict", ConflictError),
        (409, "no_result", NoResultError),
        (413, "too_large", TooLargeError),
        (422, "bundle", BundleError),
        (400, "usage", UsageError),
        (429, "rate_limited", RateLimitedError),
    ],
)
def test_errors_are_those_that_the_server_raised(server, status, code, cls):
    server.routes["GET /knobs"] = problem(status, code, "the thing, the value, what is allowed")
    with pytest.raises(cls, match="the thing, the value, what is allowed") as raised:
        server.client.knobs()
    assert type(raised.value) is cls


def test_how_often_a_busy_server_is_asked(server):
    server.routes["GET /spaces"] = None
    server.routes["GET /search-spaces"] = [
        httpx.Response(503),
        httpx.ConnectError("refused"),
        problem(429, "rate_limited", "too fast", retry_after="7"),
        [{"name": "digits", "summary": "", "yaml": ""}],
    ]
    assert server.client.spaces()[0].name == "digits"
    assert server.waits == [0.25, 0.5, 7.0]
    server.routes["GET /search-spaces"] = httpx.ConnectError("refused")
    with pytest.raises(ServerUnreachableError, match="http://host:8000 cannot be reached: refused"):
        server.client.spaces()
    assert server.count("GET", "/search-spaces") == 8


def test_a_wait_that_is_too_long_is_the_callers(server):
    server.routes["GET /knobs"] = problem(429, "rate_limited", "come back tomorrow", retry_after="86400")
    with pytest.raises(RateLimitedError) as raised:
        server.client.knobs()
    assert raised.value.retry_after == 86400
    assert server.waits == []


def test_a_date_to_come_back_at(server):
    past = "Fri, 01 Jan 2021 00:00:00 GMT"
    server.routes["GET /knobs"] = [problem(503, "cluster", "away", retry_after=past), []]
    assert server.client.knobs() == []
    assert server.waits == [0.0]


@pytest.mark.parametrize("verb", ["stop", "resume", "extend"])
def test_what_changes_something_is_asked_once(server, verb):
    server.routes["GET /studies/mine-abc"] = study()
    server.routes[f"POST /studies/mine-abc/{verb}"] = httpx.ReadTimeout("")
    handle = server.client.study("mine-abc")
    with pytest.raises(ServerUnreachableError, match="no answer within 30 s"):
        getattr(handle, verb)(*(["+3"] if verb == "extend" else []))
    assert server.count("POST", f"/studies/mine-abc/{verb}") == 1


def test_stop_resume_extend_archive(server):
    server.routes["GET /studies/mine-abc"] = study()
    for verb, state in (("stop", "interrupted"), ("resume", "queued"), ("extend", "queued")):
        server.routes[f"POST /studies/mine-abc/{verb}"] = httpx.Response(202, json=study(state=state))
    server.routes["DELETE /studies/mine-abc"] = httpx.Response(204)
    handle = server.client.study("mine-abc")
    assert handle.stop().state == "interrupted"
    assert handle.resume().state == "queued"
    assert handle.extend(trials=40, epochs="+3").state == "queued"
    assert json.loads(server.asked[-1].content) == {"trials": "40", "epochs": "+3"}
    handle.archive()
    assert server.asked[-1].method == "DELETE"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            httpx.Response(200, text="<html>It works!</html>"),
            "no JSON: '<html>It works!</html>'; is it a dialin server",
        ),
        (httpx.Response(500, text="oh no"), "500 Internal Server Error, which is not a problem document: 'oh no'"),
        (httpx.Response(404, json={"detail": "Not Found"}), "404 Not Found, which is not a problem document"),
        (httpx.Response(301, headers={"Location": "https://elsewhere/"}), "a redirect to https://elsewhere/"),
        (httpx.Response(200, json=[1]), "a study that cannot be read"),
        (httpx.Response(200, json={"id": "x"}), "a study that cannot be read: 'name' is missing"),
        (httpx.Response(200, json=study(best="high")), "a study that cannot be read"),
        (httpx.Response(200, json=study("../x")), "a study that cannot be read"),
        (httpx.Response(200, content=b"\xff\xfe\xfd"), "which is no JSON"),
    ],
)
def test_nonsense_is_one_clear_error(server, answer, message):
    server.routes["GET /studies/mine-abc"] = answer
    with pytest.raises(ProtocolError) as raised:
        server.client.study("mine-abc")
    assert message in str(raised.value)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_gateway_that_cannot_reach_the_server_is_not_nonsense(server, status):
    server.routes["GET /studies/mine-abc"] = httpx.Response(status, text="<html>Bad gateway</html>")
    with pytest.raises(ServerUnreachableError, match=f"answers {status} .*Bad gateway"):
        server.client.study("mine-abc")


@pytest.mark.parametrize(
    "url", ["host:8000", "ftp://host", "http://", "", "http://host?x=1", "http://host:port", "/tmp/x"]
)
def test_an_address_that_is_none(url):
    with pytest.raises(UsageError, match="allowed: http://HOST:PORT or https://HOST"):
        Client(url)


def test_no_password_in_an_address_and_no_token_of_two_lines():
    with pytest.raises(UsageError, match="DIALIN_TOKEN") as raised:
        Client("https://me:hunter2@host")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(UsageError, match="token") as raised:
        Client("https://host", "secret\nmore")
    assert "secret" not in str(raised.value)


def test_the_best_configuration(server):
    server.routes["GET /studies/mine-abc"] = study()
    server.routes["GET /studies/mine-abc/best"] = lambda request: (
        httpx.Response(200, text="name: x\n")
        if "yaml" in request.headers["Accept"]
        else httpx.Response(200, json=best())
    )
    handle = server.client.study("mine-abc")
    found = handle.best()
    assert found == Best(**best())
    assert (found.trial, found.value, found.epoch, found.params) == (3, 0.9, 2, {"lr": 0.1})
    assert handle.best_yaml() == "name: x\n"
    server.routes["GET /studies/mine-abc/best"] = best(value=None)
    with pytest.raises(ServerError, match="a best configuration that cannot be read"):
        handle.best()


def test_trials_and_the_curve_as_tables(server):
    trials = [trial(n, value=n / 10, params={"lr": 0.1 * n}) for n in range(3)]
    point = {"trial": 0, "epoch": 1, "epochs_total": 1, "trials_total": 1, "seconds": 2.0, "value": 0.5, "best": 0.5}
    server.routes["GET /studies/mine-abc"] = study()
    server.routes["GET /studies/mine-abc/trials"] = {"trials": trials, "next": None}
    server.routes["GET /studies/mine-abc/trials/1"] = trials[1]
    server.routes["GET /studies/mine-abc/curve"] = {"metric": "m", "mode": "max", "points": [point], "left_out": 0}
    handle = server.client.study("mine-abc")
    assert list(handle.trials().columns) == [*(name for name in trial() if name != "params"), "params_lr"]
    assert list(handle.trials()["value"]) == [0.0, 0.1, 0.2]
    assert handle.trial(1).model_dump(mode="json") == trials[1]
    assert handle.trial_list()[1] == handle.trial(1)
    assert handle.curve().to_dict("records") == [point]


def test_tables_without_pandas(server, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    server.routes["GET /studies/mine-abc"] = study()
    server.routes["GET /studies/mine-abc/trials"] = {"trials": [trial(params={"lr": 1})], "next": None}
    (row,) = server.client.study("mine-abc").trials()
    assert (row["trial"], row["params_lr"], "params" in row) == (0, 1, False)


def test_logs(server):
    server.routes["GET /studies/mine-abc"] = study()
    server.routes["GET /studies/mine-abc/logs"] = lambda request: httpx.Response(200, text=request.url.params["tail"])
    assert server.client.study("mine-abc").logs(tail=7) == "7"


class TestSubmit:
    def test_a_file_is_sent_as_it_is_and_once(self, server, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text(f"# mine\n{SPACE}")
        server.routes["POST /studies"] = [httpx.ReadError("cut"), httpx.Response(201, json=study(state="queued"))]
        assert server.client.submit(file, priority=5).state == "queued"
        first, second = server.asked
        assert first.content == second.content == file.read_bytes()
        assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
        assert 1 <= len(first.headers["Idempotency-Key"]) <= 128
        assert first.url.params["priority"] == "5"
        server.client.submit(str(file))
        assert server.asked[-1].headers["Idempotency-Key"] != first.headers["Idempotency-Key"]

    def test_data_and_shipped_names_and_overrides(self, server):
        server.routes["POST /studies"] = httpx.Response(201, json=study(state="queued"))
        server.client.submit({"name": "mine", "objective": {"dataset": "digits"}, "space": {"lr": 0.1}})
        assert json.loads(server.asked[-1].content)["name"] == "mine"
        server.client.submit("digits")
        assert b"name: digits" in server.asked[-1].content
        server.client.submit("digits", overrides=["budget.trials=77"])
        assert b"trials: 77" in server.asked[-1].content

    def test_a_servers_problems_have_the_lines_of_the_file(self, server, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text(SPACE)
        errors = [{"path": "space.lr", "line": 99, "message": "is wrong"}, {"path": "", "line": None, "message": "odd"}]
        server.routes["POST /studies"] = problem(422, "invalid_spec", "two problems", errors=errors)
        with pytest.raises(SpecError) as raised:
            server.client.submit(file)
        assert raised.value.problems == (Problem("space.lr", "is wrong", 4), Problem("", "odd"))
        assert str(raised.value).startswith(f"{file}: line 4: space.lr: is wrong")
        with pytest.raises(SpecError) as raised:
            server.client.submit({"name": "mine"})
        assert raised.value.problems[0].line is None

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("digts", "'digts' is neither a file nor a shipped search space; did you mean 'digits'?"),
            ({"name": object()}, "not plain data"),
            ({"name": float("nan")}, "not plain data"),
        ],
    )
    def test_what_is_wrong_before_anything_is_sent(self, server, spec, message):
        with pytest.raises(SpecError, match=".") as raised:
            server.client.submit(spec)
        assert message in str(raised.value)
        assert server.asked == []

    def test_a_function_of_ones_own_goes_with_its_files(self, server, tmp_path):
        code = tmp_path / "code"
        code.mkdir()
        (code / "train.py").write_text(TRAIN)
        (code / "helper.py").write_text("A = 1\n")
        file = tmp_path / "mine.yaml"
        file.write_text('name: mine\nobjective: {python: "code/train.py:train", metric: score}\nspace: {x: [1, 2]}\n')
        server.routes["POST /bundles"] = [
            httpx.Response(503),
            httpx.Response(201, json={"bundle": "a" * 64, "files": 2}),
        ]
        server.routes["POST /studies"] = httpx.Response(201, json=study(state="queued"))
        server.client.submit(file)
        with zipfile.ZipFile(BytesIO(server.asked[1].content)) as archive:
            assert archive.namelist() == ["helper.py", "train.py"]
        assert server.asked[2].url.params["bundle"] == "a" * 64
        assert b"train.py:train" in server.asked[2].content
        assert str(tmp_path).encode() not in server.asked[2].content

    def test_a_function_that_is_not_there(self, server, tmp_path):
        file = tmp_path / "mine.yaml"
        file.write_text('name: mine\nobjective: {python: "train.py:train"}\nspace: {x: [1, 2]}\n')
        with pytest.raises(SpecError, match="there is no such file"):
            server.client.submit(file)
        assert server.asked == []


class TestEvents:
    """Streams that break, and none at all."""

    @pytest.fixture
    def handle(self, server):
        server.routes["GET /studies/mine-abc"] = study()
        return server.client.study("mine-abc")

    def test_a_stream_that_breaks_goes_on_where_it_broke(self, server, handle):
        ended = study(state="complete", reason="done")
        parts = [
            study_stream((1, "trial_started", {"trial": 0}), (2, "epoch", {"trial": 0, "epoch": 1, "value": 0.5})),
            httpx.ReadTimeout(""),
            study_stream((3, "note", {"text": "a\u2028b"}), (9, "study", ended)),
        ]
        server.routes["GET /studies/mine-abc/events"] = list(parts)
        events = list(handle.events())
        assert [(event.id, event.kind) for event in events] == [
            ("1", "trial_started"), ("2", "epoch"), ("3", "note"), ("9", "study"),
        ]  # fmt: skip
        assert events[2].data == {"text": "a\u2028b"}
        assert handle.state == "complete"
        asked = [request for request in server.asked if request.url.path.endswith("/events")]
        assert [request.headers.get("Last-Event-ID") for request in asked] == [None, "2", "2"]

    def test_where_there_is_no_stream_the_study_is_looked_at(self, server, handle):
        server.routes["GET /studies/mine-abc/events"] = httpx.Response(502)
        server.routes["GET /studies/mine-abc"] = [
            study(), study(), httpx.ConnectError("x"), problem(429, "rate_limited", "slow"), study(best=0.9),
            study(state="complete"),
        ]  # fmt: skip
        events = list(handle.events())
        assert {event.kind for event in events} == {"study"}
        assert [event.data["best"] for event in events] == [None, 0.9, None]
        assert server.count("GET", "/studies/mine-abc/events") == MAX_BREAKS

    def test_a_server_that_stays_away(self, server, handle):
        server.routes["GET /studies/mine-abc/events"] = httpx.ConnectError("refused")
        server.routes["GET /studies/mine-abc"] = httpx.ConnectError("refused")
        with pytest.raises(ServerUnreachableError, match="cannot be reached: refused"):
            list(handle.events())
        assert server.count("GET", "/studies/mine-abc") == 1 + MAX_FAILURES * Retries().attempts

    def test_signs_of_life_are_no_events(self, server, handle):
        server.routes["GET /studies/mine-abc/events"] = httpx.Response(
            200, headers={"Content-Type": "text/event-stream"},
            text=f": alive\n\n:\n\nevent: study\r\nid: 5\r\ndata: {json.dumps(study(state='failed'))}\r\n\r\n",
        )  # fmt: skip
        assert [event.id for event in handle.events()] == ["5"]

    @pytest.mark.parametrize("data", ["{", json.dumps({"id": "x"})])
    def test_events_that_cannot_be_read(self, server, handle, data):
        server.routes["GET /studies/mine-abc/events"] = httpx.Response(
            200, headers={"Content-Type": "text/event-stream"}, text=f"event: study\ndata: {data}\n\n"
        )
        server.routes["GET /studies/mine-abc"] = study(state="complete")
        # As one that breaks: what the study has become can be had without them.
        assert [event.data["state"] for event in handle.events()] == ["complete"]

    def test_an_error_of_the_servers_ends_it(self, server, handle):
        server.routes["GET /studies/mine-abc/events"] = problem(403, "forbidden", "not yours")
        with pytest.raises(ForbiddenError, match="not yours"):
            list(handle.events())

    def test_wait_says_where_it_stands(self, server, handle, capsys):
        server.routes["GET /studies/mine-abc/events"] = study_stream(
            (1, "study", study()), (2, "study", study(state="complete", best=0.91234))
        )
        assert handle.wait().state == "complete"
        assert capsys.readouterr().err == (
            "study mine-abc running: 2/6 trials, 2 running\n"
            "study mine-abc complete: 2/6 trials, 2 running, best val_accuracy 0.9123, 12 s\n"
        )
        assert handle.wait(progress=False).state == "complete"
        assert capsys.readouterr().err == ""

    def test_wait_for_so_long(self, server, handle):
        never = itertools.cycle([study_stream((1, "study", study()))])
        server.routes["GET /studies/mine-abc/events"] = lambda request: next(never)
        with pytest.raises(TimeoutError, match="study mine-abc is still running"):
            handle.wait(progress=False, timeout=0)


def test_a_study_in_a_line():
    assert Study(**study(reason="why", state="failed")).line() == (
        "study mine-abc failed (why): 2/6 trials, 2 running, 12 s"
    )
