"""Keeps services running: a service that ends, loses its guard or fails its health checks is restarted."""

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

MOST_STARTS, WITHIN_SECONDS = 5, 60.0
"""Starts of one service within that time, after which the server gives up."""
MOST_FAILED_STARTS = 3
"""Attempts of one start: another process may have taken the port, or the machine may be too busy."""
CHECK_SECONDS = 0.5
"""Time between two checks of whether the guard of a service is alive."""
PROBE_INTERVAL_SECONDS = 2.0
"""Time between two health checks of a service."""


class ServiceSlot:
    """One position in the order in which services start, and the service that is there now.

    `make` creates the service, on a port that is free at that time, and records its address where the later services
    read it. It is called again when another process has taken the port.
    """

    def __init__(self, make: Callable[[], Service]) -> None:
        self._make = make
        self.service = make()
        self._starts: deque[float] = deque(maxlen=MOST_STARTS)
        self.is_outdated = False
        """Whether an earlier service has a new address, so that this one has to be restarted."""

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
    """Starts services in order, each when the ones before it are ready, then watches each of them in its own thread.

    `timeout_seconds`: for how long a service may fail its health checks (see `HealthTimeout`). `notify` is called, from
    any thread, with a line about everything that is done and the reason.
    """

    def __init__(
        self, makers: Sequence[Callable[[], Service]], timeout_seconds: float, notify: Callable[[str], None]
    ) -> None:
        self._makers, self._timeout_seconds, self._notify = makers, timeout_seconds, notify
        self._slots: list[ServiceSlot] = []
        self._over = threading.Event()
        self._failed = threading.Event()
        self._failure: ServerError | None = None

    def start(self) -> None:
        """Start all services. Raises ServerError if a service does not start."""
        for make in self._makers:
            slot = ServiceSlot(make)
            self._slots.append(slot)
            self._notify(f"starting {slot.service.name} ...")
            slot.start()

    def keep_running(self) -> None:
        """Watch the services until KeyboardInterrupt. Raises ServerError if a service cannot be kept running."""
        for slot in self._slots:
            threading.Thread(target=self._watch, args=(slot,), name=slot.service.name, daemon=True).start()
        while not self._failed.wait(1.0):  # a wait without a timeout cannot be interrupted on every platform
            pass
        assert self._failure is not None
        raise self._failure

    def end(self) -> None:
        """End all services. They cannot be started again."""
        self._over.set()
        for slot in self._slots:
            slot.service.ask_to_end(for_good=True)
        for slot in self._slots:
            slot.service.wait()
        self._end_orphans()

    def _end_orphans(self) -> int:
        with SPAWNING:
            processes = [slot.service.process for slot in self._slots]
            return end_orphans_here([process.pid for process in processes if process is not None])

    def _watch(self, slot: ServiceSlot) -> None:
        timeout, asked_at = HealthTimeout(self._timeout_seconds), time.monotonic()
        while not self._over.wait(CHECK_SECONDS):
            # This thread must survive: nothing else restarts the service.
            with Survive(_LOG, f"a check of {slot.service.name} failed") as outcome:
                try:
                    asked_at = self._check(slot, timeout, asked_at)
                except ServerError as error:
                    if not self._over.is_set():
                        self._failure = error
                        self._failed.set()
                    return
            if (wrong := outcome.error) is not None:
                self._notify(
                    f"a check of {slot.service.name} failed, and watching it continues: {type(wrong).__name__}: {wrong}"
                )

    def _check(self, slot: ServiceSlot, timeout: HealthTimeout, asked_at: float) -> float:
        """Check a service once, restart it if that is necessary, and return when its health was last checked."""
        if not slot.service.is_running:
            self._restart(slot, self._how_it_ended(slot.service))
        elif slot.is_outdated:
            self._replace(slot, "a service that it depends on has a new address")
        elif time.monotonic() - asked_at < PROBE_INTERVAL_SECONDS:
            return asked_at
        else:
            asked_at = time.monotonic()
            trouble = slot.service.probe()
            if trouble and not (timeout.failed(asked_at) and slot.service.is_running):
                return asked_at
            if trouble:
                self._replace(slot, self._why_hung(slot.service, timeout, trouble))
        timeout.answered()
        return asked_at

    def _restart(self, slot: ServiceSlot, reason: str) -> None:
        if self._over.is_set():
            return
        left = self._end_orphans()
        rest = f"; its remaining processes were ended ({left})" if left else ""
        self._notify(f"{reason}{rest}; restarting it")
        if slot.start():
            for other in self._slots[self._slots.index(slot) + 1 :]:
                other.is_outdated = True
        self._notify(f"{slot.service.name} is up again")

    def _replace(self, slot: ServiceSlot, reason: str) -> None:
        self._notify(f"{slot.service.name} is replaced: {reason}")
        slot.service.ask_to_end()
        slot.service.wait()
        self._restart(slot, f"{slot.service.name} was ended")

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
