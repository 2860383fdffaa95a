"""A process that must not outlive the one that started it:
`python -m dialin.supervisor.guard [--log FILE --log-bytes N] [--keep FD] -- COMMAND ARGUMENT...`.

The guard runs the command, and ends it and all that came of it, each by its own id, when the command is to end
(SIGTERM, SIGINT) or whoever started the guard is gone: killed or not, that closes the guard's standard input. When the
guard itself is killed, the system ends the command; what came of that is ended by whoever started the guard, or, when
that is gone too, by the other guards of the same `dialin up`.

`--log`: what the command prints goes to a log of bounded size, which the guard writes; else to the guard's own output.
`--keep`: a descriptor of the guard's that the command inherits.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from dialin.supervisor.processes import END_SECONDS, MARK, adopt_orphans, end_marked, ends_with
from dialin.supervisor.rotating import LEAST_BYTES, RotatingLog


def guard(command: Sequence[str], log: RotatingLog | None = None, keep: Sequence[int] = ()) -> int:
    """The exit code of the command, once it and its descendants have ended."""
    wanted, left_alone = threading.Event(), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: wanted.set())
    adopt_orphans()
    process, output = _start(command, log is not None, keep)
    pump = threading.Thread(target=_pump, args=(output, log), daemon=True)
    pump.start()
    threading.Thread(target=_watch_input, args=(wanted, left_alone), daemon=True).start()
    family: dict[int, psutil.Process] = {}
    while process.poll() is None and not wanted.wait(0.5):
        # Remembered, where orphans are not ours: once the command is dead, nobody knows its children.
        family |= {child.pid: child for child in psutil.Process().children(recursive=True)}
    end(process, list(family.values()))
    pump.join(1.0)
    if left_alone.is_set() and (mark := os.environ.get(MARK)):
        end_marked(mark, guards_too=False)  # a guard that was killed beside us could not end its own
    code: int = process.returncode
    return code if code >= 0 else 128 - code  # as a shell says that a signal ended it


def end(process: subprocess.Popen[bytes], family: Sequence[psutil.Process]) -> None:
    """End a process, asked first and killed later, its family, and whatever else came of this process. psutil never
    mistakes a process that has taken over the id of one."""
    alive = [*family, *psutil.Process().children(recursive=True)]
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
    for child in [*alive, *psutil.Process().children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    if process.poll() is None:
        process.kill()
    process.wait()
    psutil.wait_procs(alive, timeout=END_SECONDS)


def _start(command: Sequence[str], is_logged: bool, keep: Sequence[int]) -> tuple[subprocess.Popen[bytes], int | None]:
    """The command, and the end of a pipe with what it prints. Before this process has threads: the new one runs a
    little Python between fork and exec."""
    reading, writing = os.pipe() if is_logged else (None, None)
    # A session of its own: Ctrl-C in a terminal reaches the one who started it all, and it ends the rest in order.
    process = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=writing,
        start_new_session=True,
        pass_fds=keep,
        preexec_fn=ends_with(os.getpid(), signal.SIGKILL),
    )
    if writing is not None:
        os.close(writing)
    for descriptor in keep:
        os.close(descriptor)
    return process, reading


def _pump(output: int | None, log: RotatingLog | None) -> None:
    """Write what is printed to the log, until nobody can print any more."""
    if output is None or log is None:
        return
    with suppress(OSError):
        while data := os.read(output, LEAST_BYTES):
            log.write(data)


def _watch_input(wanted: threading.Event, left_alone: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    left_alone.set()
    wanted.set()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dialin.supervisor.guard")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--log-bytes", type=int, default=10 * 2**20)
    parser.add_argument("--keep", type=int, action="append", default=[])
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args(argv)
    log = RotatingLog(arguments.log, arguments.log_bytes) if arguments.log is not None else None
    return guard(arguments.command[arguments.command[:1] == ["--"] :], log, arguments.keep)


if __name__ == "__main__":
    sys.exit(main())
