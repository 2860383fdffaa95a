"""Ctrl-C and SIGTERM: both end a study the same way, and never in the middle of a write."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt; a signal during `shield()` is raised when its block
    exits. `announce` is called at the first signal, before anything is ended: that may take seconds.

    Outside the main thread, where Python cannot take signals, it changes nothing.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._pending = False
        self._too_late = False
        self._before: dict[signal.Signals, Any] = {}
        self.announce: Callable[[], None] = lambda: None

    def __enter__(self) -> Interrupts:
        self._before = self.install()
        return self

    def install(self) -> dict[signal.Signals, Any]:
        """Take the signals, again where a library has taken them since; the handlers that had them."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._handle) for number in SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def finish(self) -> None:
        """All is done and written down: from here on an interrupt changes nothing."""
        self._too_late, self._pending = True, False

    @contextmanager
    def shield(self) -> Iterator[None]:
        """What runs inside is finished before an interrupt is raised."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._pending and self._depth == 0:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._too_late:
            return
        announce, self.announce = self.announce, lambda: None
        announce()
        if self._depth:
            self._pending = True
        else:
            raise KeyboardInterrupt
