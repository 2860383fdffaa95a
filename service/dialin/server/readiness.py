"""Whether what a server needs answers, checked without having requests wait for it.

Each dependency is checked in a thread of its own, by one thread at a time, and only while somebody asks: a dependency
that hangs occupies that thread and nobody's request. An answer to a request is bounded in time, whatever the
dependency's own client waits for.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping

from dialin.errors import DialinError
from dialin.execution.ray_jobs import Jobs
from dialin.settings import Settings
from dialin.store.submissions import Submissions
from dialin.supervisor.survive import Survive
from dialin.tracking.mirror import answers

_LOG = logging.getLogger(__name__)

CHECK_SECONDS = 2.0  # from the end of one check to the beginning of the next
ANSWER_SECONDS = 1.0  # after which a dependency counts as not answering
_LONGEST_CHECK_SECONDS = 4.0  # the same, for a check that asks several parts, or has to prepare first
_GIVE_UP_SECONDS = 60.0  # after which another check is begun beside one that hangs
_MLFLOW_SECONDS = 2.0
_MOST_CHECKS = 3  # of one dependency, that hang

# A check calls its argument with the name of what it is about to ask. It returns "ok" or what is wrong, and raises
# TimeoutError where no answer came.
Check = Callable[[Callable[[str], None]], str]


class Dependency:
    """Something that the server needs: a database, Ray, MLflow. Thread safe."""

    def __init__(self, name: str, check: Check, clock: Callable[[], float] = time.monotonic) -> None:
        self._asked, self._check, self._clock = name, check, clock
        self._lock = threading.Lock()
        self._threads, self._number = 0, 0  # checks that run, and the number of the last one
        self._began: float | None = None  # when the check that runs began; None: none runs
        self._ended = float("-inf")
        self._silent_since: float | None = None
        self._was_silent = False  # when the check that runs began
        self._text = ""

    @property
    def is_being_checked(self) -> bool:
        """Whether a check is running."""
        with self._lock:
            return self._began is not None

    def refresh(self) -> None:
        """Begin a check, unless one is running or has just ended."""
        with self._lock:
            now = self._clock()
            if not self._is_due(now):
                return
            # A silence lasts over checks that follow each other; one of long ago says nothing about now.
            if self._began is None and now - self._ended > _GIVE_UP_SECONDS:
                self._silent_since = None
            self._was_silent = self._silent_since is not None
            self._began = now
            self._threads += 1
            self._number += 1
            number = self._number
        threading.Thread(target=self._run, args=(number,), name="readiness", daemon=True).start()

    def text(self) -> str | None:
        """`ok`, or what is wrong; None while a check is running that has not had time to get an answer."""
        with self._lock:
            now = self._clock()
            silent = now - self._silent_since if self._silent_since is not None else 0.0
            if silent >= ANSWER_SECONDS or (self._silent_since is not None and self._began is None):
                return f"{self._asked} has not answered for {max(1.0, silent):.0f} s"
            if self._began is not None and now - self._began >= _LONGEST_CHECK_SECONDS:
                return f"{self._asked} has not answered yet, after {now - self._began:.0f} s"
            is_old = now - self._ended > 2 * CHECK_SECONDS  # it was not asked for in a while
            return None if is_old else self._text

    def _is_due(self, now: float) -> bool:
        if self._began is None:
            return now - self._ended >= CHECK_SECONDS
        return now - self._began > _GIVE_UP_SECONDS and self._threads < _MOST_CHECKS

    def _run(self, number: int) -> None:
        text = self._answer()
        with self._lock:
            self._threads -= 1
            if number != self._number:
                return  # it hung, and a later check has taken its place
            if text is not None:
                self._text, self._silent_since = text, None
            elif self._silent_since is None:
                self._silent_since = self._began
            self._began, self._ended = None, self._clock()

    def _answer(self) -> str | None:
        """What the check says; None where no answer came."""
        # Whatever a client raises means that it got no usable answer.
        with Survive(_LOG, f"{self._asked} does not answer", level=logging.DEBUG) as outcome:
            try:
                return self._check(self._note_asked)
            except TimeoutError:
                return None
            except DialinError as error:
                return str(error)
        return f"{self._asked} does not answer: {type(outcome.error).__name__}"

    def _note_asked(self, what: str) -> None:
        with self._lock:
            self._asked = what
            if not self._was_silent:
                self._silent_since = self._clock()


class Readiness:
    """All dependencies of a server, by name."""

    def __init__(self, dependencies: Mapping[str, Dependency]) -> None:
        self._dependencies = dependencies

    @classmethod
    def of(cls, settings: Settings, submissions: Submissions, jobs: Jobs) -> Readiness:
        """The readiness of a server: its database, its Ray cluster, and its MLflow where that is a server."""

        def check_database(asks: Callable[[str], None]) -> str:
            asks("the database")
            submissions.by_state()
            return "ok"

        checks: dict[str, tuple[str, Check]] = {
            "database": ("the database", check_database),
            "ray": ("Ray", jobs.check),
            "mlflow": ("MLflow", lambda asks: _check_mlflow(settings, asks)),
        }
        return cls({name: Dependency(asked, check) for name, (asked, check) in checks.items()})

    async def texts(self) -> dict[str, str]:
        """`ok` or what is wrong with each, at most CHECK_SECONDS old. Takes at most ANSWER_SECONDS."""
        for dependency in self._dependencies.values():
            dependency.refresh()
        texts = {name: dependency.text() for name, dependency in self._dependencies.items()}
        while None in texts.values():
            await asyncio.sleep(0.02)
            texts = {name: dependency.text() for name, dependency in self._dependencies.items()}
        return {name: text or "" for name, text in texts.items()}


def _check_mlflow(settings: Settings, asks: Callable[[str], None]) -> str:
    uri = settings.mlflow_uri
    if uri is None or not uri.startswith("http"):
        return "ok"  # a file
    asks("MLflow")
    began = time.monotonic()
    if answers(uri, _MLFLOW_SECONDS, secret=settings.mlflow_secret):
        return "ok"
    if time.monotonic() - began >= _MLFLOW_SECONDS:
        raise TimeoutError
    return f"does not answer at {uri}"
