"""The time after which a service that fails its health checks counts as hung."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LEAST_PROBES = 3  # in a row; a single one may fail because the whole machine paused
MOST_LOAD = 4.0


class HealthTimeout:
    """Measures for how long a service has failed its health checks.

    It counts as hung once `LEAST_PROBES` checks in a row have failed over `seconds`, multiplied by the machine's load
    per processor (between 1 and `MOST_LOAD`), because answers come later on a busy machine. A check itself may take
    `PROBE_SECONDS`, so a service that is only slow has to exceed that several times in a row. `clock` in seconds.
    """

    def __init__(
        self,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
        load: Callable[[], float] = lambda: load_a_processor(),
    ) -> None:
        self._seconds, self._clock, self._load = seconds, clock, load
        self._since: float | None = None
        self._probes = 0

    def answered(self) -> None:
        """Record a check that passed."""
        self._since, self._probes = None, 0

    def failed(self, asked_at: float) -> bool:
        """Record a check that failed and began at `asked_at`; return whether the service counts as hung now."""
        self._since = asked_at if self._since is None else self._since
        self._probes += 1
        limit = self._seconds * min(max(1.0, self._load()), MOST_LOAD)
        return self._probes >= LEAST_PROBES and self.silent_seconds >= limit

    @property
    def silent_seconds(self) -> float:
        """Seconds since the first of the checks in a row that failed; 0 if the last one passed."""
        return self._clock() - self._since if self._since is not None else 0.0


def load_a_processor() -> float:
    """Return the load average of the last minute per processor of this machine."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
