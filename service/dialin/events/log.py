"""A study's event log: the file that its driver appends to, and that the recorder and the server read.

Every reader keeps its own byte offset, so that a reader that stops can continue where it was. A line that was being
written when its process died is incomplete: readers leave it alone, and the next writer removes it.
"""

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

from dialin.events.types import Event, Note, StudyStarted, event_data, parse_event
from dialin.texts import shorten

FILE = "events.jsonl"
MOST_LINE_BYTES = 1 << 20  # a longer line was not written by `append`
TEXT_CHARACTERS = (8000, 200)  # at most, of a text in a line; the second number for a line that would be too long
PART_BYTES = 16 << 20
PART_EVENTS = 2000
_CHUNK_BYTES = 1 << 20
_RESTORE_ATTEMPTS, _RESTORE_PAUSE_SECONDS = 5, 0.01


class Entry(NamedTuple):
    """An event of a log.

    end: the byte offset behind its line, from which the next event can be read.
    event: the event.
    """

    end: int
    event: Event


class Part(NamedTuple):
    """Consecutive events of a log.

    entries: the events, each with the offset behind it.
    offset: the byte offset behind the part.
    damaged: how many lines within the part could not be read.
    """

    entries: list[Entry]
    offset: int
    damaged: int = 0

    @property
    def events(self) -> list[Event]:
        """The events alone."""
        return [entry.event for entry in self.entries]


class EventLog:
    """The writer of an event log. One writer a folder; thread safe. A context manager that closes the file.

    `append` hands the events to the operating system before it returns: a process that is killed loses none of them.
    A file that is deleted while it is open is written again, whole, by the next `append` or `restore`.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / FILE
        _cut_incomplete_line(self._path)
        self._file = self._path.open("a+b", buffering=0)
        self._lock = threading.RLock()  # a signal's handler may write a note while this thread writes

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, *events: Event) -> None:
        """Write events with one system call. Raises OSError when the disk is full; then none of them is in the log."""
        lines = b"".join(encode(event) for event in events)
        with self._lock:
            self._restore()
            written = self._file.write(lines)
            if written != len(lines):
                self._file.truncate(self._file.seek(0, os.SEEK_END) - (written or 0))
                raise OSError(errno.ENOSPC, f"{self._path}: no space left for an event", str(self._path))

    def restore(self) -> bool:
        """Write the file again if it was deleted; returns whether it was."""
        with self._lock:
            return self._restore()

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
        with self._lock:
            self._file.close()

    def _restore(self) -> bool:
        if self._file.closed or self._is_there():
            return False
        for _ in range(_RESTORE_ATTEMPTS):
            # Whoever deletes the folder may not have finished. Meanwhile the open file still has all events.
            with suppress(OSError):
                self._write_again()
                return True
            time.sleep(_RESTORE_PAUSE_SECONDS)
        return True

    def _is_there(self) -> bool:
        try:
            found = os.stat(self._path)  # noqa: PTH116  asked for every event, and twice as fast as pathlib's
        except OSError:
            return False
        return os.path.samestat(found, os.fstat(self._file.fileno()))

    def _write_again(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(f"{FILE}.partial")
        again, offset = partial.open("w+b", buffering=0), 0
        while chunk := os.pread(self._file.fileno(), _CHUNK_BYTES, offset):
            offset += again.write(chunk) or 0
        partial.replace(self._path)
        again.close()
        self._file.close()
        self._file = self._path.open("a+b", buffering=0)


def read_events(
    folder: Path, offset: int, limit: int = PART_EVENTS, *, most_bytes: int = PART_BYTES, metric: str = ""
) -> Part:
    """Up to `limit` events from a byte offset on. An incomplete last line is left for the next call.

    Lines that cannot be read are counted and passed over; a note stands in place of a line that is longer than any
    writer's. A rebuilt part of a log starts a part of its own. `metric` as for `parse_event`.
    """
    entries: list[Entry] = []
    damaged, end = 0, offset + most_bytes
    with suppress(FileNotFoundError), (folder / FILE).open("rb") as file:
        file.seek(offset)
        while len(entries) < limit and offset < end:
            line, length = _read_line(file)
            if not length:
                break
            event, is_damaged = _event_in(line, length, metric)
            if isinstance(event, StudyStarted) and event.rebuilt and (entries or damaged):
                break
            offset += length
            damaged += is_damaged
            if event is not None:
                entries.append(Entry(offset, event))
    return Part(entries, offset, damaged)


def metric_of(folder: Path) -> str:
    """The metric that the study optimizes, as the first event of its log says it; empty if that cannot be read.
    Readers of older logs need it, as `parse_event` says."""
    first = next(iter(read_events(folder, 0, 1).events), None)
    return str(first.params.get("metric", "")) if isinstance(first, StudyStarted) else ""


def has_log(folder: Path) -> bool:
    """Whether there is an event log in a folder."""
    return (folder / FILE).exists()


def count_events(folder: Path, offset: int) -> int:
    """How many complete lines follow a byte offset; all lines if no line starts at that offset."""
    count = 0
    with suppress(FileNotFoundError), (folder / FILE).open("rb") as file:
        file.seek(offset if _starts_line(file, offset) else 0)
        while chunk := file.read(_CHUNK_BYTES):
            count += chunk.count(b"\n")
    return count


def is_line_start(folder: Path, offset: int) -> bool:
    """Whether a line of the log starts at a byte offset. The end of the log counts as one."""
    try:
        with (folder / FILE).open("rb") as file:
            return _starts_line(file, offset)
    except FileNotFoundError:
        return offset == 0


def encode(event: Event) -> bytes:
    """An event as a line of at most `MOST_LINE_BYTES`, with its end of line. Long texts are cut."""
    data = event_data(event)
    with suppress(ValueError):  # a number that JSON does not have
        line = _json(data)
        if len(line) <= TEXT_CHARACTERS[0]:  # nearly always: then no text is too long
            return line + b"\n"
    return bounded_json(data, MOST_LINE_BYTES - 1, TEXT_CHARACTERS) + b"\n"


def bounded_json(data: Mapping[str, Any], most_bytes: int, text_characters: tuple[int, ...]) -> bytes:
    """A mapping as JSON of at most `most_bytes`. Texts are cut to the first of the lengths with which it fits; if none
    is short enough, objects within the mapping are left empty."""
    for most in text_characters:
        encoded = _json(_shortened(data, most))
        if len(encoded) <= most_bytes:
            return encoded
    head = {name: {} if isinstance(value, Mapping) else value for name, value in data.items()}
    return _json(_shortened(head, text_characters[-1]))


def _json(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, separators=(",", ":"), allow_nan=False).encode()


def _shortened(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return shorten(value, most)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN, and a metric that became NaN must not be lost
    if isinstance(value, Mapping):
        return {shorten(str(name), most): _shortened(each, most) for name, each in value.items()}
    return [_shortened(each, most) for each in value] if isinstance(value, list | tuple) else value


def _event_in(line: bytes, length: int, metric: str) -> tuple[Event | None, bool]:
    """The event in a line, and whether the line is damaged. `line` is empty if it is too long."""
    if length > MOST_LINE_BYTES:
        return Note(f"[a line of {length:,} bytes in the study's event log is left out]", time=0), True
    try:
        return parse_event(json.loads(line), metric), False
    except (ValueError, RecursionError):
        return None, True


def _starts_line(file: BinaryIO, offset: int) -> bool:
    if offset == 0:
        return True
    if offset > os.fstat(file.fileno()).st_size:
        return False
    file.seek(offset - 1)
    return file.read(1) == b"\n"


def _read_line(file: BinaryIO) -> tuple[bytes, int]:
    """The next line and its length in bytes. The line is empty if it is too long, the length 0 if it is incomplete."""
    line = file.readline(MOST_LINE_BYTES + 1)
    length = len(line)
    if line.endswith(b"\n"):
        return line, length
    while len(line) > MOST_LINE_BYTES:
        line = file.readline(MOST_LINE_BYTES + 1)
        length += len(line)
        if line.endswith(b"\n"):
            return b"", length
    return b"", 0


def _cut_incomplete_line(path: Path) -> None:
    """Remove the incomplete line of a process that died while writing; the next event would be glued to it."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        start = end
        while start > 0:
            start = max(0, start - _CHUNK_BYTES)
            file.seek(start)
            newline = file.read(min(_CHUNK_BYTES, end - start)).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
        file.truncate(0)
