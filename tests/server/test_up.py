"""One server for several tests: studies side by side, one's own code, stopping, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError

import psutil
import pytest

from dialin.errors import NoResultError
from tests.faults.harness import ROOT, descendants
from tests.server.harness import PARTS, Up, wait_until
from tests.strangers import NEEDS_ROOT, as_nobody, reached_by_nobody

SLOW = """
name: %s
objective: {dataset: synthetic, epoch_seconds: 0.1}
space: {lr: {min: 1e-4, max: 1e-2, log: true}}
search: {sampler: random}
early_stopping: off
budget: {trials: %d, epochs: 9}
"""
TRAIN = """
from neighbour import height

def train(config, trial):
    for epoch in range(trial.epoch + 1, trial.epochs + 1):
        if trial.should_stop:
            return
        trial.report(epoch, height(config["x"]) * epoch / trial.epochs)
"""
OWN = """
name: own
objective: {python: "train.py:train"}
space: {x: {min: -1.0, max: 1.0}}
budget: {trials: 6, epochs: 3}
"""


@pytest.fixture(scope="module")
def up(tmp_path_factory):
    with Up(tmp_path_factory.mktemp("server"), DIALIN_ALLOW_CODE="1") as up:
        yield up


@pytest.fixture
def client(up):
    with up.client() as client:
        yield client


def write(folder, text):
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def readiness(up) -> dict:
    """What /readyz says, whether that is good or not; it has to say it within a few seconds."""
    try:
        with urllib.request.urlopen(f"{up.url}/readyz", timeout=8) as response:
            return json.load(response)
    except HTTPError as error:
        return json.load(error)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part", "says", "status"),
    [
        ("raylet/raylet", "ray", r"the raylet of node [\d.]+ has not answered for \d+ s", "unavailable"),
        ("gcs/gcs_server", "ray", r"Ray's GCS has not answered for \d+ s", "unavailable"),
        (PARTS["mlflow"], "mlflow", r"MLflow has not answered for \d+ s", "degraded"),
    ],
)
def test_what_hangs_is_named_and_well_again_afterwards(up, name, part, says, status):
    wait_until(lambda: readiness(up)["status"] == "ok", 30, "it is ready")
    frozen = [
        pid
        for pid, command in descendants(up.process.pid)
        if name in command and "dialin.supervisor.guard" not in command
    ]
    assert frozen
    try:
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: re.fullmatch(says, readiness(up)[part]) is not None, 15, f"{part}: {says}")
        assert readiness(up)["status"] == status
    finally:
        for pid in frozen:
            with suppress(ProcessLookupError):  # it may have been started again
                os.kill(pid, signal.SIGCONT)
    wait_until(lambda: readiness(up)["status"] == "ok", 30, "it is ready again")


def test_two_studies_share_the_cluster_and_one_alone_has_all_of_it(client, tmp_path):
    first = client.submit(write(tmp_path, SLOW % ("first", 24)))
    wait_until(lambda: first.refresh().info.concurrency == 2, 60, "all of the cluster")
    second = client.submit(write(tmp_path, SLOW % ("second", 4)))
    wait_until(lambda: second.refresh().info.concurrency == first.refresh().info.concurrency == 1, 60, "half each")
    wait_until(lambda: second.refresh().info.trials.running == 1, 60, "the second trains")
    second.wait(progress=False, timeout=120)
    wait_until(lambda: first.refresh().info.concurrency == 2, 60, "all of it again")
    first.wait(progress=False, timeout=120)
    assert (first.info.state, second.info.state) == ("complete", "complete")
    assert first.info.trials.complete == 24


def test_a_study_is_stopped_within_seconds_and_goes_on_where_it_was(client, tmp_path):
    study = client.submit(write(tmp_path, SLOW % ("stopped", 8)))
    wait_until(lambda: study.refresh().info.best is not None, 60, "a report")
    study.stop()
    wait_until(lambda: study.refresh().info.state == "interrupted", 30, "it has stopped")
    assert 0 < study.info.trials.complete + study.info.trials.waiting <= 8
    study.resume()
    study.wait(progress=False, timeout=120)
    assert (study.info.state, study.info.trials.complete) == ("complete", 8)


def test_ones_own_function_comes_with_its_neighbours_and_runs_in_the_studys_workers(up, client, tmp_path):
    (tmp_path / "train.py").write_text(TRAIN)
    (tmp_path / "neighbour.py").write_text("def height(x):\n    return 1.0 - x * x\n")
    study = client.submit(write(tmp_path, OWN))
    study.wait(progress=False, timeout=120)
    assert study.info.state == "complete", study.info
    best = study.best()
    assert best.value == pytest.approx(1.0 - best.params["x"] ** 2)
    assert "train.py" not in " ".join(path.name for path in (up.out / "server").iterdir())


def test_a_study_that_cannot_run_says_why(client, tmp_path):
    study = client.submit(write(tmp_path, SLOW.replace("synthetic, epoch_seconds: 0.1", '"npz:none.npz"') % ("bad", 2)))
    study.wait(progress=False, timeout=120)
    assert study.info.state == "failed"
    assert "none.npz" in study.info.reason
    with pytest.raises(NoResultError, match="is failed"):
        study.best()
    assert "none.npz" in study.logs()


AS_NOBODY = """
import json, sys, urllib.error, urllib.request

direct, server, pids = sys.argv[1], sys.argv[2], sys.argv[3:]
said = {}
def ask(name, url, method="GET", content=None):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, content, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            said[name] = [response.status, response.read(2000).decode(errors="replace")]
    except urllib.error.HTTPError as error:
        said[name] = [error.code, error.read().decode(errors="replace")]

change = json.dumps({"name": "evil", "artifact_location": "file:///tmp/evil"}).encode()
create = "/api/2.0/mlflow/experiments/create"
ask("health", direct + "/health")
ask("search", direct + "/api/2.0/mlflow/experiments/search?max_results=10")
ask("create", direct + create, "POST", change)
ask("traces", direct + "/v1/traces", "POST", b"{}")
ask("through", server + "/mlflow" + create, "POST", change)
ask("plain", server + "/mlflow/api/2.0/mlflow/experiments/search?max_results=10")
for pid in pids:
    try:
        open(f"/proc/{pid}/environ").read()
        said[pid] = "read"
    except (PermissionError, FileNotFoundError):
        pass
print(json.dumps(said))
"""


@NEEDS_ROOT
def test_another_user_of_the_machine_reaches_mlflow_by_way_of_the_server_only(up):
    """This server is open, so the other user is somebody there; but where files lie is not theirs to say."""
    import json

    mlflow = up.pid_of("mlflow")
    family = [str(pid) for pid in up.family()]
    done = as_nobody(sys.executable, "-I", "-c", AS_NOBODY, mlflow_address(mlflow), up.url, *family)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {said[name][0] for name in ("health", "search", "create", "traces")} == {401}, said
    assert said["through"][0] == 403
    assert "artifact_location='file:///tmp/evil': only the server decides where files lie" in said["through"][1]
    assert said["plain"][0] == 200
    assert "evil" not in said["plain"][1]
    assert not set(family) & set(said)


@pytest.fixture(scope="module")
def linked(up, tmp_path_factory):
    """A study that is complete in MLflow too, and the command lines of all processes while it trained."""
    with up.client() as client:
        study = client.submit(write(tmp_path_factory.mktemp("linked"), SLOW % ("linked", 2)))
        wait_until(lambda: study.refresh().info.best is not None, 60, "a report")
        lines = [line for _, line in descendants(up.process.pid)]
        study.wait(progress=False, timeout=120)
        wait_until(lambda: study.refresh().info.mirror_lag == 0, 60, "MLflow has everything")
        yield study, lines


def test_the_secret_is_in_no_command_line_and_in_no_job_that_ray_shows(up, linked):
    study, lines = linked
    environment = dict(
        line.split("=", 1) for line in Path(f"/proc/{up.pid_of('api')}/environ").read_text().split("\0") if "=" in line
    )
    secret = environment["DIALIN_MLFLOW_SECRET"]
    assert any("dialin.tracking.recorder" in line for line in lines)
    assert not any(secret in line for line in lines)
    asked = urllib.request.Request(f"{environment['DIALIN_RAY_ADDRESS']}/api/jobs/")
    asked.add_header("Authorization", f"Bearer {environment['RAY_AUTH_TOKEN']}")
    with urllib.request.urlopen(asked, timeout=30) as response:
        jobs = response.read().decode()
    assert study.id in jobs
    assert secret not in jobs


def test_the_link_of_a_study_leads_through_the_server_to_its_run(up, linked, tmp_path):
    from mlflow import MlflowClient

    study, _ = linked
    link = study.info.links.mlflow
    found = re.fullmatch(r"/mlflow/#/experiments/(\d+)/runs/(\w+)\?workflowType=machine_learning", link)
    assert found, link
    assert study.link("mlflow") == up.url + link
    mlflow = MlflowClient(tracking_uri=f"{up.url}/mlflow")
    run = mlflow.get_run(found[2])
    assert (run.info.experiment_id, run.info.status, run.info.run_name) == (found[1], "FINISHED", study.id)
    path = mlflow.download_artifacts(run.info.run_id, "best_config.yaml", str(tmp_path))
    assert Path(path).read_text() == study.best_yaml()
    mlflow.set_tag(run.info.run_id, "liked", "yes")
    mlflow.log_text(run.info.run_id, "mine", "notes/own.txt")
    assert [each.path for each in mlflow.list_artifacts(run.info.run_id, "notes")] == ["notes/own.txt"]
    assert mlflow.get_run(run.info.run_id).data.tags["liked"] == "yes"
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(8 * 2**20))
    mlflow.log_artifact(run.info.run_id, str(large))
    (tmp_path / "back").mkdir()
    back = mlflow.download_artifacts(run.info.run_id, "large.bin", str(tmp_path / "back"))
    assert Path(back).read_bytes() == large.read_bytes()


def mlflow_address(pid: int) -> str:
    """Where MLflow listens, as the kernel says."""
    (port,) = {one.laddr.port for one in psutil.Process(pid).net_connections("tcp") if one.status == "LISTEN"}
    return f"http://127.0.0.1:{port}"


def test_all_parts_listen_on_loopback_only(up):
    """By what the kernel says of the processes' sockets."""
    listening = set()
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                listening.add((fields[9], fields[1].rpartition(":")[0]))
    ours = set()
    for pid in up.family():
        try:
            links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        ours |= {link[8:-1] for link in links if link.startswith("socket:[")}
    addresses = {address for inode, address in listening if inode in ours}
    assert addresses <= {"0100007F", "0000000000000000FFFF00000100007F"}, addresses
    assert addresses


@NEEDS_ROOT
def test_another_user_reads_and_writes_nothing_of_it(up):
    """Neither in its folder, which lies where everybody can enter, nor in Ray's below /tmp."""
    (ray,) = {
        next(parent for parent in Path(path).parents if parent.name.startswith("dialin-head-"))
        for _, line in up.processes()
        for path in line.split()
        if path.startswith("/tmp/dialin-head-")
    }
    for folder in (up.out, ray):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert reached_by_nobody(folder) == reached_by_nobody(folder, "-writable") == []
    assert {stat.S_IMODE(path.stat().st_mode) for path in up.out.glob("*.db*")} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (up.out / "server").glob("*.log")} == {0o600}


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--data", "{data}", "--port", "0"], {}, "--port 0; allowed: 1 to 65535"),
        (["--data", "{new}", "--port", "{port}"], {}, "port {port} on 127.0.0.1 is taken"),
        (["--data", "{file}", "--port", "{free}"], {}, "{file} is a file; studies are kept in a folder"),
        (["--data", "/proc/nope", "--port", "{free}"], {}, "/proc/nope cannot be used as the folder for studies"),
        (
            ["--data", "{data}", "--port", "{free}"],
            {},
            "another server is running on the folder {data}; stop it, or name another folder",
        ),
        (["--data", "{new}", "--host", "0.0.0.0", "--port", "{free}"], {}, "it needs an admin's token"),
        (["--data", "{new}", "--port", "{free}"], {"DIALIN_MAX_RUNNING": "0"}, "DIALIN_MAX_RUNNING='0'; allowed"),
        (["--data", "{new}", "--port", "{free}"], {"DIALIN_ALLOWED_HOSTS": "*"}, "name each host"),
    ],
)
def test_what_is_refused(up, tmp_path, arguments, environment, says):
    from tests.faults.harness import free_port

    names = {"data": str(up.out), "port": str(up.port), "free": str(free_port()), "new": str(tmp_path / "new")}
    (tmp_path / "file").touch()
    names["file"] = str(tmp_path / "file")
    command = [sys.executable, "-m", "dialin", "up", *[each.format(**names) for each in arguments]]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert says.format(**names) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_health_check_of_another_server_does_not_pass_for_the_service(tmp_path):
    """The other server answers on the port of the service, which could not bind it."""
    import http.server
    import threading

    from dialin.errors import ServerError
    from dialin.supervisor.service import Service

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        program = "import http.server, sys; http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), None)"
        command = [sys.executable, "-c", program, str(other.server_port)]
        service = Service("MLflow", command, os.environ, tmp_path / "log", other.server_port, lambda: "")
        with pytest.raises(ServerError, match=r"MLflow did not start\n(.|\n)*Address already in use"):
            service.start()
        service.ask_to_end()
        service.wait()
        service.process.stdin.close()
        other.shutdown()


def test_a_proxy_sees_no_secret_of_the_services(monkeypatch, tmp_path):
    """Many accounts have a proxy in their environment. It could not reach loopback either."""
    import http.server
    import threading

    from dialin.server.up import _environment
    from dialin.settings import Settings
    from dialin.supervisor.service import probe_http
    from dialin.tracking.mirror import answers

    seen = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with http.server.HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))  # but does not listen
            url = f"http://127.0.0.1:{closed.getsockname()[1]}"
            assert "refused" in probe_http(f"{url}/health", "secret")
            monkeypatch.setenv("NO_PROXY", "example.org")
            environment = _environment(Settings(tmp_path, tmp_path))
            assert environment["NO_PROXY"].startswith("example.org,127.0.0.1")
            for name in ("NO_PROXY", "no_proxy"):
                monkeypatch.setenv(name, environment[name])
            assert not answers(url, secret="secret")
        proxy.shutdown()
    assert seen == []


def test_ray_ends_if_its_port_is_taken_and_is_started_on_another(tmp_path, monkeypatch):
    """Another process takes the port after it was chosen."""
    from dialin.server import up as embedded
    from dialin.supervisor.scratch_dir import remove_scratch, scratch_for_ray
    from dialin.supervisor.supervise import ServiceSlot
    from tests.faults.harness import free_port

    environment = {**os.environ, **embedded._RAY, "RAY_AUTH_TOKEN": "0" * 64}
    temporary = scratch_for_ray("dialin-test-")
    ports: list[int] = []

    def make():
        ports.append(taken.getsockname()[1] if not ports else free_port())
        return embedded._ray(ports[-1], environment, tmp_path, temporary, 10.0)

    with socket.create_server(("127.0.0.1", 0)) as taken:
        slot = ServiceSlot(make)
        try:
            assert slot.start()
            assert slot.service.port == ports[1] != ports[0]
            assert "already occupied" in (tmp_path / "ray.log").read_text()
        finally:
            slot.service.ask_to_end(for_good=True)
            slot.service.wait()
            remove_scratch(temporary)
