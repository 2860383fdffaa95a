"""Keeps services running: one that ends, loses its guard or fails its health checks is started again."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from dialin.errors import ServerError
from dialin.supervisor.health_timeout import HealthTimeout
from dialin.supervisor.ports import is_free
from dialin.supervisor.processes import end_orphans_here
from dialin.supervisor.service import SPAWNING, Service
from dialin.supervisor.survive import Survive

_LOG = logging.getLogger(__name__)

MOST_STARTS, WITHIN_SECONDS = 5, 60.0  # of one service, before the server gives up
MOST_FAILED_STARTS = 3  # in a row; another process may have taken the port, or the machine may be too busy
LOOK_SECONDS = 0.5  # between two looks whether the process is there
ASK_SECONDS = 2.0  # between two probes


class Place:
    """The position of a service in the order of starts. It stays when the service is created again: `make` returns one,
    with ports that are free at that time, and records its address where the later services read it."""

    def __init__(self, make: Callable[[], Service]) -> None:
        self._make = make
        self.service = make()
        self._starts: deque[float] = deque(maxlen=MOST_STARTS)
        self.is_outdated = False  # an earlier service has a new address

    def start(self) -> bool:
        """Start the service and return whether its port has changed. Raises ServerError if it does not start, or was
        started too often within a short time."""
        now = time.monotonic()
        if len(self._starts) == MOST_STARTS and now - self._starts[0] < WITHIN_SECONDS:
            raise ServerError(
                f"{self.service.name} was started {MOST_STARTS} times within {WITHIN_SECONDS:.0f} s\n"
                f"{self.service.tail()}"
            )
        self._starts.append(now)
        port, self.is_outdated = self.service.port, False
        for attempt in range(1, MOST_FAILED_STARTS + 1):
            try:
                self.service.start()
                break
            except ServerError:
                self.service.ask_to_end()
                self.service.wait()
                if attempt == MOST_FAILED_STARTS:
                    raise
                if self.service.port is not None and not is_free("127.0.0.1", self.service.port):
                    self.service = self._make()
        return self.service.port != port


class Supervisor:
    """Starts services in order, each after the ones before it are ready, then watches each in a thread of its own.

    `timeout_seconds`: for how long a service may fail its health checks (see `HealthTimeout`). `say` is called with a
    line for everything that is done, and why.
    """

    def __init__(
        self, makers: Sequence[Callable[[], Service]], timeout_seconds: float, say: Callable[[str], None]
    ) -> None:
        self._makers, self._timeout_seconds, self._say = makers, timeout_seconds, say
        self._places: list[Place] = []
        self._over = threading.Event()
        self._failed = threading.Event()
        self._failure: ServerError | None = None

    def start(self) -> None:
        """Start all services. Raises ServerError if one does not start."""
        for make in self._makers:
            place = Place(make)
            self._places.append(place)
            self._say(f"starting {place.service.name} ...")
            place.start()

    def keep_running(self) -> None:
        """Watch the services until an interrupt. Raises ServerError if one cannot be kept running."""
        for place in self._places:
            threading.Thread(target=self._look_after, args=(place,), name=place.service.name, daemon=True).start()
        while not self._failed.wait(1.0):  # a wait without an end would not be interrupted everywhere
            pass
        assert self._failure is not None
        raise self._failure

    def end(self) -> None:
        """End all services; none is started again."""
        self._over.set()
        for place in self._places:
            place.service.ask_to_end(for_good=True)
        for place in self._places:
            place.service.wait()
        self._end_orphans()

    def _end_orphans(self) -> int:
        with SPAWNING:
            processes = [place.service.process for place in self._places]
            return end_orphans_here([process.pid for process in processes if process is not None])

    def _look_after(self, place: Place) -> None:
        timeout, asked_at = HealthTimeout(self._timeout_seconds), time.monotonic()
        while not self._over.wait(LOOK_SECONDS):
            # This thread must survive: nothing else restarts the service.
            with Survive(_LOG, f"watching {place.service.name} failed") as outcome:
                try:
                    asked_at = self._look(place, timeout, asked_at)
                except ServerError as error:
                    if not self._over.is_set():
                        self._failure = error
                        self._failed.set()
                    return
            if (wrong := outcome.error) is not None:
                self._say(f"watching {place.service.name} failed, and continues: {type(wrong).__name__}: {wrong}")

    def _look(self, place: Place, timeout: HealthTimeout, asked_at: float) -> float:
        """Check a service once and act on the result. Return when its health was last checked."""
        if not place.service.is_running:
            self._start_again(place, self._how_it_ended(place.service))
        elif place.is_outdated:
            self._replace(place, "a service that it depends on has a new address")
        elif time.monotonic() - asked_at < ASK_SECONDS:
            return asked_at
        else:
            asked_at = time.monotonic()
            trouble = place.service.probe()
            if trouble and not (timeout.failed(asked_at) and place.service.is_running):
                return asked_at
            if trouble:
                self._replace(place, self._why_hung(place.service, timeout, trouble))
        timeout.answered()
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
        self._say(f"{place.service.name} is up again")

    def _replace(self, place: Place, reason: str) -> None:
        self._say(f"{place.service.name} is replaced: {reason}")
        place.service.ask_to_end()
        place.service.wait()
        self._start_again(place, f"{place.service.name} was ended")

    @staticmethod
    def _how_it_ended(service: Service) -> str:
        code = service.process.returncode if service.process is not None else None
        if code is not None and code < 0:
            name = str(-code)
            with suppress(ValueError):
                name = signal.Signals(-code).name
            return f"the guard of {service.name} was ended by {name}"
        return f"{service.name} ended (exit code {code})"

    @staticmethod
    def _why_hung(service: Service, timeout: HealthTimeout, trouble: str) -> str:
        stopped = service.stopped()
        why = f"; stopped by a signal: {', '.join(stopped)}" if stopped else ""
        return f"it has not answered for {timeout.silent_seconds:.0f} s ({trouble}){why}"
