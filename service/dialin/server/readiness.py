"""Whether what a server needs answers, looked at behind the back of whoever asks.

Each part is looked at in a thread of its own, by one at a time, and only as long as somebody asks: a part that hangs
holds that thread and nobody's request. What is said of it is bounded in time, whatever its own client waits for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping

from dialin.errors import DialinError
from dialin.execution.ray_jobs import Jobs
from dialin.settings import Settings
from dialin.store.submissions import Submissions
from dialin.tracking.mirror import answers

LOOK_SECONDS = 2.0  # from the end of one look to the next
ANSWER_SECONDS = 1.0  # after which a part is said not to answer
_LOOK_AT_MOST_SECONDS = 4.0  # the same of a look that asks several, or has to get ready first
_GIVE_UP_SECONDS = 60.0  # after which another look is begun beside one that hangs
_MLFLOW_SECONDS = 2.0
_MOST_LOOKS = 3  # of one part, that hang

# What looks: it says first what it asks, and gives "ok" or what is wrong; TimeoutError when nothing came.
Look = Callable[[Callable[[str], None]], str]


class Part:
    """One part: a database, a server. Thread safe."""

    def __init__(self, name: str, look: Look, clock: Callable[[], float] = time.monotonic) -> None:
        self._asked, self._look, self._clock = name, look, clock
        self._lock = threading.Lock()
        self._looks, self._number = 0, 0
        self._began: float | None = None  # the look that is under way
        self._ended = float("-inf")
        self._silent_since: float | None = None
        self._goes_on = False  # the silence, from an earlier look
        self._text = ""

    def refresh(self) -> None:
        """Begin a look, unless one is under way or was a moment ago."""
        with self._lock:
            now = self._clock()
            if self._began is None and now - self._ended < LOOK_SECONDS:
                return
            hangs = self._began is not None and now - self._began > _GIVE_UP_SECONDS
            if self._began is not None and not (hangs and self._looks < _MOST_LOOKS):
                return
            if not hangs and now - self._ended > _GIVE_UP_SECONDS:
                self._silent_since = None  # else a silence goes on over looks that follow each other
            self._goes_on = self._silent_since is not None
            self._began = now
            self._looks += 1
            self._number += 1
            number = self._number
        threading.Thread(target=self._run, args=(number,), name="readiness", daemon=True).start()

    def text(self) -> str | None:
        """`ok`, or what is wrong; None: it is being asked, and has not had time to answer yet."""
        with self._lock:
            now = self._clock()
            silent = now - self._silent_since if self._silent_since is not None else 0.0
            if silent >= ANSWER_SECONDS or (self._silent_since is not None and self._began is None):
                return f"{self._asked} has not answered for {max(1.0, silent):.0f} s"
            if self._began is not None and now - self._began >= _LOOK_AT_MOST_SECONDS:
                return f"{self._asked} has not answered yet, after {now - self._began:.0f} s"
            is_old = now - self._ended > 2 * LOOK_SECONDS  # nobody has asked for a while
            return None if is_old else self._text

    def _run(self, number: int) -> None:
        text: str | None = None
        try:
            text = self._look(self._ask)
        except TimeoutError:
            pass
        except DialinError as error:
            text = str(error)
        except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
            text = f"{self._asked} does not answer: {type(error).__name__}"
        with self._lock:
            self._looks -= 1
            if number != self._number:
                return
            if text is not None:
                self._text, self._silent_since = text, None
            elif self._silent_since is None:
                self._silent_since = self._began
            self._began, self._ended = None, self._clock()

    def _ask(self, what: str) -> None:
        with self._lock:
            self._asked = what
            if not self._goes_on:
                self._silent_since = self._clock()


class Readiness:
    """All parts of a server by name."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts

    @classmethod
    def of(cls, settings: Settings, submissions: Submissions, jobs: Jobs) -> Readiness:
        """Of a server's database, its Ray cluster, and its MLflow where that is a server."""

        def database(asks: Callable[[str], None]) -> str:
            asks("the database")
            submissions.by_state()
            return "ok"

        looks: dict[str, tuple[str, Look]] = {
            "database": ("the database", database),
            "ray": ("Ray", jobs.check),
            "mlflow": ("MLflow", lambda asks: _look_at_mlflow(settings, asks)),
        }
        return cls({name: Part(asked, look) for name, (asked, look) in looks.items()})

    async def texts(self) -> dict[str, str]:
        """What is known of each part, at most LOOK_SECONDS old, within ANSWER_SECONDS."""
        for part in self._parts.values():
            part.refresh()
        texts = {name: part.text() for name, part in self._parts.items()}
        while None in texts.values():
            await asyncio.sleep(0.02)
            texts = {name: part.text() for name, part in self._parts.items()}
        return {name: text or "" for name, text in texts.items()}


def _look_at_mlflow(settings: Settings, asks: Callable[[str], None]) -> str:
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
