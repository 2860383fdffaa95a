"""How the best value of a study came about, read on from its journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialin.events.journal import read_journal

MOST_POINTS = 2000  # that are kept: a curve of more looks the same
_BYTES_A_POINT = 300
_BYTES_A_TRIAL = 100


@dataclass(frozen=True)
class Point:
    """A new best value: after so many epochs of all trials together, and seconds since the first of them."""

    trial: int
    epoch: int
    epochs_total: int
    trials_total: int
    seconds: float
    value: float
    best: float


@dataclass
class BestCurve:
    """Every new best value, as far as the journal was read. Of very many the first, the last and some between them;
    `left_out` counts the others."""

    maximize: bool
    offset: int = 0
    epochs: int = 0
    reported: dict[int, int] = field(default_factory=dict)  # the last epoch of each trial
    began: float | None = None
    best: float | None = None
    points: list[Point] = field(default_factory=list)
    last: Point | None = None
    left_out: int = 0

    @property
    def bytes(self) -> int:
        """About so much memory."""
        return len(self.points) * _BYTES_A_POINT + len(self.reported) * _BYTES_A_TRIAL

    def shown(self) -> tuple[Sequence[Point], int]:
        """The points, with the last value of all, and how many are not among them."""
        tail = [self.last] if self.last is not None and self.last not in self.points[-1:] else []
        return [*self.points, *tail], self.left_out

    def read_on(self, journal: Path) -> BestCurve:
        while True:
            events, offset = read_journal(journal, self.offset)
            for _, event in events:
                if event["kind"] == "epoch":
                    self._take_in(event)
            if offset == self.offset:
                return self
            self.offset = offset

    def _take_in(self, event: Mapping[str, Any]) -> None:
        trial, epoch, value = int(event["trial"]), int(event["epoch"]), event.get("value")
        self.began = self.began if self.began is not None else float(event["time"])
        if epoch <= self.reported.get(trial, 0):  # told again by a driver that went on from an older checkpoint
            return
        self.reported[trial] = epoch
        self.epochs += 1
        if value is None:
            return
        better = self.best is None or (value > self.best if self.maximize else value < self.best)
        self.best = value if better else self.best
        seconds = round(float(event["time"]) - self.began, 3)
        self.last = Point(trial, epoch, self.epochs, len(self.reported), seconds, value, self.best or 0.0)
        if better:
            self.points.append(self.last)
            self._thin()

    def _thin(self) -> None:
        if len(self.points) > MOST_POINTS:
            kept = [self.points[0], *self.points[2:-1:2], self.points[-1]]
            self.left_out += len(self.points) - len(kept)
            self.points = kept
