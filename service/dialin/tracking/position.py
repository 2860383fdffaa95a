"""How far the recorder has come with a spool, on disk beside it."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

FILE = "position.json"
MOST_BYTES = 64 << 20  # of a file of ours: a million trials


@dataclass
class Position:
    """`offset`: bytes of the spool that are in the MLflow at `uri`. `experiment` and `parent` are MLflow's ids, `runs`
    those of the trials; `epochs`: the last one written, by trial; `open`: trials that have not ended; `time`: of the
    last event (ms); `ended`: whether the study has; `damaged`: lines that were left out, since the spool was rebuilt;
    `rebuilt`: whether the events just there were made from the study's storage. Everything in it can be found again
    from the spool and MLflow."""

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

    def copy(self) -> Position:
        return copy.deepcopy(self)


def read_position(folder: Path) -> Position:
    """The position beside a spool; the beginning when there is none that can be read: the recorder finds its way."""
    try:
        with (folder / FILE).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        return _parse(json.loads(text)) if len(text) <= MOST_BYTES else Position()
    except (OSError, ValueError, RecursionError):
        return Position()


def write_position(folder: Path, position: Position) -> None:
    """Replaced as a whole: a reader, or a crash, finds the old one or the new one."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(position)))
    os.replace(partial, folder / FILE)  # noqa: PTH105  the atomic one, by name


def _parse(data: Any) -> Position:
    """Raises ValueError for what `write_position` would not have written."""
    if not isinstance(data, dict):
        raise ValueError("no object")
    there = {one.name: data[one.name] for one in fields(Position) if one.name in data}
    of = {"runs": str, "epochs": int, "open": str}
    for name, value in there.items():
        if type(value) is not type(getattr(Position(), name)) or (type(value) is int and value < 0):
            raise ValueError(f"{name}: {value!r:.80}")
        members = list(value.values()) if isinstance(value, dict) else value
        if name in of and any(type(member) is not of[name] for member in members):
            raise ValueError(f"{name}: {value!r:.80}")
    return Position(**there)
