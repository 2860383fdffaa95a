"""Lets a loop survive an unexpected error, which is logged."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from types import TracebackType


class Survive(AbstractContextManager["Survive"]):
    """Logs an error that leaves its block, with the traceback; the program then continues after the block.

    This is for loops that nothing restarts when they end: a server's background work, and the threads that watch
    services. KeyboardInterrupt and SystemExit are not caught.

    log: the logger of the module with the loop.
    what: the message, such as "watching MLflow failed".
    level: the level of the record.
    unless: errors of these types are raised.
    """

    error: Exception | None = None
    """The error that ended the block early; None if there was none."""

    def __init__(
        self, log: logging.Logger, what: str, *, level: int = logging.ERROR, unless: tuple[type[Exception], ...] = ()
    ) -> None:
        self._log, self._what, self._level, self._unless = log, what, level, unless

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or isinstance(error, self._unless):
            return False
        self.error = error
        self._log.log(self._level, self._what, exc_info=error)
        return True
