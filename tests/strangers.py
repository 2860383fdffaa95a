"""What another user of the machine can do: `nobody`, where the tests run as root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NEEDS_ROOT = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can run a command as another user"
)


def as_nobody(*command: str) -> subprocess.CompletedProcess:
    """A command as user and group 65534, with no other groups."""
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return subprocess.run([*user, *command], capture_output=True, text=True, timeout=60, check=False, cwd="/")


def reached_by_nobody(folder: Path, test: str = "-readable") -> list[str]:
    """What of a folder `nobody` can read, or `-writable`. The folder's own parents must let them through, which
    pytest's do not: it lies below /tmp itself."""
    done = as_nobody("find", str(folder), test, "-not", "-type", "l")
    return done.stdout.splitlines()
