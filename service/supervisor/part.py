"""One of the processes that `dialin up` runs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

from service.errors import ServerError
from service.guard import PATIENCE_SECONDS, family_listens

START_SECONDS = 120.0
PROBE_SECONDS = 10.0  # that an answer may take
_DIRECT = build_opener(ProxyHandler({}))  # a proxy cannot reach this machine's loopback, and must see no secret
MOST_STARTS, WITHIN_SECONDS = 5, 60.0  # of one part, before it is given up


@dataclass
class Part:
    """A process with its guard.

    `probe`: why it is not ready to serve, in a few words; empty when it is. `port`: that it has to listen on; None when
    it listens on none of its own.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    port: int | None
    probe: Callable[[], str]
    process: subprocess.Popen[bytes] | None = None
    starts: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_STARTS))

    def start(self) -> None:
        """Start it, and wait until it answers. Raises ServerError, with the end of its log, when it does not."""
        now = time.monotonic()
        if len(self.starts) == MOST_STARTS and now - self.starts[0] < WITHIN_SECONDS:
            raise ServerError(f"{self.name} ended {MOST_STARTS} times within {WITHIN_SECONDS:.0f} s\n{self.tail()}")
        self.starts.append(now)
        guarded = [sys.executable, "-P", "-m", "service.guard", *self.command]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                guarded,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._listens() or self.probe():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not start\n{self.tail()}")
            time.sleep(0.1)

    def _listens(self) -> bool:
        """Whether it is this part that has the port: somebody else's server may have taken it, and answers as well."""
        if self.port is None:
            return True
        return self.process is not None and family_listens(self.process.pid, self.port)

    def ask_to_end(self) -> None:
        if self.process is not None and self.process.stdin is not None:
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
        return "\n".join(f"  {line}" for line in self.log.read_text(errors="replace").splitlines()[-15:])


def probe_http(url: str, token: str | None = None) -> str:
    """Why a URL is not answered with 200; empty when it is."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    try:
        with _DIRECT.open(Request(url, headers=headers), timeout=PROBE_SECONDS) as response:
            return "" if response.status == 200 else f"{url} is answered with {response.status}"
    except (URLError, OSError) as error:
        return f"{url}: {error}"
