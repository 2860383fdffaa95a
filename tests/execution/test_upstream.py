"""Canaries: what dialin uses of Ray beyond its public API is still there. Each failure names what upstream changed."""

from __future__ import annotations

import json
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from dialin.errors import ClusterError
from dialin.execution.ray_jobs import RayJobs
from tests import others
from tests.conftest import ROOT

pytestmark = others.RAY

TUNE = """
import json, os, sys
import psutil
from dialin.execution.local_cluster import local_cluster
from dialin.planning.plan import ClusterShape

with local_cluster(ClusterShape(cpus=1)):
    from ray import tune
    from ray.exceptions import RayActorError
    from ray.tune import Callback, Trainable
    from ray.tune.schedulers import FIFOScheduler
    from dialin.execution.tune_internals import actor_of, error_of, error_text_of

    class Training(Trainable):
        def setup(self, config):
            self.fate = config["fate"]

        def step(self):
            if self.fate == "raise":
                raise ValueError("on purpose")
            if self.fate == "die":
                os._exit(1)
            return {"value": 1.0, "done": True}

    class ChoosesNone(FIFOScheduler):
        def choose_trial_to_run(self, controller):
            return None

        def on_trial_error(self, controller, trial):
            error, text = error_of(trial), error_text_of(trial)
            found[trial.config["fate"]] = [type(error).__mro__[0].__name__, isinstance(error, RayActorError), text]

    class Watch(Callback):
        def on_step_begin(self, iteration, trials, **info):
            found["actors"] = found.get("actors") or any(actor_of(trial) is not None for trial in trials)

    children = psutil.Process().children(recursive=True)
    found = {"listening": sorted({
        connection.laddr.ip
        for process in children
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    })}
    tune.run(
        Training,
        config={"fate": tune.grid_search(["fine", "raise", "die"])},
        scheduler=ChoosesNone(),
        callbacks=[Watch()],
        raise_on_failed_trial=False,
        storage_path=sys.argv[1],
        verbose=0,
    )
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """What the functions of `tune_internals` see in three trials: one that ends well, one that raises, one that dies."""
    command = [sys.executable, "-c", TUNE, str(tmp_path_factory.mktemp("tune"))]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        pytest.fail(
            "Ray Tune no longer starts pending trials by itself: StudyScheduler.choose_trial_to_run has to name them"
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_local_cluster_listens_on_loopback_only(seen):
    assert seen["listening"], "no process of the cluster listens: the test looks in the wrong place"
    addresses = {address.removeprefix("::ffff:") for address in seen["listening"]}  # of IPv6 sockets that take IPv4
    assert addresses <= {"127.0.0.1", "::1"}, (
        "Ray changed RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER: a local cluster listens on all interfaces"
    )


def test_a_running_trial_has_its_actor_in_its_temporary_state(seen):
    assert seen["actors"], "Ray Tune changed trial.temporary_state.ray_actor: tune_internals.actor_of finds no actor"


def test_an_exception_is_in_the_trials_pickled_error_file(seen):
    kind, is_actor_error, _ = seen["raise"]
    assert "ValueError" in kind, "Ray Tune changed trial.pickled_error_file: tune_internals.error_of finds no exception"
    assert not is_actor_error


def test_the_end_of_a_worker_is_an_actor_error(seen):
    _, is_actor_error, _ = seen["die"]
    assert is_actor_error, "Ray Tune no longer pickles a RayActorError when a worker dies: lost trials would fail"


def test_the_traceback_is_in_the_trials_error_file(seen):
    text = seen["raise"][2]
    assert "ValueError: on purpose" in text, "Ray Tune changed trial.error_file: tune_internals.error_text_of is empty"


def test_a_scheduler_can_refuse_buffered_results():
    from ray.tune.schedulers import TrialScheduler

    assert isinstance(TrialScheduler.supports_buffered_results, property), (
        "Ray Tune changed TrialScheduler.supports_buffered_results: StudyScheduler may get several results at once"
    )


@pytest.fixture
def dashboard():
    """A server that gives Ray's version, and answers all else with the status in `status`."""

    class Answers(BaseHTTPRequestHandler):
        status = 404

        def do_GET(self):
            is_version = self.path == "/api/version"
            body = json.dumps(
                {"version": "4", "ray_version": "2.60.0", "ray_commit": "x"} if is_version else {}
            ).encode()
            self.send_response(200 if is_version else self.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server, Answers
        server.shutdown()


def test_the_job_client_names_the_status_in_its_message(dashboard):
    server, answers = dashboard
    jobs = RayJobs(f"http://127.0.0.1:{server.server_port}")
    assert jobs.info("none") is None, "Ray's job client changed its message: ray_jobs._status_of finds no 404 in it"
    answers.status = 503
    with pytest.raises(ClusterError, match="Ray does not answer"):
        jobs.info("none")
