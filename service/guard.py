"""A process that must not outlive the one that started it: `python -P -m service.guard COMMAND ARGUMENT...`.

The guard runs the command, and ends it and all that came of it, each by its own id, when the command is to end
(SIGTERM, SIGINT) or whoever started the guard is gone: killed or not, that closes the guard's standard input.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import psutil

_PR_SET_CHILD_SUBREAPER = 36
PATIENCE_SECONDS = 5.0  # between asking and killing


def guard(command: Sequence[str]) -> int:
    """The exit code of the command, once it and its descendants have ended."""
    wanted = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wanted.set())
    threading.Thread(target=_watch_input, args=(wanted,), daemon=True).start()
    _adopt_orphans()
    # A session of its own: Ctrl-C in a terminal reaches the one who started it all, and it ends the rest in order.
    process = subprocess.Popen(list(command), stdin=subprocess.DEVNULL, start_new_session=True)
    family: dict[int, psutil.Process] = {}
    while process.poll() is None and not wanted.wait(0.5):
        # Remembered, where orphans are not ours: once the command is dead, nobody knows its children.
        family |= {child.pid: child for child in psutil.Process().children(recursive=True)}
    end(process, list(family.values()))
    code: int = process.returncode
    return code if code >= 0 else 128 - code  # as a shell says that a signal ended it


def end(process: subprocess.Popen[bytes], family: Sequence[psutil.Process]) -> None:
    """End a process, asked first and killed later, its family, and whatever else came of this process. psutil never
    mistakes a process that has taken over the id of one."""
    alive = [*family, *psutil.Process().children(recursive=True)]
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_SECONDS)
    for child in [*alive, *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
    psutil.wait_procs(alive, timeout=PATIENCE_SECONDS)


def family_listens(pid: int, port: int) -> bool:
    """Whether a process that came of this one listens on a TCP port."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                sockets: Sequence[Any] = process.net_connections(kind="tcp")
                if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets):
                    return True
    return False


def _adopt_orphans() -> None:
    """On Linux, have what is left of the command's family become ours when its parents die."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _watch_input(wanted: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    wanted.set()


if __name__ == "__main__":
    sys.exit(guard(sys.argv[1:]))
