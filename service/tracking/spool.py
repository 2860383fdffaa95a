"""The spool: events on disk between the driver, which appends, and the recorder, which reads."""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from service.tracking.events import Event

FILE = "events.jsonl"


class Spool:
    """The driver's end. `append` hands the event to the operating system before it returns: a killed process loses
    nothing. Raises OSError when the disk takes no more. Thread safe; one writer a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        _cut_torn_line(path)
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def append(self, event: Event) -> None:
        line = json.dumps(_encode(event), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self._lock:
            written = self._file.write(line)
            if written != len(line):  # the disk is full; half a line would spoil the next one
                self._file.truncate(self._file.seek(0, os.SEEK_END) - (written or 0))
                raise OSError(errno.ENOSPC, f"{self._file.name}: no space left for an event", str(self._file.name))

    def close(self) -> None:
        self._file.close()


def read_events(folder: Path, offset: int, limit: int) -> tuple[list[Event], int]:
    """Up to `limit` whole events from a byte offset on, and the offset behind them. A line under way is left alone, a
    damaged one left out."""
    path = folder / FILE
    if not path.exists():
        return [], offset
    events: list[Event] = []
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if len(events) == limit or not line.endswith(b"\n"):
                break
            offset += len(line)
            try:
                events.append(cast("Event", _decode(json.loads(line))))
            except (ValueError, TypeError, AttributeError, KeyError):
                # A power cut can leave such a line; what comes behind it is worth having all the same.
                print(f"{path}: the line that ends at byte {offset} is damaged and left out", file=sys.stderr)
    return events, offset


def count_events(folder: Path, offset: int) -> int:
    """How many whole events lie behind a byte offset."""
    path = folder / FILE
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().count(b"\n")


def spool_bytes(folder: Path) -> int:
    """The size of the spool; 0 when there is none."""
    path = folder / FILE
    return path.stat().st_size if path.exists() else 0


def _cut_torn_line(path: Path) -> None:
    """A process that died while it wrote leaves half a line; the next event must not be glued to it."""
    if not path.exists():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


def _encode(event: Event) -> dict[str, Any]:
    # JSON has no NaN; a metric that was one is the very thing that must not get lost.
    metrics = cast("Mapping[str, float] | None", event.get("metrics"))
    if metrics is None:
        return dict(event)
    return {**event, "metrics": {name: v if math.isfinite(v) else str(v) for name, v in metrics.items()}}


def _decode(data: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(data["kind"], str):  # KeyError and TypeError: what is JSON and no event
        raise TypeError(f"kind {data['kind']!r}; a name")
    if "metrics" in data:
        data["metrics"] = {name: float(value) for name, value in data["metrics"].items()}
    return data
