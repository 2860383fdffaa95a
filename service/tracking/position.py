"""How far the recorder has come with a spool, on disk beside it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "position.json"


@dataclass
class Position:
    """`offset`: bytes of the spool that are in MLflow. Run ids by trial; `epochs`: the last one written, by trial."""

    offset: int = 0
    study: str = ""
    experiment: str = ""
    parent: str = ""
    runs: dict[str, str] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    ended: bool = False

    def copy(self) -> Position:
        return Position(**{**asdict(self), "runs": dict(self.runs), "epochs": dict(self.epochs)})


def read_position(folder: Path) -> Position:
    """The position beside a spool; the beginning when there is none."""
    try:
        return Position(**json.loads((folder / FILE).read_text()))
    except FileNotFoundError:
        return Position()


def write_position(folder: Path, position: Position) -> None:
    """Replaced as a whole: a reader, or a crash, finds the old one or the new one."""
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(asdict(position)))
    os.replace(partial, folder / FILE)  # noqa: PTH105  the atomic one, by name
