"""What the cluster has, for requests that cannot wait for Ray."""

from __future__ import annotations

import threading

from dialin.errors import ClusterError
from dialin.execution.local_cluster import local_shape
from dialin.execution.ray_jobs import Jobs
from dialin.planning.plan import ClusterShape

WAIT_SECONDS = 1.0


class ClusterShapeProbe:
    """What the cluster has, or had when it last answered; before its first answer, what this machine has.

    One thread at a time asks Ray. A caller waits for the answer at most WAIT_SECONDS, and not at all while an earlier
    caller has waited in vain. Thread safe.
    """

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._last = local_shape()
        self._lock = threading.Lock()
        self._asked: threading.Event | None = None  # set when the answer is there; None: Ray is not being asked
        self._hangs = False

    def __call__(self) -> ClusterShape:
        with self._lock:
            if self._asked is None:
                self._asked, self._hangs = threading.Event(), False
                threading.Thread(target=self._ask, args=(self._asked,), name="cluster-shape", daemon=True).start()
            asked = self._asked
        if not self._hangs and not asked.wait(WAIT_SECONDS):
            self._hangs = True
        return self._last

    def _ask(self, asked: threading.Event) -> None:
        try:
            now = self._jobs.shape()
            if now.cpus > 0:  # a head that has just started does not know its own node yet
                self._last = now
        except ClusterError:
            pass  # readiness reports it; the last answer stands
        finally:
            with self._lock:
                self._asked = None
            asked.set()
