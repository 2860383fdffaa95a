"""When a part that gives no answer counts as hung."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LEAST_PROBES = 3  # in a row; one may have met a pause of the machine
MOST_LOAD = 4.0


class Patience:
    """Counts how long a part has not answered.

    It is hung once `LEAST_PROBES` probes in a row have failed over `seconds`, multiplied by the machine's load a
    processor (between 1 and `MOST_LOAD`): the busier the machine, the later an answer comes. An answer may itself take
    `PROBE_SECONDS`, so a part that is only slow has to miss that several times in a row. `clock` in seconds.
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
        self._since, self._probes = None, 0

    def failed(self, asked_at: float) -> bool:
        """Note a probe that failed and was begun at `asked_at`; whether the part counts as hung now."""
        self._since = asked_at if self._since is None else self._since
        self._probes += 1
        limit = self._seconds * min(max(1.0, self._load()), MOST_LOAD)
        return self._probes >= LEAST_PROBES and self.silent_seconds >= limit

    @property
    def silent_seconds(self) -> float:
        return self._clock() - self._since if self._since is not None else 0.0


def load_a_processor() -> float:
    """Processes that want to run, for each processor of this machine, as the mean of the last minute."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)
