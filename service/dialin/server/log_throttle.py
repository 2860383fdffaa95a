"""Keeps callers from filling the log: of each kind of record that requests cause, one a minute is written."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from cachetools import LRUCache

QUIET_SECONDS = 60.0
_CAUSED_BY_REQUESTS = ("uvicorn", "dialin.server.problems", "dialin.server.mlflow_proxy", "asyncio", "py.warnings")


class LogThrottle(logging.Filter):
    """Passes the first record of a kind, and then one in QUIET_SECONDS, which says how many were left out.

    Records are of one kind where logger, message without its values, and the place of the exception are the same.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._kinds: LRUCache[object, tuple[float, int]] = LRUCache(256)  # when the last one passed, and how many since

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if not record.name.startswith(_CAUSED_BY_REQUESTS):
            return True
        kind, now = _kind_of(record), self._clock()
        with self._lock:
            at, left_out = self._kinds.get(kind, (-QUIET_SECONDS, 0))
            if now - at < QUIET_SECONDS:
                self._kinds[kind] = (at, left_out + 1)
                return False
            self._kinds[kind] = (now, 0)
        if left_out:
            record.msg = f"{record.msg} ({left_out} more like this since the last one)"
        return True


def _kind_of(record: logging.LogRecord) -> object:
    error = record.exc_info[1] if record.exc_info else None
    trace = error.__traceback__ if error is not None else None
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = (trace.tb_frame.f_code.co_filename, trace.tb_lineno) if trace is not None else None
    return record.name, str(record.msg)[:80], type(error), place
