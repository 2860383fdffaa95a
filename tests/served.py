"""A real server for tests: the application behind uvicorn on a port that is free, its jobs processes of this machine
that train in line. Ray is all that is not there."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import uvicorn

from dialin.execution.ray_jobs import JobInfo
from dialin.planning.plan import ClusterShape
from dialin.server.app import create_app
from dialin.server.connections import ConnectionLimits
from dialin.server.serve import uvicorn_config
from dialin.settings import MLFLOW_SECRET, ServerSettings, Settings
from tests.embedded_mlflow import Mlflow

ROOT = Path(__file__).parent.parent
_DRIVER = """
import sys
from rich.console import Console
from dialin.server.job import redirect_output
from dialin.study_flow.progress import Progress
from dialin.study_flow.run import resume_study
from dialin.paths import OutputFolder
from dialin.settings import Settings
from dialin.store.submissions import Submissions

study, job = sys.argv[1:]
settings = Settings.read()
redirect_output(OutputFolder(settings.out).study(study).logs / "driver.log")
with Submissions(settings.database) as submissions:
    if submissions.mark_started(study, job):
        with Progress(Console(width=200, no_color=True)) as progress:
            print(resume_study(study, settings, progress, "inline").result.state, flush=True)
"""


class ProcessJobs:
    """Jobs as processes. Whatever still runs is ended by `close`."""

    def __init__(self, settings: Settings) -> None:
        self._environment = {**os.environ, "DIALIN_OUT": str(settings.out)}
        if settings.mlflow_uri is not None and settings.mlflow_secret is not None:
            self._environment |= {"DIALIN_MLFLOW_URI": settings.mlflow_uri, MLFLOW_SECRET: settings.mlflow_secret}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def submit(self, job: str, study_id: str) -> None:
        if job not in self._processes:
            command = [sys.executable, "-c", _DRIVER, study_id, job]
            self._processes[job] = subprocess.Popen(command, env=self._environment, stdin=subprocess.DEVNULL)

    def info(self, job: str) -> JobInfo | None:
        process = self._processes.get(job)
        return None if process is None else JobInfo(process.poll() is not None, f"exit code {process.returncode}")

    def stop(self, job: str) -> None:
        process = self._processes.get(job)
        if process is not None and process.poll() is None:
            process.terminate()

    def shape(self) -> ClusterShape:
        return ClusterShape(2.0)

    def check(self, asks) -> str:
        return "ok"

    def close(self) -> None:
        for job, process in self._processes.items():
            self.stop(job)
            process.wait(60)


@contextmanager
def serving(out: Path, *, allow_code: bool = False, mlflow: Mlflow | None = None) -> Iterator[str]:
    """The address of a server over this folder, without MLflow or with one that it is the way to."""
    settings = Settings(out, out / "data", allow_code=allow_code)
    if mlflow is not None:
        settings = replace(settings, mlflow_uri=mlflow.uri, mlflow_secret=mlflow.secret)
    jobs = ProcessJobs(settings)
    app = create_app(settings, ServerSettings(poll_seconds=0.1), jobs)
    config = uvicorn_config(app, "127.0.0.1", 0, ConnectionLimits())
    server, socket = uvicorn.Server(config), config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]}, name="server")
    thread.start()
    try:
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"  # who connects before it is up waits in the socket's queue
    finally:
        server.should_exit = True
        thread.join(30)
        socket.close()
        jobs.close()
        app.state.dialin.close()
