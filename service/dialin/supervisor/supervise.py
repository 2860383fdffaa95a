"""Keeps parts running: what ends, loses its guard or answers nothing any more is started again."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from dialin.errors import ServerError
from dialin.supervisor.part import SPAWNING, Part
from dialin.supervisor.patience import Patience
from dialin.supervisor.ports import is_free
from dialin.supervisor.processes import end_orphans_here

MOST_STARTS, WITHIN_SECONDS = 5, 60.0  # of one part, before it is given up
MOST_FAILED_STARTS = 3  # in a row; the port may be somebody else's by then, or the machine too busy
LOOK_SECONDS = 0.5  # between two looks whether the process is there
ASK_SECONDS = 2.0  # between two probes


class Place:
    """A part's place among the others: it stays when the part is made anew. `make` gives the part, with ports that are
    free then, and notes its address where the parts behind it read it."""

    def __init__(self, make: Callable[[], Part]) -> None:
        self._make = make
        self.part = make()
        self._starts: deque[float] = deque(maxlen=MOST_STARTS)
        self.is_outdated = False  # a part in front of it has another address now

    def start(self) -> bool:
        """Start the part; whether it got another port. Raises ServerError when it does not start, or ends time and
        again."""
        now = time.monotonic()
        if len(self._starts) == MOST_STARTS and now - self._starts[0] < WITHIN_SECONDS:
            raise ServerError(
                f"{self.part.name} was started {MOST_STARTS} times within {WITHIN_SECONDS:.0f} s\n{self.part.tail()}"
            )
        self._starts.append(now)
        port, self.is_outdated = self.part.port, False
        for attempt in range(1, MOST_FAILED_STARTS + 1):
            try:
                self.part.start()
                break
            except ServerError:
                self.part.ask_to_end()
                self.part.wait()
                if attempt == MOST_FAILED_STARTS:
                    raise
                if self.part.port is not None and not is_free("127.0.0.1", self.part.port):
                    self.part = self._make()
        return self.part.port != port


class Supervisor:
    """Starts parts in their order, each once those before it answer, then looks after each in a thread of its own.

    `patience_seconds`: how long a part may give no answer (see `Patience`). `say` is told what is done, and why.
    """

    def __init__(
        self, makers: Sequence[Callable[[], Part]], patience_seconds: float, say: Callable[[str], None]
    ) -> None:
        self._makers, self._patience_seconds, self._say = makers, patience_seconds, say
        self._places: list[Place] = []
        self._over = threading.Event()
        self._failed = threading.Event()
        self._failure: ServerError | None = None

    def start(self) -> None:
        """Raises ServerError when a part does not start."""
        for make in self._makers:
            place = Place(make)
            self._places.append(place)
            self._say(f"starting {place.part.name} ...")
            place.start()

    def keep_running(self) -> None:
        """Until it is interrupted. Raises ServerError when a part cannot be kept running."""
        for place in self._places:
            threading.Thread(target=self._look_after, args=(place,), name=place.part.name, daemon=True).start()
        while not self._failed.wait(1.0):  # a wait without an end would not be interrupted everywhere
            pass
        assert self._failure is not None
        raise self._failure

    def end(self) -> None:
        """End all parts. None is started any more."""
        self._over.set()
        for place in self._places:
            place.part.ask_to_end(for_good=True)
        for place in self._places:
            place.part.wait()
        self._end_orphans()

    def _end_orphans(self) -> int:
        with SPAWNING:
            processes = [place.part.process for place in self._places]
            return end_orphans_here([process.pid for process in processes if process is not None])

    def _look_after(self, place: Place) -> None:
        patience, asked_at = Patience(self._patience_seconds), time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            try:
                asked_at = self._look(place, patience, asked_at)
            except ServerError as error:
                if not self._over.is_set():
                    self._failure = error
                    self._failed.set()
                return
            except Exception as error:  # noqa: BLE001  whoever looks after it must not end unseen
                self._say(f"looking after {place.part.name}: {type(error).__name__}: {error}")

    def _look(self, place: Place, patience: Patience, asked_at: float) -> float:
        """One look at a part, and what follows from it; when it was last asked for an answer."""
        if not place.part.is_running:
            self._start_again(place, self._how_it_ended(place.part))
        elif place.is_outdated:
            self._replace(place, "another part has a new address")
        elif time.monotonic() - asked_at < ASK_SECONDS:
            return asked_at
        else:
            asked_at = time.monotonic()
            trouble = place.part.probe()
            if trouble and not (patience.failed(asked_at) and place.part.is_running):
                return asked_at
            if trouble:
                self._replace(place, self._why_hung(place.part, patience, trouble))
        patience.answered()
        return asked_at

    def _start_again(self, place: Place, reason: str) -> None:
        if self._over.is_set():
            return
        left = self._end_orphans()
        rest = f"; what it left was ended (processes: {left})" if left else ""
        self._say(f"{reason}{rest}; starting it again")
        if place.start():
            for other in self._places[self._places.index(place) + 1 :]:
                other.is_outdated = True
        self._say(f"{place.part.name} is up again")

    def _replace(self, place: Place, reason: str) -> None:
        self._say(f"{place.part.name} is replaced: {reason}")
        place.part.ask_to_end()
        place.part.wait()
        self._start_again(place, f"{place.part.name} was ended")

    @staticmethod
    def _how_it_ended(part: Part) -> str:
        code = part.process.returncode if part.process is not None else None
        if code is not None and code < 0:
            name = str(-code)
            with suppress(ValueError):
                name = signal.Signals(-code).name
            return f"the guard of {part.name} was ended by {name}"
        return f"{part.name} ended (exit code {code})"

    @staticmethod
    def _why_hung(part: Part, patience: Patience, trouble: str) -> str:
        stopped = part.stopped()
        why = f"; stopped by a signal: {', '.join(stopped)}" if stopped else ""
        return f"it has not answered for {patience.silent_seconds:.0f} s ({trouble}){why}"
