"""Runs drivers as Ray Jobs on the cluster, one for each study.

Everyone with access to the cluster can read a job's description, so it holds the study's id and no secret. The
entrypoint is the same for every job, because a shell runs it. Ids consist of letters, digits and dashes: Ray would
accept `../../x` and write the job's log there.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dialin.errors import ClusterError
from dialin.execution.health import check_cluster
from dialin.execution.local_cluster import set_ray_defaults
from dialin.planning.plan import ClusterShape
from dialin.supervisor.commands import RUN_MODULE

ENTRYPOINT = shlex.join(["python", *RUN_MODULE, "dialin.server.job"])
NODES_SECONDS = 60.0
"""How long a job waits for the first node of its cluster."""
_ASK_SECONDS = 3.0
"""How long the dashboard may take to answer about the cluster's health."""
STUDY, JOB = "DIALIN_STUDY", "DIALIN_JOB"
"""Environment variables of a job: the study that it drives, and its own id."""
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,120}")


@dataclass(frozen=True)
class JobInfo:
    """The state of a job."""

    ended: bool
    """Whether it has ended, successfully or not."""
    message: str
    """The first line of Ray's message about it."""


class Jobs(Protocol):
    """Starts, watches and stops the jobs that run drivers. Every method raises ClusterError if Ray does not answer."""

    def submit(self, job: str, study_id: str) -> None:
        """Start a job, unless one with this id exists."""

    def info(self, job: str) -> JobInfo | None:
        """Return the state of a job; None if no job has this id."""

    def stop(self, job: str) -> None:
        """Ask a job to end: SIGTERM, then SIGKILL after three seconds. Nothing changes for a job that has ended."""

    def shape(self) -> ClusterShape:
        """Return the processors and GPUs of all nodes together."""

    def check(self, asks: Callable[[str], None]) -> str:
        """Return `ok`, or what is wrong with the cluster. `asks` is called with the name of the service
        that is asked next.

        Raises TimeoutError if that service does not answer.
        """


class RayJobs:
    """The jobs of the Ray cluster whose dashboard is at `address`, an http:// URL.

    Ray's token comes from the environment, or from the file that Ray documents for it.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: Any = None

    def submit(self, job: str, study_id: str) -> None:
        """Start a job, unless one with this id exists. Raises ValueError for an id that is not safe in a path."""
        if not _ID.fullmatch(job):
            raise ValueError(f"job id {job!r} is not allowed; it has to match {_ID.pattern}")
        environment = {STUDY: study_id, JOB: job}
        with self._reached():
            try:
                self._sdk().submit_job(entrypoint=ENTRYPOINT, submission_id=job, runtime_env={"env_vars": environment})
            except RuntimeError as error:
                # Ray answers 500 if the id exists, which is no error here: another server has started the job.
                if _status_of(error) != 500 or self.info(job) is None:
                    raise

    def info(self, job: str) -> JobInfo | None:
        """Return the state of a job; None if no job has this id."""
        with self._reached():
            try:
                found = self._sdk().get_job_info(job)
            except RuntimeError as error:
                if _status_of(error) == 404:
                    return None
                raise
        message = str(found.message or "").partition("\n")[0].partition(", last available logs")[0].strip()
        return JobInfo(found.status.is_terminal(), message or str(found.status.value).lower())

    def stop(self, job: str) -> None:
        """Ask a job to end."""
        with self._reached():
            try:
                self._sdk().stop_job(job)
            except RuntimeError as error:
                if _status_of(error) != 404:
                    raise

    def shape(self) -> ClusterShape:
        """Return the processors and GPUs of all nodes together."""
        set_ray_defaults()
        from ray.util.state import list_nodes
        from ray.util.state.exception import RayStateApiException

        with self._reached():
            try:
                nodes = list_nodes(address=self._address, filters=[("state", "=", "ALIVE")])
            except RayStateApiException as error:
                raise ConnectionError(str(error)) from error
        return shape_of([dict(node.resources_total) for node in nodes])

    def check(self, asks: Callable[[str], None]) -> str:
        """Return `ok`, or what is wrong with the cluster."""
        import requests

        asks("Ray's dashboard")
        with self._reached():
            try:
                return check_cluster(self._fetch, asks)
            except requests.Timeout as error:
                raise TimeoutError(str(error)) from error

    def _fetch(self, path: str) -> Any:
        """Return the dashboard's answer to a path, parsed. Ray's job client has no public method for other paths."""
        import requests

        headers = {"Authorization": f"Bearer {token}"} if (token := ray_token()) else {}
        response = requests.get(f"{self._address}{path}", headers=headers, timeout=_ASK_SECONDS)
        response.raise_for_status()
        return response.json()

    def _sdk(self) -> Any:
        if self._client is None:
            set_ray_defaults()
            from ray.job_submission import JobSubmissionClient

            # The constructor asks Ray for its version, so a cluster that is down raises here.
            self._client = JobSubmissionClient(self._address)
        return self._client

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Translate the errors of Ray's clients, which use requests, to ClusterError."""
        import requests

        try:
            yield
        except (ConnectionError, requests.RequestException, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ClusterError(f"Ray does not answer at {self._address}: {first[:300]}") from error


def _status_of(error: RuntimeError) -> int | None:
    """Return the HTTP status in an error of Ray's job client, which gives it in the message only.

    `tests/execution/test_upstream.py` has a canary test for it.
    """
    found = re.search(r"status code (\d{3})", str(error))
    return int(found.group(1)) if found else None


def ray_token() -> str:
    """Return the token of Ray's clusters from the places that Ray documents; empty if there is none."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def shape_of(resources: list[Mapping[str, float]]) -> ClusterShape:
    """Return the processors and GPUs of nodes together, from Ray's tables of their resources."""
    cpus = sum(float(node.get("CPU", 0.0)) for node in resources)
    return ClusterShape(cpus, sum(float(node.get("GPU", 0.0)) for node in resources))


@contextmanager
def joined_cluster() -> Iterator[ClusterShape]:
    """Connect a job to its cluster, and yield the cluster's processors and GPUs. Raises ClusterError if the cluster
    cannot be reached."""
    set_ray_defaults()
    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"Ray cannot be joined: {str(error).partition(chr(10))[0]}") from error
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        yield _wait_for_nodes(ray)
    finally:
        ray.shutdown()


def _wait_for_nodes(ray: Any) -> ClusterShape:
    """Wait until the cluster has processors: a head that has just started has not registered its own node yet."""
    deadline = time.monotonic() + NODES_SECONDS
    while (shape := shape_of([node["Resources"] for node in ray.nodes() if node["Alive"]])).cpus == 0:
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the cluster has had no node with processors for {NODES_SECONDS:.0f} s; start one with: ray start"
            )
        time.sleep(0.5)
    return shape
