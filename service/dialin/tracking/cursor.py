"""The recorder's cursor: how much of an event log is in MLflow, in a file beside the log."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FILE = "position.json"  # its name since the first release: older folders continue as they are
MOST_BYTES = 64 << 20  # enough for a million trials; a larger file was not written by us


@dataclass
class Cursor:
    """How far a log is replicated. All of it can be found again from the log and MLflow, so that it may be lost.

    offset: bytes of the log that are in MLflow.
    uri: the MLflow that has them.
    study: the study's id; empty while the event that says it was not read.
    name: the study's name.
    experiment: MLflow's id of the experiment.
    parent: MLflow's id of the study's run.
    runs: MLflow's ids of the trials' runs, by trial number.
    epochs: the last epoch that was written, by trial number.
    open: numbers of the trials that have not ended.
    time: of the last event, in milliseconds since 1970.
    ended: whether the study has ended.
    damaged: how many lines were left out since the log was rebuilt.
    rebuilt: whether the events at the offset were made from the search's storage.
    """

    offset: int = 0
    uri: str = ""
    study: str = ""
    name: str = ""
    experiment: str = ""
    parent: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    time: int = 0
    ended: bool = False
    damaged: int = 0
    rebuilt: bool = False

    def copy(self) -> Cursor:
        """A cursor that can be changed without changing this one."""
        return copy.deepcopy(self)


_START = Cursor()
_MEMBERS = {"runs": str, "epochs": int, "open": str}  # what a collection holds


def read_cursor(folder: Path) -> Cursor:
    """The cursor beside a log. If it is missing or cannot be read it is at the beginning: the recorder then finds the
    existing runs by their tags."""
    try:
        with (folder / FILE).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        return _parse(json.loads(text)) if len(text) <= MOST_BYTES else Cursor()
    except (OSError, ValueError, RecursionError):
        return Cursor()


def write_cursor(folder: Path, cursor: Cursor) -> None:
    """Replace the cursor atomically: after a crash, readers find the old one or the new one."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(cursor)))
    partial.replace(folder / FILE)


def _parse(data: Any) -> Cursor:
    """Raises ValueError for data that `write_cursor` does not write."""
    if not isinstance(data, dict):
        raise ValueError("not an object")
    there = {one.name: data[one.name] for one in fields(Cursor) if one.name in data}
    for name, value in there.items():
        if not _fits(name, value):
            raise ValueError(f"{name}: {value!r:.80}")
    return Cursor(**there)


def _fits(name: str, value: Any) -> bool:
    """Whether a field may have this value. Its type is that of the field's default: `true` is not a number here."""
    if type(value) is not type(getattr(_START, name)):
        return False
    if name in _MEMBERS:
        members = value.values() if isinstance(value, dict) else value
        return all(type(member) is _MEMBERS[name] for member in members)
    return type(value) is not int or value >= 0
