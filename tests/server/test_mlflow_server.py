"""MLflow's server of `dialin up`: nothing of it without the secret, and nothing outside its folder with it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError

import pytest

from dialin.server.mlflow_server import MOST_CONNECTIONS
from dialin.settings import MLFLOW_SECRET
from dialin.tracking.local_artifacts import path_inside
from dialin.tracking.recorder_process import recorder_command
from tests import others
from tests.embedded_mlflow import running_mlflow
from tests.tracking.studies import contents, fill

pytestmark = others.MLFLOW
ROUTES = [
    ("GET", "/"),
    ("GET", "/health"),
    ("GET", "/version"),
    ("GET", "/static-files/favicon.ico"),
    ("GET", "/get-artifact?path=a&run_uuid=b"),
    ("POST", "/api/2.0/mlflow/experiments/create"),
    ("POST", "/ajax-api/2.0/mlflow/upload-artifact?path=a&run_uuid=b"),
    ("PUT", "/api/2.0/mlflow-artifacts/artifacts/a"),
    ("GET", "/ajax-api/2.0/mlflow-artifacts/artifacts/a"),
    ("POST", "/graphql"),
    ("POST", "/v1/traces"),
    ("POST", "/ajax-api/3.0/jobs/search"),
    ("POST", "/gateway/mlflow/v1/chat/completions"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/message"),
    ("GET", "/api/3.0/mlflow/mcp-servers"),
    ("GET", "/api/3.0/mlflow/server-info"),
    ("OPTIONS", "/api/2.0/mlflow/runs/search"),
]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture(scope="module")
def mlflow(out):
    with running_mlflow(out) as mlflow:
        yield mlflow


def ask(mlflow, method, path, content=None, shown=None):
    """The status and the body of an answer."""
    headers = {"Content-Type": "application/json"}
    shown = f"Bearer {mlflow.secret}" if shown is None else shown
    request = urllib.request.Request(mlflow.uri + path, content, headers, method=method)
    if shown:
        request.add_unredirected_header("Authorization", shown)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except HTTPError as error:
        return error.code, error.read()


def call(mlflow, path, **fields):
    status, content = ask(mlflow, "POST", f"/api/2.0/mlflow/{path}", json.dumps(fields).encode())
    assert status == 200, content
    return json.loads(content)


def test_no_route_answers_who_does_not_know_the_secret(mlflow):
    for shown in ("", "Bearer another", "Bearer ", "Basic ZGlhbGluOmFub3RoZXI=", mlflow.secret):
        assert {ask(mlflow, method, path, b"{}", shown)[0] for method, path in ROUTES} == {401}, shown
    known = {path: ask(mlflow, method, path)[0] for method, path in ROUTES[:4]}
    assert set(known.values()) == {200}, known


def test_a_websocket_is_refused(mlflow):
    host, port = mlflow.uri.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert line.recv(1000).startswith(b"HTTP/1.1 401")


def test_a_header_of_any_size_is_not_kept(mlflow):
    host, port = mlflow.uri.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(b"GET / HTTP/1.1\r\nAuthorization: " + b"x" * 200_000)
        assert line.recv(1000).startswith(b"HTTP/1.1 4")


def test_half_headers_of_others_keep_nobody_out(mlflow):
    host, port = mlflow.uri.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for _ in range(MOST_CONNECTIONS + 20):
            line = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
            line.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert ask(mlflow, "GET", "/health")[0] == 200


def test_a_link_where_a_runs_folder_would_be_is_not_followed(mlflow, out, tmp_path):
    """Whoever has stored the location, at whatever time: here it is one who knows the secret."""
    secret_file, evil = tmp_path / "private" / "shadow", tmp_path / "evil"
    secret_file.parent.mkdir()
    secret_file.write_text("root's")
    for name, location in (("outside", evil.as_uri()), ("plain", str(evil)), ("inside", None)):
        made = {"artifact_location": location} if location else {}
        experiment = call(mlflow, "experiments/create", name=name, **made)["experiment_id"]
        run = call(mlflow, "runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
        root = evil / run if location else out / "mlflow-artifacts" / experiment / run
        root.mkdir(parents=True)
        (root / "artifacts").symlink_to(secret_file.parent)
        for path in (
            f"/get-artifact?path=shadow&run_uuid={run}",
            f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/shadow",
        ):
            status, content = ask(mlflow, "GET", path)
            assert (status in (403, 404), b"root's" in content) == (True, False), (name, path, content)
        for method, path in (
            ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=authorized_keys"),
            ("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/authorized_keys"),
        ):
            status, content = ask(mlflow, method, path, b"mine")
            assert (status == 200) is (name != "inside" and method == "PUT"), (name, content)
            assert [each.name for each in secret_file.parent.iterdir()] == ["shadow"]
        status, content = ask(mlflow, "GET", f"/api/2.0/mlflow/artifacts/list?run_id={run}")
        assert b"shadow" not in content, content


def test_files_of_a_run_are_written_and_read_and_are_the_accounts_alone(mlflow, out):
    experiment = call(mlflow, "experiments/create", name="files")["experiment_id"]
    run = call(mlflow, "runs/create", experiment_id=experiment)["run"]["info"]["run_id"]
    assert ask(mlflow, "POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path=a/b.txt", b"text")[0] == 200
    assert ask(mlflow, "GET", f"/get-artifact?path=a/b.txt&run_uuid={run}") == (200, b"text")
    folder = out / "mlflow-artifacts" / experiment / run / "artifacts"
    (folder / "link").symlink_to("/etc/hostname")
    listed = json.loads(ask(mlflow, "GET", f"/api/2.0/mlflow/artifacts/list?run_id={run}")[1])
    assert [each["path"] for each in listed["files"]] == ["a"]
    assert ask(mlflow, "GET", f"/get-artifact?path=link&run_uuid={run}")[0] == 403
    for path in (out / "mlflow-artifacts", folder, folder / "a" / "b.txt"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_recorder_shows_the_secret_whatever_else_lies_about(mlflow, out, tmp_path):
    """Credentials for other servers in the account's home, and a proxy in its environment, change nothing."""
    home = tmp_path / "home"
    (home / ".mlflow").mkdir(parents=True)
    (home / ".mlflow" / "credentials").write_text(
        "[mlflow]\nmlflow_tracking_username = me\nmlflow_tracking_password = other\n"
    )
    (home / ".netrc").write_text("default login me password other\n")
    (home / ".netrc").chmod(0o600)
    fill(tmp_path / "spool").abandon()  # it is written by the recorder below
    environment = {
        **os.environ,
        "HOME": str(home),
        "HTTP_PROXY": "http://127.0.0.1:9",
        "MLFLOW_TRACKING_TOKEN": "another",
        MLFLOW_SECRET: mlflow.secret,
    }
    command = recorder_command(tmp_path / "spool", mlflow.uri, None, patience_seconds=5)
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, mlflow.secret in " ".join(command)) == (0, False), done.stderr
    from mlflow import MlflowClient

    contents(MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}"), 5, 3)


def test_it_does_not_start_without_a_secret(tmp_path):
    command = [sys.executable, "-m", "dialin.server.mlflow_server", "--port", "1"]
    command += ["--database", str(tmp_path / "a.db"), "--artifacts", str(tmp_path / "a")]
    environment = {name: value for name, value in os.environ.items() if name != MLFLOW_SECRET}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"error: {MLFLOW_SECRET} is not set" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_path_is_inside_without_links_only(tmp_path):
    root = tmp_path.resolve() / "root"
    (root / "a").mkdir(parents=True)
    (root / "link").symlink_to(root / "a")
    (root / "out").symlink_to(tmp_path)
    for path, is_inside in (("a/b", True), ("", True), ("link", False), ("out/x", False), ("../root2", False)):
        assert path_inside(root, root / path) is is_inside, path
    assert not path_inside(root, Path("/etc"))
