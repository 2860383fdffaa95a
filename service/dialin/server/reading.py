"""What is stored of studies, read at most once in FRESH_SECONDS however many ask, and only what may have changed."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dialin.errors import reading
from dialin.lifecycle import ACTIVE
from dialin.paths import OutputFolder
from dialin.search.records import TrialRecord
from dialin.search.storage import close_storage, open_storage
from dialin.search.trial_rows import TrialReader
from dialin.server.best_curve import BestCurve, Point
from dialin.server.trial_view import TrialView
from dialin.settings import Settings
from dialin.specification import damage_of, stored_spec
from dialin.store.studies import StudyRow
from dialin.study_flow.calibration_file import read_calibration
from dialin.study_flow.snapshot import StudySnapshot, mirror_lag_of, result_of
from dialin.tracking.lag import Lag
from dialin.tracking.position import read_position

FRESH_SECONDS = 0.5  # and as long again in the response cache
MOST_BYTES = 128 * 2**20  # of trials that are kept, of all studies together
MOST_STUDIES = 1024  # that anything is kept of
_BYTES_A_RUN = 150  # of MLflow's: its id, by the trial's number

T = TypeVar("T")
Runs = tuple[str, str, Mapping[str, str]]


@dataclass
class _Value(Generic[T]):
    """A value with the stamp that it was read at."""

    stamp: object = None
    at: float = float("-inf")
    value: T | None = None


class _Kept:
    """What is kept of one study. `lock`: held by whoever reads it anew."""

    def __init__(self, reader: TrialReader) -> None:
        self.lock = threading.Lock()
        self.reader = reader
        self.view = _Value[TrialView]()
        self.lag, self.runs, self.curve = _Value[Lag](), _Value[Runs](), _Value[BestCurve]()

    @property
    def bytes(self) -> int:
        """About so much memory."""
        runs = len(self.runs.value[2]) if self.runs.value is not None else 0
        curve = self.curve.value.bytes if self.curve.value is not None else 0
        view = self.view.value.bytes if self.view.value is not None else 0
        return self.reader.bytes + view + curve + runs * _BYTES_A_RUN


class Reader:
    """Studies as they are stored, for many who ask at once. What is kept of those that nobody has asked for the longest
    is let go when all together take more than `most_bytes`."""

    def __init__(
        self, settings: Settings, clock: Callable[[], float] = time.monotonic, most_bytes: int = MOST_BYTES
    ) -> None:
        self._settings, self._clock, self._most_bytes = settings, clock, most_bytes
        self._out = OutputFolder(settings.out)
        self._storage = open_storage(settings.database)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._outcomes: OrderedDict[str, tuple[object, Any]] = OrderedDict()

    def close(self) -> None:
        """Close the connections; who reads again opens new ones."""
        close_storage(self._storage)

    def view(self, row: StudyRow) -> TrialView:
        """Its trials; of a study that is under way at most FRESH_SECONDS old."""
        with self._one(row) as kept:
            seconds = FRESH_SECONDS if row.state in ACTIVE else float("inf")
            return self._fresh(kept.view, _stamp(row), lambda old: _view_of(row, kept.reader.read(), old), seconds)

    def records(self, row: StudyRow) -> Sequence[TrialRecord]:
        """Its trials, by number."""
        return self.view(row).records

    def outcome(self, row: StudyRow, make: Callable[[TrialView], T]) -> T:
        """Something small that follows from its trials. Of a study that has ended it is kept when its trials are not:
        a list of many would read all their trials each time."""
        stamp = _stamp(row)
        if row.state in ACTIVE:
            return make(self.view(row))
        with self._lock:
            found = self._outcomes.get(row.id)
        if found is None or found[0] != stamp:
            found = (stamp, make(self.view(row)))
            with self._lock:
                self._outcomes[row.id] = found
                self._outcomes.move_to_end(row.id)
                while len(self._outcomes) > MOST_STUDIES:
                    self._outcomes.popitem(last=False)
        outcome: T = found[1]
        return outcome

    def read_back(self, row: StudyRow) -> StudySnapshot:
        """The study as `dialin show` has it."""
        view, spec = self.view(row), stored_spec(row.spec)
        folder = self._out.study(row.id)
        calibration = read_calibration(folder.calibration)
        range_tests = 0.0 if calibration is None else calibration.epochs
        key = ("back", row.state, row.reason, row.ended_at, row.spec, folder.best_config.exists(), range_tests)
        result = view.derived(key, lambda: result_of(row, spec, view.records, self._settings, calibration))
        lag = self.lag(row)
        return StudySnapshot(row, spec, view.records, result, calibration, lag.events, mirror_note=lag.text())

    def points(self, row: StudyRow, maximize: bool) -> tuple[Sequence[Point], int]:
        """Every new best value and the last value of all, and how many were left out where there are very many."""
        journal = self._out.study(row.id).journal
        with self._one(row) as kept:
            curve = self._fresh(kept.curve, maximize, lambda old: (old or BestCurve(maximize)).read_on(journal))
            return curve.shown()

    def lag(self, row: StudyRow) -> Lag:
        """How far MLflow is behind the study, and why."""
        with self._one(row) as kept, reading("how far MLflow has come"):
            return self._fresh(kept.lag, row.state, lambda _: mirror_lag_of(self._settings, row))

    def mlflow_runs(self, row: StudyRow) -> Runs:
        """MLflow's ids of the study's experiment, of its parent run, and of its trials' runs by number; empty while the
        mirror has not got so far."""

        def read(_: object) -> Runs:
            position = read_position(self._out.study(row.id).spool)
            return position.experiment, position.parent, dict(position.runs)

        with self._one(row) as kept, reading("what MLflow has of it"):
            return self._fresh(kept.runs, "", read)

    @contextmanager
    def _one(self, row: StudyRow) -> Iterator[_Kept]:
        """What is kept of a study, for one caller at a time."""
        with self._lock:
            kept = self._kept.setdefault(row.id, _Kept(TrialReader(self._storage, row.id)))
            self._kept.move_to_end(row.id)
        with kept.lock:
            yield kept
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        """Forget who was asked for the longest ago, but not the last one: it would be read again each time."""
        whole = sum(kept.bytes for kept in self._kept.values())
        while len(self._kept) > 1 and (whole > self._most_bytes or len(self._kept) > MOST_STUDIES):
            _, gone = self._kept.popitem(last=False)
            whole -= gone.bytes

    def _fresh(
        self, kept: _Value[T], stamp: object, make: Callable[[T | None], T], seconds: float = FRESH_SECONDS
    ) -> T:
        """The value, read again by `make` where its stamp is another one, or it is older than `seconds`."""
        now = self._clock()  # before it is read: it is as old as that afterwards
        if kept.value is None or kept.stamp != stamp or now - kept.at >= seconds:
            kept.value = make(kept.value)
            kept.stamp, kept.at = stamp, now
        return kept.value


def _view_of(row: StudyRow, records: Sequence[TrialRecord], before: TrialView | None) -> TrialView:
    # Of one whose specification cannot be read nobody knows what is better; its trials are counted all the same.
    maximize = bool(damage_of(row.spec)) or stored_spec(row.spec).objective.mode == "max"
    if before is not None and before.records is records and before.maximize is maximize:
        return before
    return TrialView(records, maximize)


def _stamp(row: StudyRow) -> tuple[object, ...]:
    return row.state, row.ended_at
