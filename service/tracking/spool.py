"""The spool: events on disk between the driver, which appends, and the recorder, which reads."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from service.tracking.events import Event

FILE = "events.jsonl"


class Spool:
    """The driver's end. `append` hands the event to the operating system before it returns: a killed process loses
    nothing. Thread safe; one writer a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        _cut_torn_line(path)
        self._file = path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def append(self, event: Event) -> None:
        line = json.dumps(_encode(event), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        with self._lock:
            self._file.write(line)

    def close(self) -> None:
        self._file.close()


def read_events(folder: Path, offset: int, limit: int) -> tuple[list[Event], int]:
    """Up to `limit` whole events from a byte offset on, and the offset behind them. A line under way is left alone."""
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
            events.append(cast("Event", _decode(json.loads(line))))
    return events, offset


def count_events(folder: Path, offset: int) -> int:
    """How many whole events lie behind a byte offset."""
    path = folder / FILE
    if not path.exists():
        return 0
    with path.open("rb") as file:
        file.seek(offset)
        return file.read().count(b"\n")


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
    if "metrics" in data:
        data["metrics"] = {name: float(value) for name, value in data["metrics"].items()}
    return data
