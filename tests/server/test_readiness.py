"""What /readyz says of parts that hang, and what it costs."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from signal import SIGCONT, SIGSTOP

import pytest
from starlette.testclient import TestClient

from dialin.errors import ClusterError
from dialin.execution.health import check_cluster, hangs
from dialin.planning.plan import ClusterShape
from dialin.server.app import create_app
from dialin.server.cluster_shape import ClusterShapeProbe
from dialin.server.readiness import ANSWER_SECONDS, Dependency, Readiness
from dialin.settings import ServerSettings, Settings
from tests.faults.harness import free_port
from tests.server.conftest import SPEC


class Slow:
    """Something that hangs until it is let go."""

    def __init__(self):
        self.looks = 0
        self.go_on = threading.Event()

    def __call__(self, asks):
        self.looks += 1
        asks("Ray's GCS")
        self.go_on.wait(30)
        return "ok"


@pytest.fixture
def slow():
    slow = Slow()
    yield slow
    slow.go_on.set()


def wait_for(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_hangs_is_named_with_the_seconds_in_bounded_time(slow):
    readiness = Readiness({"ray": Dependency("Ray", slow), "database": Dependency("the database", lambda _: "ok")})
    began = time.monotonic()
    texts = asyncio.run(readiness.texts())
    assert time.monotonic() - began < ANSWER_SECONDS + 5
    assert texts == {"ray": "Ray's GCS has not answered for 1 s", "database": "ok"}
    wait_for(lambda: asyncio.run(readiness.texts())["ray"] == "Ray's GCS has not answered for 3 s")
    slow.go_on.set()
    wait_for(lambda: asyncio.run(readiness.texts())["ray"] == "ok")


def test_many_who_ask_look_once(slow):
    readiness = Readiness({"ray": Dependency("Ray", slow)})

    async def many():
        return await asyncio.gather(*[readiness.texts() for _ in range(100)])

    before = threading.active_count()
    answers = asyncio.run(many())
    assert {each["ray"] for each in answers} == {"Ray's GCS has not answered for 1 s"}
    assert slow.looks == 1
    assert threading.active_count() <= before + 1
    began = time.monotonic()
    asyncio.run(many())
    assert time.monotonic() - began < ANSWER_SECONDS  # it is known: nobody waits again


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ClusterError("Ray does not answer at x"), "Ray does not answer at x"),
        (OSError(), "Ray does not answer: OSError"),
    ],
)
def test_what_fails_says_why(error, says):
    def fails(asks):
        raise error

    assert asyncio.run(Readiness({"ray": Dependency("Ray", fails)}).texts()) == {"ray": says}


def test_a_silence_goes_on_over_looks_that_end_with_nothing():
    now = 0.0
    dependency = Dependency("MLflow", _times_out, lambda: now)
    for now in (0.0, 5.0, 10.0):  # noqa: B007  the clock
        dependency.refresh()
        wait_for(lambda: not dependency.is_being_checked)
    assert dependency.text() == "MLflow has not answered for 10 s"


def test_what_gets_ready_before_it_asks_is_not_called_silent():
    def look(asks):
        time.sleep(2 * ANSWER_SECONDS)  # as an import may take
        asks("Ray's dashboard")
        return "ok"

    assert asyncio.run(Readiness({"ray": Dependency("Ray", look)}).texts()) == {"ray": "ok"}


def _times_out(asks):
    raise TimeoutError


def test_an_answer_of_long_ago_is_none():
    now = 0.0
    dependency = Dependency("MLflow", lambda _: "ok", lambda: now)
    dependency.refresh()
    wait_for(lambda: dependency.text() == "ok")
    now = 3600.0
    assert dependency.text() is None


@contextmanager
def frozen_mlflow():
    """A server that takes connections and answers nothing, as one that was stopped does."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: _connects(port))
        os.kill(process.pid, SIGSTOP)
        yield port
    finally:
        os.kill(process.pid, SIGCONT)
        process.kill()
        process.wait()


def _connects(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_while_mlflow_hangs_the_server_is_ready_says_so_and_answers_others(tmp_path, jobs):
    with frozen_mlflow() as port:
        settings = Settings(tmp_path / "out", tmp_path / "data", mlflow_uri=f"http://127.0.0.1:{port}")
        app = create_app(settings, ServerSettings(poll_seconds=3600), jobs)
        client = TestClient(app, base_url="http://127.0.0.1")
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert answer.json()["mlflow"] == "MLflow has not answered for 1 s"
        began = time.monotonic()
        for _ in range(20):
            client.get("/readyz")
        assert time.monotonic() - began < 10  # 2 s each, before
        time.sleep(max(0.0, 2.5 - (time.monotonic() - began)))
        assert client.get("/readyz").json()["mlflow"].startswith("MLflow has not answered for ")
        client.close()


def test_a_cluster_that_hangs_holds_no_plan(settings, jobs, slow):
    jobs.shape = lambda: (slow(lambda _: None), ClusterShape(7.0))[1]
    app = create_app(settings, ServerSettings(poll_seconds=3600), jobs)
    client = TestClient(app, base_url="http://127.0.0.1")
    began = time.monotonic()
    for _ in range(20):
        assert client.post("/api/v1/plan", content=SPEC).status_code == 200
    assert time.monotonic() - began < 15  # 1 s for the first
    assert slow.looks == 1
    slow.go_on.set()
    wait_for(lambda: client.post("/api/v1/plan", content=SPEC + "resources: {cpus: 7}\n").status_code == 200)
    client.close()


def test_a_cluster_that_does_not_answer_is_what_it_was(jobs):
    shape = ClusterShapeProbe(jobs)
    jobs.cpus = 5.0
    assert shape() == ClusterShape(5.0)
    jobs.error = ClusterError("away")
    assert shape() == ClusterShape(5.0)


def test_a_raylet_that_hangs_is_told_from_one_that_is_there():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert hangs("127.0.0.1", port, seconds=0.3)
    assert not hangs("127.0.0.1", port, seconds=0.3)  # nobody listens: it may be a firewall


def test_each_part_of_a_cluster_is_named_before_it_is_asked():
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = {"state": "ALIVE", "nodeManagerAddress": "127.0.0.1", "nodeManagerPort": silent.getsockname()[1]}
        nodes = {"data": {"summary": [{"raylet": {"state": "DEAD"}}, {"raylet": node}]}}
        with pytest.raises(TimeoutError):
            check_cluster(lambda path: nodes if path.startswith("/nodes") else {}, asked.append)
    assert asked == ["Ray's dashboard", "Ray's GCS", "the raylet of node 127.0.0.1"]
    assert check_cluster(lambda path: {"data": {"summary": []}}, asked.append) == "has no nodes"
