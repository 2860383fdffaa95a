"""What the cluster has, for requests that must not wait for it."""

from __future__ import annotations

import threading

from dialin.errors import ClusterError
from dialin.execution.local_cluster import local_shape
from dialin.execution.ray_jobs import Jobs
from dialin.planning.plan import ClusterShape

WAIT_SECONDS = 1.0


class KnownShape:
    """What the cluster has, or had when it last answered; before that, what this machine has. It is asked by one thread
    at a time, and waited for no longer than WAIT_SECONDS; while it hangs, not at all."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._last = local_shape()
        self._lock = threading.Lock()
        self._asked: threading.Event | None = None  # set once there is an answer
        self._hangs = False

    def __call__(self) -> ClusterShape:
        with self._lock:
            if self._asked is None:
                self._asked, self._hangs = threading.Event(), False
                threading.Thread(target=self._ask, args=(self._asked,), name="shape", daemon=True).start()
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
            pass  # the last one stands
        finally:
            with self._lock:
                self._asked = None
            asked.set()
