"""Drivers as Ray Jobs: one a study, on the cluster, with nothing of ours in its description but the study's id.

The entrypoint is the same for every job (a shell runs it), ids are made by us of letters, digits and dashes (Ray would
take `../../x` for one), and no secret is in the runtime environment, which everybody who sees the job can read.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from dialin.errors import ClusterError
from dialin.execution.health import check_cluster
from dialin.execution.local_cluster import be_quiet
from dialin.planning.plan import ClusterShape
from dialin.supervisor.commands import RUN_MODULE

ENTRYPOINT = shlex.join(["python", *RUN_MODULE, "dialin.server.job"])
NODES_SECONDS = 60.0
_ASK_SECONDS = 3.0  # that the dashboard may take to say how the cluster is
STUDY, JOB = "DIALIN_STUDY", "DIALIN_JOB"
_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,120}")
_NOT_FOUND, _REFUSED = "status code 404", "status code 500"


@dataclass(frozen=True)
class JobInfo:
    """Whether a job has ended, and what Ray says of it."""

    ended: bool
    message: str


class Jobs(Protocol):
    """What runs, and how to start and stop it."""

    def submit(self, job: str, study_id: str) -> None:
        """Start a job, unless it is there already."""

    def info(self, job: str) -> JobInfo | None:
        """None: there is no such job."""

    def stop(self, job: str) -> None:
        """Ask a job to end: SIGTERM, and three seconds later SIGKILL. Nothing happens to one that has ended."""

    def shape(self) -> ClusterShape:
        """What the cluster's nodes have together."""

    def check(self, asks: Callable[[str], None]) -> str:
        """`ok`, or what of the cluster is wrong; `asks` is told which part is asked. Raises TimeoutError when that one
        does not answer."""


class RayJobs:
    """The jobs of the cluster whose dashboard is at `address`. The token is the environment's. Every method raises
    ClusterError when Ray does not answer."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._client: Any = None

    def submit(self, job: str, study_id: str) -> None:
        if not _ID.fullmatch(job):
            raise ValueError(f"job {job!r}: {_ID.pattern}")
        environment = {STUDY: study_id, JOB: job}
        with self._reached():
            try:
                self._sdk().submit_job(entrypoint=ENTRYPOINT, submission_id=job, runtime_env={"env_vars": environment})
            except RuntimeError as error:
                # Ray says 500 to an id that it has already: then somebody was faster, which is as good.
                if _REFUSED not in str(error) or self.info(job) is None:
                    raise

    def info(self, job: str) -> JobInfo | None:
        with self._reached():
            try:
                found = self._sdk().get_job_info(job)
            except RuntimeError as error:
                if _NOT_FOUND in str(error):
                    return None
                raise
        message = str(found.message or "").partition("\n")[0].partition(", last available logs")[0].strip()
        return JobInfo(found.status.is_terminal(), message or str(found.status.value).lower())

    def stop(self, job: str) -> None:
        with self._reached():
            try:
                self._sdk().stop_job(job)
            except RuntimeError as error:
                if _NOT_FOUND not in str(error):
                    raise

    def shape(self) -> ClusterShape:
        be_quiet()
        from ray.util.state import list_nodes

        with self._reached():
            nodes = list_nodes(address=self._address, filters=[("state", "=", "ALIVE")])
        return shape_of([dict(node.resources_total) for node in nodes])

    def check(self, asks: Callable[[str], None]) -> str:
        be_quiet()
        import requests
        from ray.job_submission import JobSubmissionClient  # noqa: F401  before anybody is asked: it takes seconds

        asks("Ray's dashboard")
        with self._reached():
            try:
                return check_cluster(self._fetch, asks)
            except requests.Timeout as error:
                raise TimeoutError(str(error)) from error

    def _fetch(self, path: str) -> Any:
        response = self._sdk()._do_request("GET", path, timeout=_ASK_SECONDS)
        response.raise_for_status()
        return response.json()

    def _sdk(self) -> Any:
        if self._client is None:
            be_quiet()
            from ray.job_submission import JobSubmissionClient

            self._client = JobSubmissionClient(self._address)  # asks for Ray's version at once
        return self._client

    @contextmanager
    def _reached(self) -> Iterator[None]:
        import requests  # what Ray's client speaks through

        try:
            yield
        except (ConnectionError, requests.RequestException, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ClusterError(f"Ray does not answer at {self._address}: {first[:300]}") from error
        except Exception as error:
            if type(error).__module__.startswith("ray."):  # its state API has errors of its own
                raise ClusterError(f"Ray does not answer at {self._address}: {str(error)[:300]}") from error
            raise


def shape_of(resources: list[Mapping[str, float]]) -> ClusterShape:
    """The processors and GPUs of nodes together."""
    cpus = sum(float(node.get("CPU", 0.0)) for node in resources)
    return ClusterShape(cpus, sum(float(node.get("GPU", 0.0)) for node in resources))


@contextmanager
def joined_cluster() -> Iterator[ClusterShape]:
    """Within a job: connected to its cluster; what that has. Raises ClusterError when it is not there."""
    be_quiet()
    import logging

    import ray

    try:
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"Ray cannot be joined: {str(error).partition(chr(10))[0]}") from error
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        yield _there(ray)
    finally:
        ray.shutdown()


def _there(ray: Any) -> ClusterShape:
    """What the cluster has, once it has anything: a head that has just started does not know its own node yet."""
    deadline = time.monotonic() + NODES_SECONDS
    while (shape := shape_of([node["Resources"] for node in ray.nodes() if node["Alive"]])).cpus == 0:
        if time.monotonic() > deadline:
            raise ClusterError(f"the cluster has had no node with processors for {NODES_SECONDS:.0f} s")
        time.sleep(0.5)
    return shape
