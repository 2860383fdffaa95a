"""Handles Ctrl-C and SIGTERM: both end a study in the same way, and neither interrupts a write."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """A context manager in which SIGINT and SIGTERM raise KeyboardInterrupt.

    A signal during `shield()` takes effect when the block exits. Outside the main thread, where Python does not allow
    signal handlers, the context manager has no effect.
    """

    def __init__(self) -> None:
        self._shields = 0  # nested shield() blocks that are open
        self._pending = False
        self._is_finished = False
        self._previous: dict[signal.Signals, Any] = {}
        self.announce: Callable[[], None] = lambda: None
        """Called at the first signal, before the study is ended, which may take seconds."""

    def __enter__(self) -> Interrupts:
        self._previous = self.install()
        return self

    def install(self) -> dict[signal.Signals, Any]:
        """Install the signal handlers and return the previous ones.

        To be called again after the start of a library that installs its own handlers, as Ray does.
        """
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._handle) for number in SIGNALS}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def finish(self) -> None:
        """Ignore signals from now on, because everything is stored."""
        self._is_finished, self._pending = True, False

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Delay an interrupt until this block has completed."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
        if self._pending and self._shields == 0:
            self._pending = False
            raise KeyboardInterrupt

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._is_finished:
            return
        announce, self.announce = self.announce, lambda: None  # a second signal is not announced again
        announce()
        if self._shields:
            self._pending = True
        else:
            raise KeyboardInterrupt
