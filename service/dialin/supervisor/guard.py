"""A process that must not outlive the one that started it:
`python -m dialin.supervisor.guard [--log FILE --log-bytes N] [--keep FD] -- COMMAND ARGUMENT...`.

The guard runs the command. It ends the command and all of its descendants, each by its process id, when it receives
SIGTERM or SIGINT, and when the process that started the guard is gone: however that process ends, the pipe to the
guard's standard input is closed. If the guard itself is killed, the kernel kills the command; the command's descendants
are then ended by the process that started the guard or, if that is gone too, by the other guards of the same
`dialin up`.

`--log FILE`: the guard writes what the command prints to a log of bounded size; otherwise the command inherits the
guard's output. `--keep FD`: a file descriptor of the guard that the command inherits.
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
    """Run the command until it ends or is to be ended, end its descendants, and return its exit code."""
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
        # Without a subreaper (macOS), children are recorded now: they cannot be found once their parent is dead.
        family |= {child.pid: child for child in psutil.Process().children(recursive=True)}
    end(process, list(family.values()))
    pump.join(1.0)
    if left_alone.is_set() and (mark := os.environ.get(MARK)):
        end_marked(mark, guards_too=False)  # the descendants of guards that were killed, too
    code: int = process.returncode
    return code if code >= 0 else 128 - code  # the convention of shells for a command that a signal has ended


def end(process: subprocess.Popen[bytes], family: Sequence[psutil.Process]) -> None:
    """End a process by SIGTERM, then SIGKILL; kill the processes in `family` and all other descendants of this process.

    A process id that was used again does no harm: psutil also compares the time at which a process was created.
    """
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
    """Start the command; return it and, if it is logged, the reading end of the pipe that it prints to.

    To be called before this process has other threads: `preexec_fn` runs Python between fork and exec, where a lock
    that another thread held is never released.
    """
    reading, writing = os.pipe() if is_logged else (None, None)
    # In a new session the command does not get the SIGINT of a terminal's Ctrl-C: `dialin up` gets it, and ends the
    # services in order.
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
    """Copy what the command prints to the log, until every process that holds the writing end of the pipe has ended."""
    if output is None or log is None:
        return
    with suppress(OSError):
        while data := os.read(output, LEAST_BYTES):
            log.write(data)


def _watch_input(wanted: threading.Event, left_alone: threading.Event) -> None:
    """Set both events once standard input is closed, which means that the process that started the guard is gone."""
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
