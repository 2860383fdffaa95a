"""Which processes came of one `dialin up`, and how they are ended when those that should have done so are gone.

Each of them has a mark in its environment, which its children inherit whatever they do: leave the session, lose their
parents, become daemons. A process that renames itself overwrites what the system shows of its environment (Ray's
workers do); it is known by its parents, and by its session.
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

MARK = "DIALIN_UP"  # its value is another one for each `dialin up`
GUARD = "dialin.supervisor.guard"
END_SECONDS = 5.0  # between asking and killing, and for what was killed to be gone
_MOST_ROUNDS = 10
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


_adopting: set[int] = set()  # the id of this process, once it adopts


def adopt_orphans() -> None:
    """On Linux, become the parent of what comes of this process when its own parents die."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        _adopting.add(os.getpid())


def ends_with(parent: int, signal_number: int) -> Any:
    """What a new process has to call so that it gets a signal when `parent`, which starts it, dies (on Linux)."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def bind() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:  # it died before
            os._exit(1)

    return bind


def family_listens(pid: int, port: int) -> bool:
    """Whether a process that came of this one listens on a TCP port."""
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                sockets: Sequence[Any] = process.net_connections(kind="tcp")
                if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets):
                    return True
    return False


def family_states(pid: int) -> dict[str, str]:
    """Name and id of each process that came of this one -> its state, as `sleeping` or `stopped`."""
    states = {}
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                states[f"{process.name()} {process.pid}"] = str(process.status())
    return states


def end_orphans_here(guards: Collection[int]) -> int:
    """End what came of this process and has no guard: a guard that was killed left it. Returns how many there were.
    `guards`: the ids of guards that this process started. Only where it adopts orphans; it must not have other
    children, nor be starting one."""
    ended: set[int] = set()
    if os.getpid() not in _adopting:
        return 0
    for _ in range(_MOST_ROUNDS):  # while one dies its children change their parents, and are missed
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
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return GUARD in process.cmdline()[:5]
    return False


def _kill(processes: Sequence[psutil.Process]) -> int:
    """End them, each by its own id, and wait for that; psutil never mistakes another for one whose id it has now."""
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
    """The mark in its environment as it was when it began; None for another account's process, and none."""
    with suppress(OSError):
        for entry in Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(f"{MARK}=".encode()):
                return entry.partition(b"=")[2].decode(errors="replace")
    return None


def _session(pid: int) -> int | None:
    with suppress(OSError):
        return os.getsid(pid)
    return None
