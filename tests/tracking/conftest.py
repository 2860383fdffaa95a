from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from dialin.paths import sqlite_url
from tests.events.conftest import close_logs  # noqa: F401  a fixture

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory):
    """An empty MLflow database; making one takes seconds, copying it none."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(tracking_uri=sqlite_url(path)).search_experiments()
    return path


@pytest.fixture
def database(migrated, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copy(migrated, path)
    return path


@pytest.fixture
def server(database, tmp_path):
    """Starts and ends a real MLflow server on one port, as often as a test likes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (tmp_path / "server.log").open("ab")
    started = []

    def start():
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--backend-store-uri",
            sqlite_url(database),
            "--workers",
            "1",
        ]
        command += ["--host", "127.0.0.1", "--port", str(port), "--default-artifact-root", str(tmp_path / "served")]
        started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
                    return f"http://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.1)
        raise TimeoutError((tmp_path / "server.log").read_text())

    def stop():
        process = started.pop()
        os.killpg(process.pid, signal.SIGKILL)  # its own session: the server and its workers, nobody else
        process.wait()

    yield start, stop
    while started:
        stop()
    log.close()
