"""The spool: events on disk between the driver, which appends, and the recorder, which reads."""

from __future__ import annotations

import errno
import json
import math
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from dialin.texts import shorten
from dialin.tracking.events import Event, parse_event

FILE = "events.jsonl"
LONGEST_LINE = 1 << 20  # bytes; what is longer was not written by `append`
TEXT_CHARACTERS, SHORT_CHARACTERS = 8000, 200  # of one text in an event; of one in an event that would be too long
BYTES_A_PART = 16 << 20
_CHUNK = 1 << 20


class Part(NamedTuple):
    """Some events of a spool, the byte offset behind them, and how many damaged lines were left out between them."""

    events: list[Event]
    offset: int
    damaged: int = 0


class Spool:
    """The driver's end. `append` hands the event to the operating system before it returns: a killed process loses
    nothing. Raises OSError when the disk takes no more. Thread safe; one writer a folder.

    A file that is deleted while it is open is written again, whole, by `append` or `restore`, whichever is next."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        _cut_torn_line(self._path)
        self._file = self._path.open("a+b", buffering=0)
        self._lock = threading.Lock()

    def append(self, event: Event) -> None:
        line = encode(event)
        with self._lock:
            self._restore()
            written = self._file.write(line)
            if written != len(line):  # the disk is full; half a line would spoil the next one
                self._file.truncate(self._file.seek(0, os.SEEK_END) - (written or 0))
                raise OSError(errno.ENOSPC, f"{self._path}: no space left for an event", str(self._path))

    def restore(self) -> bool:
        """Write the file again where somebody has deleted it; whether that was so."""
        with self._lock:
            return self._restore()

    def close(self) -> None:
        with self._lock:
            self._file.close()

    def _restore(self) -> bool:
        if self._file.closed or self._is_there():
            return False
        for _ in range(5):
            with suppress(OSError):  # whoever deletes the folder is still at it: the open file has all of it until then
                self._write_again()
                return True
            time.sleep(0.01)
        return True

    def _is_there(self) -> bool:
        try:
            found = os.stat(self._path)  # noqa: PTH116  asked for every event: half the time of pathlib's
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._file.fileno()))

    def _write_again(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f"{FILE}.partial")
        again, offset = partial.open("w+b", buffering=0), 0
        while chunk := os.pread(self._file.fileno(), _CHUNK, offset):
            offset += again.write(chunk) or 0
        partial.replace(self._path)
        again.close()
        self._file.close()
        self._file = self._path.open("a+b", buffering=0)


def read_events(folder: Path, offset: int, limit: int) -> Part:
    """Up to `limit` whole events from a byte offset on. A line under way is left alone, a damaged one left out: what
    comes behind it is worth having all the same. What was rebuilt begins a part of its own."""
    events: list[Event] = []
    damaged, end = 0, offset + BYTES_A_PART
    with suppress(FileNotFoundError), (folder / FILE).open("rb") as file:
        file.seek(offset)
        while len(events) < limit and offset < end:
            line, length = _read_line(file)
            if not length:
                break
            try:
                event = parse_event(json.loads(line))
            except (ValueError, RecursionError):
                damaged, offset = damaged + 1, offset + length
                continue
            if event.get("rebuilt") and (events or damaged):
                break
            events.append(event)
            offset += length
    return Part(events, offset, damaged)


def has_spool(folder: Path) -> bool:
    return (folder / FILE).exists()


def count_events(folder: Path, offset: int) -> int:
    """How many whole events lie behind a byte offset; all, for an offset that is none of this spool's."""
    count = 0
    with suppress(FileNotFoundError), (folder / FILE).open("rb") as file:
        file.seek(offset if _begins_line(file, offset) else 0)
        while chunk := file.read(_CHUNK):
            count += chunk.count(b"\n")
    return count


def is_line_start(folder: Path, offset: int) -> bool:
    """Whether a line of the spool begins at a byte offset, or could: at its end."""
    try:
        with (folder / FILE).open("rb") as file:
            return _begins_line(file, offset)
    except FileNotFoundError:
        return offset == 0


def _begins_line(file: BinaryIO, offset: int) -> bool:
    if offset == 0:
        return True
    if offset > os.fstat(file.fileno()).st_size:
        return False
    file.seek(offset - 1)
    return file.read(1) == b"\n"


def _read_line(file: BinaryIO) -> tuple[bytes, int]:
    """The next line and its length in bytes; no line where it is too long, no length where it has not ended."""
    line = file.readline(LONGEST_LINE + 1)
    length = len(line)
    if line.endswith(b"\n"):
        return line, length
    while len(line) > LONGEST_LINE:
        line = file.readline(LONGEST_LINE + 1)
        length += len(line)
        if line.endswith(b"\n"):
            return b"", length
    return b"", 0


def _cut_torn_line(path: Path) -> None:
    """A process that died while it wrote leaves half a line; the next event must not be glued to it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = end
        while start > 0:
            start = max(0, start - _CHUNK)
            file.seek(start)
            newline = file.read(min(_CHUNK, end - start)).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
        file.truncate(0)


def encode(event: Event) -> bytes:
    """A line of at most `LONGEST_LINE` bytes: long texts are cut, and of what is too long even so the head is kept."""
    with suppress(ValueError):  # a number that is none in JSON
        line = _line(event)
        if len(line) <= TEXT_CHARACTERS:  # as nearly all are: there is nothing to cut
            return line
    for most in (TEXT_CHARACTERS, SHORT_CHARACTERS):
        line = _line(_shortened(event, most))
        if len(line) <= LONGEST_LINE:
            return line
    head = {name: {} if isinstance(value, Mapping) else value for name, value in event.items()}
    return _line(_shortened(head, SHORT_CHARACTERS))


def _line(data: Mapping[str, object]) -> bytes:
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _shortened(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return shorten(value, most)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN; a metric that was one is the very thing that must not get lost
    if isinstance(value, Mapping):
        return {name: _shortened(each, most) for name, each in value.items()}
    return [_shortened(each, most) for each in value] if isinstance(value, list) else value
