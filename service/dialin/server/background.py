"""What the server's background loops share: they survive what goes wrong, and one study's trouble harms no other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dialin.errors import DialinError
from dialin.supervisor.logs import log_context
from dialin.supervisor.survive import Survive

_LOG = logging.getLogger(__name__)


class Repeater:
    """Calls a function every `pause_seconds`, in the thread that calls `run`, until `close`. Thread safe."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._wake = threading.Event()
        self._closed = threading.Event()

    def run(self, step: Callable[[], None]) -> None:
        """Call `step` again and again. Whatever it raises is logged, and the next call tries again."""
        while not self._closed.is_set():
            with Survive(_LOG, f"a step of {threading.current_thread().name} failed"):
                step()
            self._wake.wait(self._pause_seconds)
            self._wake.clear()

    def wake(self) -> None:
        """End the pause: there is something to do."""
        self._wake.set()

    def close(self) -> None:
        """Have `run` return after the step that is running."""
        self._closed.set()
        self._wake.set()


@contextmanager
def isolated(study_id: str, *common: type[Exception]) -> Iterator[None]:
    """Log what goes wrong with one study in this block, so that the caller can continue with the next study.

    Errors of the types `common` concern all studies, such as a database that does not answer; they are raised.
    """
    with log_context(study=study_id), Survive(_LOG, f"study {study_id}", unless=common):
        try:
            yield
        except DialinError as error:
            if isinstance(error, common):
                raise
            _LOG.warning("study %s: %s", study_id, error)
