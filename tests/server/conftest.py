"""The application over a database of its own and jobs that run nowhere."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from dialin.execution.ray_jobs import JobInfo
from dialin.planning.plan import ClusterShape
from dialin.server.app import create_app
from dialin.settings import ServerSettings, Settings
from dialin.store.tokens import Tokens

SPEC = """\
name: small
objective: {dataset: synthetic}
space:
  lr: {min: 1e-4, max: 1e-2, log: true}
  batch_size: {min: 16, max: 128, log: true}
budget: {trials: 4, epochs: 3}
"""


class FakeJobs:
    """Jobs as a dictionary: a test says how they are."""

    def __init__(self, cpus: float = 2.0) -> None:
        self.cpus = cpus
        self.jobs: dict[str, JobInfo] = {}
        self.submitted: list[str] = []
        self.stopped: list[str] = []
        self.error: Exception | None = None

    def submit(self, job: str, study_id: str) -> None:
        self._fail()
        assert job.startswith(study_id)
        self.submitted.append(job)
        self.jobs.setdefault(job, JobInfo(False, "running"))

    def info(self, job: str) -> JobInfo | None:
        self._fail()
        return self.jobs.get(job)

    def stop(self, job: str) -> None:
        self._fail()
        self.stopped.append(job)

    def shape(self) -> ClusterShape:
        self._fail()
        return ClusterShape(self.cpus)

    def check(self, asks) -> str:
        self._fail()
        return "ok" if self.cpus else "has no nodes"

    def end(self, job: str, message: str = "exit code 1") -> None:
        self.jobs[job] = JobInfo(True, message)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(tmp_path / "out", tmp_path / "data")


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def app(settings, jobs):
    # Once an hour: nothing is started behind a test's back.
    app = create_app(settings, ServerSettings(poll_seconds=3600), jobs)
    yield app
    app.state.dialin.close()


@pytest.fixture
def client(app):
    """Without the reconciler, which a client as a context manager would start."""
    client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
    yield client
    client.close()


@pytest.fixture
def tokens(settings):
    settings.out.mkdir(parents=True, exist_ok=True)
    with Tokens(settings.database) as tokens:
        yield tokens


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def submit(client, text: str = SPEC, **keywords):
    headers = {"Content-Type": "application/yaml", **keywords.pop("headers", {})}
    return client.post("/api/v1/studies", content=text, headers=headers, **keywords)
