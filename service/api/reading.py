"""What is stored of studies, read at most once a second however many ask."""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from service.calibration import from_data
from service.history import ReadBack, result_of
from service.journal import read_journal
from service.search.records import TrialRecord
from service.search.storage import open_storage
from service.search.trial_rows import read_study
from service.settings import OutputFolder, Settings
from service.spec import stored_spec
from service.store.studies import StudyRow
from service.store.submissions import ACTIVE
from service.tracking.mirror import lag_of
from service.tracking.position import read_position

FRESH_SECONDS = 1.0
MOST_KEPT = 128

T = TypeVar("T")


class Cache(Generic[T]):
    """Values by key, each made by one caller at a time and kept for a while, as long as its stamp is the same."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[object, float, T]] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}

    def get(self, key: str, stamp: object, make: Callable[[T | None], T], seconds: float = FRESH_SECONDS) -> T:
        """`make` gets what was kept under the key before, if anything."""
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            with self._lock:
                before = self._kept.get(key)
            if before is not None and before[0] == stamp and self._clock() - before[1] < seconds:
                return before[2]
            value = make(before[2] if before is not None else None)
            with self._lock:
                self._kept[key] = (stamp, self._clock(), value)
                self._kept.move_to_end(key)
                while len(self._kept) > MOST_KEPT:
                    gone, _ = self._kept.popitem(last=False)
                    self._making.pop(gone, None)
            return value


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
class Course:
    """How the best value of a study came about, as far as its journal was read."""

    maximize: bool
    offset: int = 0
    seen: set[tuple[int, int]] = field(default_factory=set)
    trials: set[int] = field(default_factory=set)
    began: float | None = None
    best: float | None = None
    points: list[Point] = field(default_factory=list)
    last: Point | None = None

    def read_on(self, journal: Path) -> Course:
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
        if (trial, epoch) in self.seen:
            return
        self.seen.add((trial, epoch))
        self.trials.add(trial)
        if value is None:
            return
        better = self.best is None or (value > self.best if self.maximize else value < self.best)
        self.best = value if better else self.best
        seconds = round(float(event["time"]) - self.began, 3)
        self.last = Point(trial, epoch, len(self.seen), len(self.trials), seconds, value, self.best or 0.0)
        if better:
            self.points.append(self.last)


class Reader:
    """Studies as they are stored, for many who ask at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._out = OutputFolder(settings.out)
        self._storage = open_storage(settings.database)
        self._records: Cache[list[TrialRecord]] = Cache()
        self._courses: Cache[Course] = Cache()
        self._lags: Cache[int] = Cache()
        self._runs: Cache[tuple[str, str, Mapping[str, str]]] = Cache()

    def records(self, row: StudyRow) -> list[TrialRecord]:
        """Its trials, by number; of one that is under way at most a second old."""
        seconds = FRESH_SECONDS if row.state in ACTIVE else float("inf")
        return self._records.get(row.id, _stamp(row), lambda _: read_study(self._storage, row.id), seconds)

    def read_back(self, row: StudyRow) -> ReadBack:
        spec, trials = stored_spec(row.spec), self.records(row)
        file = self._out.study(row.id).calibration
        calibration = from_data(json.loads(file.read_text())) if file.exists() else None
        return ReadBack(row, spec, trials, result_of(row, spec, trials, self._settings), calibration, self.lag(row))

    def points(self, row: StudyRow, maximize: bool) -> Sequence[Point]:
        """Every new best value, and the last value of all."""
        journal = self._out.study(row.id).journal
        course = self._courses.get(row.id, maximize, lambda old: (old or Course(maximize)).read_on(journal))
        tail = [course.last] if course.last is not None and course.last not in course.points[-1:] else []
        return [*course.points, *tail]

    def lag(self, row: StudyRow) -> int:
        """Events that MLflow has not got yet."""
        return self._lags.get(row.id, "", lambda _: lag_of(self._out.study(row.id).spool))

    def mlflow_runs(self, row: StudyRow) -> tuple[str, str, Mapping[str, str]]:
        """MLflow's ids of the study's experiment, of its parent run, and of its trials' runs by number; empty while the
        mirror has not got so far."""

        def read(_: object) -> tuple[str, str, Mapping[str, str]]:
            position = read_position(self._out.study(row.id).spool)
            return position.experiment, position.parent, position.runs

        return self._runs.get(row.id, "", read)


def _stamp(row: StudyRow) -> tuple[object, ...]:
    return row.state, row.ended_at
