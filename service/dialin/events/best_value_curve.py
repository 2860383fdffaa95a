"""How the best value of a study grew, read from its event log; with several metrics, how its hypervolume grew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from dialin.events.log import metric_of, read_events
from dialin.events.types import EpochReported
from dialin.search.goals import Goals, Point
from dialin.search.pareto import Array, hypervolume

MOST_POINTS = 2000  # in memory: a curve of more looks the same
MOST_VOLUMES = 100  # computed for one curve
MOST_VOLUME_METRICS = 3  # beyond these the hypervolume is too slow to compute exactly
BEYOND = 0.1  # how far the reference lies beyond the worst of the front, as a fraction of the front's range
HYPERVOLUME = "hypervolume"
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


@dataclass(frozen=True)
class ShownCurve:
    """A curve to show, with the fields of `dialin.schemas.BestCurve`."""

    metric: str
    mode: str
    points: Sequence[CurvePoint]
    """The improvements and the last report."""
    left_out: int
    """How many improvements are not among them."""
    reference: dict[str, float] | None = None
    """The reference point of a hypervolume; None for a metric."""


@dataclass
class Curve:
    """What has been read of an event log. It is read on in place, and is not thread safe."""

    goals: Goals
    """The metrics and the constraints of the study."""
    offset: int = 0
    """The bytes of the event log that were read."""
    epochs: int = 0
    """The epochs of all trials together."""
    reported: dict[int, int] = field(default_factory=dict)
    """The last epoch of each trial."""
    began: float | None = None
    """When the first report came, in seconds since 1970."""

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return len(self.reported) * _BYTES_PER_TRIAL

    def shown(self) -> ShownCurve:
        """The curve as far as it was read."""
        raise NotImplementedError

    def read_on(self, folder: Path) -> Curve:
        """Read what has been added to the event log in a folder; returns the curve itself."""
        metric = metric_of(folder)
        while True:
            part = read_events(folder, self.offset, metric=metric)
            for event in part.events:
                if isinstance(event, EpochReported):
                    self._count(event)
            if part.offset == self.offset:
                return self
            self.offset = part.offset

    def _count(self, event: EpochReported) -> None:
        self.began = self.began if self.began is not None else event.time / 1000
        # A driver that continues from an older checkpoint reports the epochs after it again.
        if event.epoch <= self.reported.get(event.trial, 0):
            return
        self.reported[event.trial] = event.epoch
        self.epochs += 1
        if event.value is None:
            return
        point = self.goals.point(event.epoch, event.value, event.metrics) if not self.goals.is_single else None
        if self.goals.is_single or point is not None:
            seconds = round(event.time / 1000 - self.began, 3)
            report = CurvePoint(
                event.trial, event.epoch, self.epochs, len(self.reported), seconds, event.value, event.value
            )
            self._add(report, point)

    def _add(self, report: CurvePoint, point: Point | None) -> None:
        """Add a report whose values are finite. `point`: None with one metric and no constraint."""
        raise NotImplementedError


@dataclass
class BestValueCurve(Curve):
    """Every report that improved the best value of the first metric; reports that violate a constraint do not count.

    Where these are more than MOST_POINTS, the first, the last and some between them stay.
    """

    best: float | None = None
    """The best value so far."""
    points: list[CurvePoint] = field(default_factory=list)
    """The improvements, oldest first."""
    last: CurvePoint | None = None
    """The last report that counts."""
    left_out: int = 0
    """How many improvements are not among `points`."""

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return super().bytes + len(self.points) * _BYTES_PER_POINT

    def shown(self) -> ShownCurve:
        """The improvements and the last report."""
        metric = self.goals.metrics[0]
        tail = [self.last] if self.last is not None and self.last not in self.points[-1:] else []
        return ShownCurve(metric.name, metric.mode, [*self.points, *tail], self.left_out)

    def _add(self, report: CurvePoint, point: Point | None) -> None:
        if point is not None and not point.is_feasible:
            return
        sign, value = self.goals.metrics[0].sign, report.value
        better = self.best is None or sign * value > sign * self.best
        self.best = value if better or self.best is None else self.best
        self.last = replace(report, best=self.best)
        if better:
            self.points.append(self.last)
            self._thin_out()

    def _thin_out(self) -> None:
        if len(self.points) > MOST_POINTS:
            kept = [self.points[0], *self.points[2:-1:2], self.points[-1]]
            self.left_out += len(self.points) - len(kept)
            self.points = kept


@dataclass
class HypervolumeCurve(Curve):
    """Every report that enlarged the part of the space that the reports dominate together.

    A report counts if it is the best of its trial so far by the first metric, as a trial's point is, and meets the
    constraints. The volume is a fraction: 1 would be a trial that is the best in every metric. Its reference point
    follows from the front as it is now (Ishibuchi et al. 2018, How to specify a reference point in hypervolume
    calculation for fair performance comparison), so the curve of a running study may be scaled anew as the front grows.
    """

    entries: list[tuple[CurvePoint, tuple[float, ...]]] = field(default_factory=list)
    """Reports that none before them dominated, each with its metrics, signed so that larger is better."""
    front: list[tuple[float, ...]] = field(default_factory=list)
    """The metrics of the entries that no other dominates."""
    peaks: dict[int, float] = field(default_factory=dict)
    """The best value of the first metric of each trial, signed."""
    last: CurvePoint | None = None
    """The last report."""
    left_out: int = 0
    """How many improvements are not among `entries`."""

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        return super().bytes + len(self.entries) * _BYTES_PER_POINT + len(self.peaks) * _BYTES_PER_TRIAL

    def shown(self) -> ShownCurve:
        """The volume after each improvement, MOST_VOLUMES of them at most, and after the last report."""
        if not self.front or self.last is None:
            return ShownCurve(HYPERVOLUME, "max", (), 0)
        ideal, reference = _box(np.array(self.front))
        points = self._volumes(ideal, reference)
        left_out = self.left_out + len(self.entries) - len(points)
        if points[-1].epochs_total != self.last.epochs_total:
            points.append(replace(self.last, best=points[-1].best))
        own = {metric.name: metric.sign * float(at) for metric, at in zip(self.goals.metrics, reference, strict=True)}
        return ShownCurve(HYPERVOLUME, "max", points, left_out, own)

    def _volumes(self, ideal: Array, reference: Array) -> list[CurvePoint]:
        """The volume after some of the entries, the last one included."""
        every = -(-len(self.entries) // MOST_VOLUMES)
        points: list[CurvePoint] = []
        front: list[tuple[float, ...]] = []
        for place, (report, signed) in enumerate(self.entries, 1):
            front = [*(other for other in front if not _covers(signed, other)), signed]
            if place % every == 0 or place == len(self.entries):
                scaled = (np.array(front) - reference) / (ideal - reference)
                points.append(replace(report, best=round(hypervolume(scaled, np.zeros(len(reference))), 6)))
        return points

    def _add(self, report: CurvePoint, point: Point | None) -> None:
        self.last = report
        if point is None:
            return
        signed = self.goals.signed(point)
        if signed[0] <= self.peaks.get(report.trial, -np.inf):
            return
        self.peaks[report.trial] = signed[0]
        if point.is_feasible and not any(_covers(other, signed) for other in self.front):
            self.front = [*(other for other in self.front if not _covers(signed, other)), signed]
            self.entries.append((report, signed))
            self._thin_out()

    def _thin_out(self) -> None:
        if len(self.entries) <= MOST_POINTS:
            return
        on_front = set(self.front)
        others = [index for index, (_, signed) in enumerate(self.entries) if signed not in on_front]
        dropped = set(others[1::2])
        self.entries = [entry for index, entry in enumerate(self.entries) if index not in dropped]
        self.left_out += len(dropped)


def curve_of(goals: Goals) -> Curve:
    """An empty curve: of the hypervolume of two or three metrics, of the best value of one, and of more than three
    metrics, of the first one."""
    several = 1 < len(goals.metrics) <= MOST_VOLUME_METRICS
    return HypervolumeCurve(goals) if several else BestValueCurve(goals)


def _covers(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether a point is at least as good as another in every metric."""
    return all(mine >= theirs for mine, theirs in zip(one, other, strict=True))


def _box(front: Array) -> tuple[Array, Array]:
    """The best value of each metric on the front, and the reference point beyond the worst."""
    ideal, worst = front.max(0), front.min(0)
    width = ideal - worst
    # A front of one point has no range: a tenth of the value, or 1 around 0, stands for it.
    own = np.where(ideal != 0, np.abs(ideal), 1.0)
    return ideal, worst - BEYOND * np.where(width > 0, width, own)
