"""Finds and ends the processes that descend from one `dialin up`, also after their guards were killed.

Each of these processes has a mark in its environment. Children inherit it even if they leave the session, lose their
parents or become daemons. A process that changes its title, as Ray's workers do, overwrites the memory from which the
kernel reads its environment; such a process is recognized by its ancestors or its session.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

MARK = "DIALIN_UP"
"""Environment variable with the mark, a random text that differs for each `dialin up`."""
GUARD = "dialin.supervisor.guard"
END_SECONDS = 5.0
"""Time between SIGTERM and SIGKILL, and the longest wait for killed processes to disappear."""
_MOST_ROUNDS = 10
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


_adopting: set[int] = set()  # the id of this process, once it is a subreaper; a forked child is none


def adopt_orphans() -> None:
    """On Linux, become a subreaper: descendants whose parents die become children of this process."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        _adopting.add(os.getpid())


def ends_with(parent: int, signal_number: int) -> Any:
    """Return a `preexec_fn` for a process that `parent` starts: it gets a signal when `parent` dies (on Linux)."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:  # the parent has died before the call of prctl
            os._exit(1)

    return bind


def family_listens(pid: int, port: int) -> bool:
    """Return whether a descendant of a process listens on a TCP port."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                sockets: Sequence[Any] = process.net_connections(kind="tcp")
                if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets):
                    return True
    return False


def family_states(pid: int) -> dict[str, str]:
    """Return the state of each descendant of a process, such as `sleeping` or `stopped`, by its name and id."""
    states = {}
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                states[f"{process.name()} {process.pid}"] = str(process.status())
    return states


def end_orphans_here(guards: Collection[int]) -> int:
    """Kill the orphans that this process has adopted from guards that were killed, and return how many there were.

    `guards`: the ids of the guards that this process started, which are spared. All other children are taken for
    orphans, so the caller must have no others and not be starting one. Does nothing in a process that is no subreaper.
    """
    ended: set[int] = set()
    if os.getpid() not in _adopting:
        return 0
    for _ in range(_MOST_ROUNDS):  # children of a process that is just dying change their parent, and may be missed
        children = [child for child in psutil.Process().children() if child.pid not in guards and not is_guard(child)]
        if not children:
            break
        orphans = _with_descendants(children)
        _kill(list(orphans.values()))
        ended |= orphans.keys()
    return len(ended)


def end_marked(mark: str, *, guards_too: bool) -> int:
    """Kill the processes of a `dialin up` that is gone, whatever their parents are now, and return how many there were.

    `guards_too`: also its guards and the processes below them; otherwise a living guard ends its own.
    """
    marked = [process for process in psutil.process_iter() if _mark_of(process) == mark]
    guards = [] if guards_too else [process for process in marked if is_guard(process)]
    spared = {os.getpid(), *_with_descendants(guards)}
    found = _with_descendants(marked) | _in_sessions_of(marked)
    return _kill([process for pid, process in found.items() if pid not in spared])


def _in_sessions_of(processes: Sequence[psutil.Process]) -> dict[int, psutil.Process]:
    """Return the processes in the sessions of these, by their ids. The session of this process is left out."""
    sessions = {_session(process.pid) for process in processes} - {None, _session(os.getpid())}
    return {process.pid: process for process in psutil.process_iter() if _session(process.pid) in sessions}


def is_guard(process: psutil.Process) -> bool:
    """Return whether a process is a guard, by its command line; False for one that is gone or cannot be read."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return GUARD in process.cmdline()[:5]
    return False


def _kill(processes: Sequence[psutil.Process]) -> int:
    """Kill processes, wait until they are gone, and return how many there were.

    A process id that was used again does no harm: psutil also compares the time at which a process was created.
    """
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process.kill()
    psutil.wait_procs(processes, timeout=END_SECONDS)
    return len(processes)


def _with_descendants(processes: Sequence[psutil.Process]) -> dict[int, psutil.Process]:
    found = {process.pid: process for process in processes}
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found |= {child.pid: child for child in process.children(recursive=True)}
    return found


def _mark_of(process: psutil.Process) -> str | None:
    """Return the mark in the environment that a process was started with; None if there is none, or if it belongs to
    another account and cannot be read."""
    with suppress(OSError):
        for entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(f"{MARK}=".encode()):
                return entry.partition(b"=")[2].decode(errors="replace")
    return None


def _session(pid: int) -> int | None:
    with suppress(OSError):
        return os.getsid(pid)
    return None
