"""Temporary folders that live as long as their process. The folder of a process that was killed is removed by the next
one."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from dialin.errors import UsageError

# What Ray puts below its folder: /session_2026-11-25_17-52-14_223058_1447212/sockets/plasma_store
_LONGEST_BELOW_RAY = 64
_LONGEST_SOCKET = 107
_locks: dict[Path, int] = {}  # this process's folders, each by its open and locked descriptor


def scratch_folder(prefix: str, parent: Path) -> Path:
    """Create a folder in `parent`, named after this process, that only its owner can enter, and return it. Folders with
    the same prefix and owner whose process is dead are removed. The caller removes the folder by `remove_scratch`."""
    for folder in parent.glob(f"{prefix}*-*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            _remove_abandoned(folder)
    made = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))  # 0700, and never one that was there
    # A process id says nothing to a process in another container that shares the folder; a lock does.
    descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):  # some file systems have no locks: then the process id has to do
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _locks[made] = descriptor
    return made


def remove_scratch(folder: Path) -> None:
    """Remove a folder that `scratch_folder` created, with what is in it."""
    shutil.rmtree(folder, ignore_errors=True)
    descriptor = _locks.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


def scratch_for_ray(prefix: str) -> Path:
    """Create a folder as `scratch_folder` does, with a path that is short enough for the sockets of Ray. Ray gives
    everybody access to its folder (0777), so its folder has to be one inside of this. Raises UsageError if the path is
    too long wherever temporary files may be.
    """
    parent = Path("/tmp") if os.access("/tmp", os.W_OK) else Path(tempfile.gettempdir())
    folder = scratch_folder(prefix, parent)
    if len(str(folder / "ray")) + _LONGEST_BELOW_RAY > _LONGEST_SOCKET:
        remove_scratch(folder)
        raise UsageError(
            f"the folder for temporary files, {parent}, has too long a path for Ray's sockets, whose paths may have "
            f"{_LONGEST_SOCKET} characters; name a shorter one with TMPDIR"
        )
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Remove a folder of the same owner that no process keeps locked. A link, a file, and what is somebody else's stay
    as they are: everybody may put those into /tmp."""
    with suppress(OSError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where its process lives
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's, and alive
        return True
    return True
