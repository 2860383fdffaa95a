"""A service: one of the processes that `dialin up` runs, each under a guard."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from dialin.errors import ServerError
from dialin.supervisor.commands import module_command
from dialin.supervisor.processes import END_SECONDS, GUARD, family_listens, family_states

START_SECONDS = 120.0
PROBE_SECONDS = 10.0  # longest time that an answer to a health check may take
LOG_BYTES = 10 * 2**20
# Held while a guard is started: between fork and exec it looks like an orphan of a guard that was killed.
SPAWNING = threading.Lock()
_DIRECT = build_opener(ProxyHandler({}))  # a proxy cannot reach the loopback interface, and must not see the token


@dataclass
class Service:
    """A process and its guard. Thread safe."""

    name: str
    """Its name in messages."""
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    """The file that its output goes to."""
    port: int | None
    """The port that it has to listen on; None if it opens none itself."""
    probe: Callable[[], str]
    """The health check. It returns why the service is not ready, in a few words; empty if it is ready."""
    keep: Sequence[int] = ()
    """File descriptors that it inherits."""
    log_bytes: int = LOG_BYTES
    """The size at which the log is rotated; one old log is kept."""
    umask: int = 0o077
    """The umask of the process; -1: the umask of this process."""
    process: subprocess.Popen[bytes] | None = None
    """The guard; None before the first start."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_over: bool = False

    def start(self) -> None:
        """Start the process and wait until its health check passes. Raises ServerError, with the end of its log, if it
        ends or is not ready within START_SECONDS."""
        process = self._open()
        deadline = time.monotonic() + START_SECONDS
        trouble = f"it does not listen on port {self.port}"
        while not self._listens() or (trouble := self.probe()):
            if process.poll() is not None:
                raise ServerError(f"{self.name} did not start\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not start within {START_SECONDS:.0f} s: {trouble}\n{self.tail()}")
            time.sleep(0.1)

    @property
    def is_running(self) -> bool:
        """Whether the guard is alive."""
        return self.process is not None and self.process.poll() is None

    def ask_to_end(self, *, for_good: bool = False) -> None:
        """Ask the guard to end the process, by closing its standard input. `for_good`: refuse later calls of
        `start`."""
        with self._lock:
            self._is_over = self._is_over or for_good
            if self.process is not None and self.process.stdin is not None:
                with suppress(OSError):  # the guard was killed
                    self.process.stdin.close()

    def wait(self) -> None:
        """Wait until the guard has ended the process, and kill the guard if that takes too long."""
        if self.process is None:
            return
        try:
            self.process.wait(3 * END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tail(self) -> str:
        """Return the last lines of the log, indented."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(f"  {line}" for line in text.splitlines()[-15:])

    def stopped(self) -> list[str]:
        """Return the name and id of each of its processes that a signal has stopped (SIGSTOP)."""
        states = family_states(self.process.pid) if self.process is not None else {}
        return [name for name, state in states.items() if state == "stopped"]

    def _open(self) -> subprocess.Popen[bytes]:
        guard = module_command(GUARD, "--log", str(self.log), "--log-bytes", str(self.log_bytes))
        kept = [argument for descriptor in self.keep for argument in ("--keep", str(descriptor))]
        with self._lock:
            if self._is_over:
                raise ServerError(f"{self.name} is not started, because the server is shutting down")
            if self.process is not None and self.process.stdin is not None:
                self.process.stdin.close()
            with SPAWNING:
                self.process = subprocess.Popen(
                    [*guard, *kept, "--", *self.command],
                    stdin=subprocess.PIPE,
                    env=dict(self.environment),
                    start_new_session=True,
                    pass_fds=self.keep,
                    umask=self.umask,
                )
            return self.process

    def _listens(self) -> bool:
        """Whether this service listens on its port. Another server that has taken the port would pass the health check
        as well."""
        return self.port is None or (self.process is not None and family_listens(self.process.pid, self.port))


def probe_http(
    url: str, token: str | None = None, *, fine: Sequence[int] = (200,), timeout_seconds: float = PROBE_SECONDS
) -> str:
    """Send a GET request, and return why it does not get a status in `fine` in time; empty if it does."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    try:
        with _DIRECT.open(Request(url, headers=headers), timeout=timeout_seconds) as response:
            return "" if response.status in fine else f"{url} has answered with status {response.status}"
    except HTTPError as error:
        return "" if error.code in fine else f"{url} has answered with status {error.code}"
    except (OSError, HTTPException) as error:
        return f"{url}: {getattr(error, 'reason', error)}"
