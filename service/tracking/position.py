"""How far the recorder has come with a spool, on disk beside it."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

FILE = "position.json"


@dataclass
class Position:
    """`offset`: bytes of the spool that are in the MLflow at `uri`. `experiment` and `parent` are MLflow's ids, `runs`
    those of the trials; `epochs`: the last one written, by trial; `open`: trials that have not ended; `time`: of the
    last event (ms); `ended`: whether the study has. Everything in it can be found again from the spool and MLflow."""

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

    def copy(self) -> Position:
        return copy.deepcopy(self)


def read_position(folder: Path) -> Position:
    """The position beside a spool; the beginning when there is none that can be read: the recorder finds its way."""
    try:
        data = json.loads((folder / FILE).read_text())
        return Position(**{one.name: data[one.name] for one in fields(Position) if one.name in data})
    except (FileNotFoundError, ValueError, TypeError):
        return Position()


def write_position(folder: Path, position: Position) -> None:
    """Replaced as a whole: a reader, or a crash, finds the old one or the new one."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(position)))
    os.replace(partial, folder / FILE)  # noqa: PTH105  the atomic one, by name
