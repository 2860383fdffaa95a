"""One of the processes that `dialin up` runs, under a guard."""

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
from dialin.supervisor.processes import GUARD, PATIENCE_SECONDS, family_listens, family_states

START_SECONDS = 120.0
PROBE_SECONDS = 10.0  # that an answer may take
LOG_BYTES = 10 * 2**20
SPAWNING = threading.Lock()  # between fork and exec a guard cannot be told from what a killed guard has left
_DIRECT = build_opener(ProxyHandler({}))  # a proxy cannot reach this machine's loopback, and must see no secret


@dataclass
class Part:
    """A process with its guard. Thread safe.

    `probe`: why it is not ready to serve, in a few words; empty when it is. `port`: that it has to listen on; None when
    it opens none itself. `keep`: descriptors that it inherits. `log`: what it prints; twice `log_bytes` at most are
    kept of that. `umask`: rights that nobody has to what it makes; -1: this process's.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    port: int | None
    probe: Callable[[], str]
    keep: Sequence[int] = ()
    log_bytes: int = LOG_BYTES
    umask: int = 0o077
    process: subprocess.Popen[bytes] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _is_over: bool = False

    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServerError, with the end of its log, when it does not."""
        process = self._open()
        deadline = time.monotonic() + START_SECONDS
        trouble = "it opened no port"
        while not self._listens() or (trouble := self.probe()):
            if process.poll() is not None:
                raise ServerError(f"{self.name} did not start\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not start within {START_SECONDS:.0f} s: {trouble}\n{self.tail()}")
            time.sleep(0.1)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def ask_to_end(self, *, for_good: bool = False) -> None:
        """Have its guard end it; `for_good`: it is not to be started any more, by no thread."""
        with self._lock:
            self._is_over = self._is_over or for_good
            if self.process is not None and self.process.stdin is not None:
                with suppress(OSError):  # its guard was killed
                    self.process.stdin.close()

    def wait(self) -> None:
        """Its guard needs a while to end it, and is killed when it needs longer."""
        if self.process is None:
            return
        try:
            self.process.wait(3 * PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def tail(self) -> str:
        """The last lines of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(f"  {line}" for line in text.splitlines()[-15:])

    def stopped(self) -> list[str]:
        """Its processes that a signal has stopped (SIGSTOP), by name and id."""
        states = family_states(self.process.pid) if self.process is not None else {}
        return [name for name, state in states.items() if state == "stopped"]

    def _open(self) -> subprocess.Popen[bytes]:
        guard = module_command(GUARD, "--log", str(self.log), "--log-bytes", str(self.log_bytes))
        kept = [argument for descriptor in self.keep for argument in ("--keep", str(descriptor))]
        with self._lock:
            if self._is_over:
                raise ServerError(f"{self.name} is not started: all of it ends")
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
        """Whether it is this part that has the port: somebody else's server may have taken it, and answers as well."""
        return self.port is None or (self.process is not None and family_listens(self.process.pid, self.port))


def probe_http(
    url: str, token: str | None = None, *, fine: Sequence[int] = (200,), timeout_seconds: float = PROBE_SECONDS
) -> str:
    """Why a URL is not answered with one of these statuses in time; empty when it is."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    try:
        with _DIRECT.open(Request(url, headers=headers), timeout=timeout_seconds) as response:
            return "" if response.status in fine else f"{url} is answered with {response.status}"
    except HTTPError as error:
        return "" if error.code in fine else f"{url} is answered with {error.code}"
    except (OSError, HTTPException) as error:
        return f"{url}: {getattr(error, 'reason', error)}"
