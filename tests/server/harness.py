"""`dialin up` as a process, and what can be done to its parts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from dialin.client.client import Client
from tests.faults.harness import ROOT, descendants, free_port, kill

PARTS = {"api": "dialin.server.serve", "mlflow": "dialin.server.mlflow_server", "ray": "bin/ray start"}


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """As the faults' one, but slower to ask again: each look may be a request to the server."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.25)


class Up:
    """A server of its own folder and ports. A context manager: its processes end on the way out, by their own ids."""

    def __init__(self, folder: Path, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.port = folder / "data", free_port()
        self._log = folder / "up.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("DIALIN_", "RAY_"))},
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": "1",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Up:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        before = self.log().count("Ctrl-C stops")
        command = [sys.executable, "-m", "dialin", "up", "--port", str(self.port), "--data", str(self.out)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        wait_until(lambda: self._is_up_or_dead(before), 120, "it is up")
        assert self.process.poll() is None, self.log()

    def _is_up_or_dead(self, before: int) -> bool:
        assert self.process is not None
        return self.log().count("Ctrl-C stops") > before or self.process.poll() is not None

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to end; what was its is gone then."""
        if self.process is None or self.process.poll() is not None:
            return 0 if self.process is None else self.process.returncode
        family = [pid for pid, _ in descendants(self.process.pid)]
        self.process.send_signal(number)
        try:
            code = self.process.wait(60)
        finally:
            if self.process.poll() is None:
                kill(self.process.pid)
        wait_until(lambda: not any(is_alive(pid) for pid in family), 30, "all of it has ended")
        return code

    def kill(self) -> None:
        """SIGKILL to what `dialin up` is itself."""
        assert self.process is not None
        kill(self.process.pid)
        self.process.wait()

    def client(self, token: str | None = None) -> Client:
        return Client(self.url, token)

    def pid_of(self, part: str) -> int:
        """The process of one part, not its guard."""
        assert self.process is not None
        found = [
            pid
            for pid, command in descendants(self.process.pid)
            if PARTS[part] in command and "dialin.supervisor.guard" not in command
        ]
        return min(found)

    def drivers(self) -> list[int]:
        """The drivers of studies, not the shells that run them."""
        assert self.process is not None
        return [
            pid
            for pid, command in descendants(self.process.pid)
            if "-m dialin.server.job" in command and not command.startswith(("/bin/sh", "sh ", "/bin/bash", "bash "))
        ]

    def family(self) -> list[int]:
        assert self.process is not None
        return [pid for pid, _ in descendants(self.process.pid)]

    def processes(self) -> list[tuple[int, str]]:
        """Ids and command lines of all of it."""
        assert self.process is not None
        return list(descendants(self.process.pid))

    def guard_of(self, part: str) -> int:
        """The guard of one part."""
        assert self.process is not None
        found = [
            pid
            for pid, command in descendants(self.process.pid)
            if PARTS[part] in command and "dialin.supervisor.guard" in command
        ]
        return min(found)

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
