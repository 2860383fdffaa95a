"""Log files of bounded size."""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from pathlib import Path

LEAST_BYTES = 2**16
"""Size of one write, and the smallest bound of a log."""
CHECK_SECONDS = 5.0
"""Time between two checks of the length of a log."""


def keep_short(path: Path, most_bytes: int) -> None:
    """Rotate a log that is longer than `most_bytes`: copy it to `NAME.1` and truncate it.

    For logs that processes write to directly, each in append mode. Lines that are written during the copy may be lost.
    """
    with suppress(OSError):
        if path.stat().st_size > most_bytes:
            shutil.copyfile(path, path.with_name(f"{path.name}.1"))
            os.truncate(path, 0)


def watch_length(path: Path, most_bytes: int, seconds: float = CHECK_SECONDS) -> None:
    """Start a thread that calls `keep_short` every `seconds` until this process ends."""

    def watch() -> None:
        while True:
            keep_short(path, most_bytes)
            time.sleep(seconds)

    threading.Thread(target=watch, name=f"length of {path.name}", daemon=True).start()


class RotatingLog:
    """A log that only its owner can read. At `most_bytes` it is renamed to `NAME.1`, which replaces the previous one,
    and a new file is started.

    Data that cannot be written, for example on a full disk, is dropped: a log must not end the process that writes it.
    Raises ValueError for a bound below LEAST_BYTES, the size of one write.
    """

    def __init__(self, path: Path, most_bytes: int) -> None:
        if most_bytes < LEAST_BYTES:
            raise ValueError(f"most_bytes={most_bytes}; at least {LEAST_BYTES}")
        self._path, self._most_bytes = path, most_bytes
        self._descriptor, self._size = self._open()

    def write(self, data: bytes) -> None:
        """Append data, in pieces of LEAST_BYTES."""
        for begin in range(0, len(data), LEAST_BYTES):
            self._write(data[begin : begin + LEAST_BYTES])

    def close(self) -> None:
        """Close the file. Later writes are dropped."""
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
        with suppress(PermissionError):  # the file may belong to another account that allows writing
            os.fchmod(descriptor, 0o600)
        return descriptor, os.fstat(descriptor).st_size
