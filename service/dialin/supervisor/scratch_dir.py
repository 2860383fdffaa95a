"""Temporary folders that live as long as their process.

If a process was killed, the next one that creates a folder with the same prefix removes the folder that was left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from dialin.errors import UsageError

# The longest path that Ray creates below its folder: /session_2026-11-25_17-52-14_223058_1447212/sockets/plasma_store
_LONGEST_BELOW_RAY = 64
_LONGEST_SOCKET = 107  # the limit of Linux for the path of a Unix socket
_locks: dict[Path, int] = {}  # the folders of this process, each with its open and locked descriptor


def scratch_folder(prefix: str, parent: Path) -> Path:
    """Create a folder in `parent` that only its owner can enter, named after this process, and return it.

    Folders with the same prefix and owner whose process is dead are removed. The caller removes the new folder with
    `remove_scratch`.
    """
    for folder in parent.glob(f"{prefix}*-*"):
        pid = folder.name.removeprefix(prefix).partition("-")[0]
        if pid.isdigit() and not _is_alive(int(pid)):
            _remove_abandoned(folder)
    made = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))  # a new folder with mode 0700
    # A process in another container that shares `parent` cannot check the process id, but it can check a lock.
    descriptor = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
    with suppress(OSError):  # on a file system without locks only the process id protects the folder
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    _locks[made] = descriptor
    return made


def remove_scratch(folder: Path) -> None:
    """Remove a folder that `scratch_folder` created, with its content."""
    shutil.rmtree(folder, ignore_errors=True)
    descriptor = _locks.pop(folder, None)
    if descriptor is not None:
        os.close(descriptor)


def scratch_for_ray(prefix: str) -> Path:
    """Create a folder as `scratch_folder` does, with a path that is short enough for Ray's sockets.

    Ray gives every account access to its own folder (0777), so that has to be a subfolder of this one. Raises
    UsageError if the path of the folder for temporary files is too long.
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
    """Remove a folder of this account that no process has locked. Links, files and what belongs to another account are
    left unchanged: every account can create those in /tmp."""
    with suppress(OSError):
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while its process is alive
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is alive, and belongs to another account
        return True
    return True
