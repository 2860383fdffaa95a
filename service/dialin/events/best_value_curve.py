"""How the best value of a study grew, read from its event log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dialin.events.log import metric_of, read_events
from dialin.events.types import EpochReported

MOST_POINTS = 2000  # in memory: a curve of more looks the same
_BYTES_PER_POINT = 300
_BYTES_PER_TRIAL = 100


@dataclass(frozen=True)
class CurvePoint:
    """A report of a trial, as `dialin.schemas.CurvePoint` describes it."""

    trial: int
    epoch: int
    epochs_total: int
    trials_total: int
    seconds: float
    value: float
    best: float


@dataclass
class BestValueCurve:
    """Every report that improved the best value, as far as the event log was read.

    Where these are more than MOST_POINTS, the first, the last and some between them stay. A curve is read on in place;
    it is not thread safe.
    """

    maximize: bool
    """Whether a larger value is better."""
    offset: int = 0
    """The bytes of the event log that were read."""
    epochs: int = 0
    """The epochs of all trials together."""
    reported: dict[int, int] = field(default_factory=dict)
    """The last epoch of each trial."""
    began: float | None = None
    """When the first report came, in seconds since 1970."""
    best: float | None = None
    """The best value so far."""
    points: list[CurvePoint] = field(default_factory=list)
    """The improvements, oldest first."""
    last: CurvePoint | None = None
    """The last report with a finite value."""
    left_out: int = 0
    """How many improvements are not among `points`."""

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return len(self.points) * _BYTES_PER_POINT + len(self.reported) * _BYTES_PER_TRIAL

    def shown(self) -> tuple[Sequence[CurvePoint], int]:
        """The improvements and the last report, and how many improvements are not among them."""
        tail = [self.last] if self.last is not None and self.last not in self.points[-1:] else []
        return [*self.points, *tail], self.left_out

    def read_on(self, folder: Path) -> BestValueCurve:
        """Read what has been added to the event log in a folder; returns the curve itself."""
        metric = metric_of(folder)
        while True:
            part = read_events(folder, self.offset, metric=metric)
            for event in part.events:
                if isinstance(event, EpochReported):
                    self._add(event)
            if part.offset == self.offset:
                return self
            self.offset = part.offset

    def _add(self, event: EpochReported) -> None:
        trial, epoch, value = event.trial, event.epoch, event.value
        self.began = self.began if self.began is not None else event.time / 1000
        # A driver that continues from an older checkpoint reports the epochs after it again.
        if epoch <= self.reported.get(trial, 0):
            return
        self.reported[trial] = epoch
        self.epochs += 1
        if value is None:
            return
        better = self.best is None or (value > self.best if self.maximize else value < self.best)
        self.best = value if better else self.best
        seconds = round(event.time / 1000 - self.began, 3)
        self.last = CurvePoint(trial, epoch, self.epochs, len(self.reported), seconds, value, self.best or 0.0)
        if better:
            self.points.append(self.last)
            self._thin_out()

    def _thin_out(self) -> None:
        if len(self.points) > MOST_POINTS:
            kept = [self.points[0], *self.points[2:-1:2], self.points[-1]]
            self.left_out += len(self.points) - len(kept)
            self.points = kept
