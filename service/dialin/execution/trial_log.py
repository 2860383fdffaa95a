"""The log of a trial, with the output of its code."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

MOST_BYTES = 1024 * 1024
"""Maximum size of one trial's log, so that a loop that prints each batch does not fill the disk."""


class TrialLog:
    """Copies what Python writes to standard output and error to a file, while a block runs with `captured()`.

    The text also goes to the original streams. The first text creates the file. Output that native code or other
    processes write to the file descriptors is not captured. At `MOST_BYTES` a last line says that the log is full, and
    later text is dropped. A log that cannot be written does not stop the trial. Thread safe.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._size: int | None = None  # of the file; None before the first text
        self._is_full = False

    @contextmanager
    def captured(self) -> Iterator[None]:
        """Capture the output of this block. It replaces the streams of the whole process, so only one trial may use it
        at a time."""
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = _Copied(before[0], self), _Copied(before[1], self)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before

    def append(self, text: str) -> None:
        """Add a text to the file."""
        data = text.encode(errors="backslashreplace")
        with self._lock:
            if self._is_full or not data:
                return
            try:
                self._write(data)
            except OSError:
                self._is_full = True  # the disk is full, for example; the trial continues without its log

    def _write(self, data: bytes) -> None:
        if self._size is None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._size = self._file.stat().st_size if self._file.exists() else 0
        if self._size + len(data) > MOST_BYTES:
            self._is_full = True
            data = data[: max(0, MOST_BYTES - self._size)]
            data += f"\n[this log is full: further output, beyond {MOST_BYTES // 1024} KiB, is not kept]\n".encode()
        with self._file.open("ab") as opened:
            opened.write(data)
        self._size += len(data)


class _Copied:
    """A text stream whose writes also go to a trial's log. It delegates all other attributes to the stream."""

    def __init__(self, stream: TextIO, log: TrialLog) -> None:
        self._stream, self._log = stream, log

    def write(self, text: str) -> int:
        """Write to the log and to the stream."""
        self._log.append(text)
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:  # for example half of a surrogate pair, which no encoding has
            return self._stream.write(text.encode(errors="backslashreplace").decode())

    def writelines(self, lines: list[str]) -> None:
        """Write each of the lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
