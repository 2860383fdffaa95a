"""A log whose size has a bound, whatever is written to it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

LEAST_BYTES = 2**16
LOOK_SECONDS = 5.0


def keep_short(path: Path, most_bytes: int) -> None:
    """Move what a log has to `NAME.1`, in place of what is there, if it is longer than `most_bytes`. For a log that
    processes write themselves, each with a descriptor of its own in append mode: what one writes during the move may be
    lost."""
    with suppress(OSError):
        if path.stat().st_size > most_bytes:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def watch_length(path: Path, most_bytes: int, seconds: float = LOOK_SECONDS) -> None:
    """Do so again and again, as long as this process lives."""

    def watch() -> None:
        while True:
            keep_short(path, most_bytes)
            time.sleep(seconds)

    threading.Thread(target=watch, name=f"length of {path.name}", daemon=True).start()


class RotatingLog:
    """A file that only its owner can read. When it has `most_bytes` it becomes `NAME.1`, in place of the one before,
    and a new one is begun: the two together never have more than twice as many.

    What cannot be written, as on a full disk, is dropped: a log is no reason to end what it is about. Raises ValueError
    for fewer bytes than are written at once.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        if most_bytes < LEAST_BYTES:
            raise ValueError(f"most_bytes={most_bytes}; at least {LEAST_BYTES}")
        self._path, self._most_bytes = path, most_bytes
        self._descriptor, self._size = self._open()

    def write(self, data: bytes) -> None:
        for begin in range(0, len(data), LEAST_BYTES):
            self._write(data[begin : begin + LEAST_BYTES])

    def close(self) -> None:
        """What is written after it is dropped."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _write(self, block: bytes) -> None:
        with suppress(OSError):
            if self._size + len(block) > self._most_bytes:
                self._rotate()
            self._size += os.write(self._descriptor, block)

    def _rotate(self) -> None:
        self._path.replace(self._path.with_name(f"{self._path.name}.1"))
        before = self._descriptor
        self._descriptor, self._size = self._open()
        os.close(before)

    def _open(self) -> tuple[int, int]:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with suppress(PermissionError):  # it may be another's, who lets us write
            os.fchmod(descriptor, 0o600)
        return descriptor, os.fstat(descriptor).st_size
