"""Reads studies from storage for requests, which often ask about the same ones.

Reading on is cheap: only what may have changed since the last time is read. So what was read is kept, within a bound
of bytes; how old an answer may be is decided in one place alone, the response cache.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cachetools import LRUCache

from dialin.errors import reading
from dialin.events.best_value_curve import Curve, ShownCurve, curve_of
from dialin.lifecycle import ACTIVE, StudyState
from dialin.paths import OutputFolder
from dialin.search.goals import Goals
from dialin.search.records import TrialRecord
from dialin.search.storage import close_storage, open_storage
from dialin.search.trial_rows import TrialReader
from dialin.server.trial_view import TrialView
from dialin.settings import Settings
from dialin.specification import damage_of, stored_spec
from dialin.specification.metrics import Metric
from dialin.store.studies import StudyRow
from dialin.study_flow.calibration_file import read_calibration
from dialin.study_flow.snapshot import StudySnapshot, mirror_lag_of, result_of
from dialin.tracking.cursor import read_cursor
from dialin.tracking.lag import Lag

MOST_BYTES = 128 * 2**20  # of trials in memory, of all studies together
MOST_STUDIES = 1024  # in memory

T = TypeVar("T")
_Stamp = tuple[StudyState, float | None]
_UNKNOWN = Goals((Metric("", "max"),), {})


@dataclass(frozen=True)
class MlflowRuns:
    """What MLflow calls a study and its trials; empty while the recorder has not got so far."""

    experiment: str = ""
    """The id of the experiment."""
    parent: str = ""
    """The id of the study's run."""
    of_trials: Mapping[str, str] = field(default_factory=dict)
    """The id of each trial's run, by the trial's number as text."""


class _Kept:
    """What is in memory of one study."""

    def __init__(self, reader: TrialReader) -> None:
        self.lock = threading.Lock()  # held while the study is read
        self.reader = reader
        self.view: TrialView | None = None
        self.stamp: _Stamp | None = None  # of the study when `view` was made
        self.curve: Curve | None = None

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        view = self.view.bytes if self.view is not None else 0
        curve = self.curve.bytes if self.curve is not None else 0
        return self.reader.bytes + view + curve


class SharedStudyReader:
    """Reads studies. Thread safe: one thread at a time reads a study, and others that ask for the same one wait.

    The studies that were not asked for longest are dropped from memory when all together take more than `most_bytes`.
    """

    def __init__(self, settings: Settings, most_bytes: int = MOST_BYTES) -> None:
        self._settings, self._most_bytes = settings, most_bytes
        self._out = OutputFolder(settings.out)
        self._storage = open_storage(settings.database)
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._outcomes: LRUCache[str, tuple[_Stamp, Any]] = LRUCache(MOST_STUDIES)

    def close(self) -> None:
        """Close the connections to the database. A reader that is used again opens new ones."""
        close_storage(self._storage)

    @property
    def bytes(self) -> int:
        """About how much memory the studies that were read take."""
        with self._lock:
            return sum(kept.bytes for kept in self._kept.values())

    def view(self, row: StudyRow) -> TrialView:
        """A study's trials as they are now. Raises UnreadableError."""
        stamp = _stamp(row)
        with self._exclusive(row) as kept:
            # The trials of a study that has ended do not change any more.
            if kept.view is None or kept.stamp != stamp or row.state in ACTIVE:
                kept.view, kept.stamp = _view_of(row, kept.reader.read(), kept.view), stamp
            return kept.view

    def records(self, row: StudyRow) -> Sequence[TrialRecord]:
        """A study's trials by number."""
        return self.view(row).records

    def outcome(self, row: StudyRow, make: Callable[[TrialView], T]) -> T:
        """Something small that `make` computes from a study's trials.

        For a study that has ended it stays in memory when its trials are dropped: a list of many studies would read all
        their trials each time otherwise.
        """
        if row.state in ACTIVE:
            return make(self.view(row))
        stamp = _stamp(row)
        with self._lock:
            found = self._outcomes.get(row.id)
        if found is None or found[0] != stamp:
            found = (stamp, make(self.view(row)))
            with self._lock:
                self._outcomes[row.id] = found
        outcome: T = found[1]
        return outcome

    def snapshot(self, row: StudyRow, view: TrialView | None = None) -> StudySnapshot:
        """A study as the commands read it. `view`: its trials, where they were read already."""
        view = view or self.view(row)
        spec = stored_spec(row.spec)
        folder = self._out.study(row.id)
        calibration = read_calibration(folder.calibration)
        range_tests = 0.0 if calibration is None else calibration.epochs
        key = ("back", row.state, row.reason, row.ended_at, row.spec, folder.best_config.exists(), range_tests)
        result = view.derived(key, lambda: result_of(row, spec, view.records, self._settings, calibration))
        lag = self.lag(row)
        return StudySnapshot(row, spec, view.records, result, calibration, lag.events, mirror_note=lag.text())

    def curve(self, row: StudyRow, goals: Goals) -> ShownCurve:
        """How the best value grew: every report that improved it, and the last report."""
        folder = self._out.study(row.id).events
        with self._exclusive(row) as kept:
            if kept.curve is None or kept.curve.goals != goals:
                kept.curve = curve_of(goals)
            return kept.curve.read_on(folder).shown()

    def lag(self, row: StudyRow) -> Lag:
        """How far MLflow is behind a study, and why. Raises UnreadableError."""
        with reading("how far MLflow has come"):
            return mirror_lag_of(self._settings, row)

    def mlflow_runs(self, row: StudyRow) -> MlflowRuns:
        """What MLflow calls the study and its trials. Raises UnreadableError."""
        with reading("what MLflow has of it"):
            cursor = read_cursor(self._out.study(row.id).events)
            return MlflowRuns(cursor.experiment, cursor.parent, dict(cursor.runs))

    @contextmanager
    def _exclusive(self, row: StudyRow) -> Iterator[_Kept]:
        """What is in memory of a study, for one thread at a time."""
        with self._lock:
            kept = self._kept.setdefault(row.id, _Kept(TrialReader(self._storage, row.id)))
            self._kept.move_to_end(row.id)
        with kept.lock:
            yield kept
        with self._lock:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        # Not a cache of cachetools: the size of an entry changes as a study is read on. The last study always stays,
        # or it would be read from the beginning each time.
        whole = sum(kept.bytes for kept in self._kept.values())
        while len(self._kept) > 1 and (whole > self._most_bytes or len(self._kept) > MOST_STUDIES):
            _, dropped = self._kept.popitem(last=False)
            whole -= dropped.bytes


def _view_of(row: StudyRow, records: Sequence[TrialRecord], before: TrialView | None) -> TrialView:
    # Without a readable specification it is not known which value is better; the trials are counted all the same.
    goals = _UNKNOWN if damage_of(row.spec) else Goals.of(stored_spec(row.spec))
    if before is not None and before.records is records and before.goals == goals:
        return before
    return TrialView(records, goals)


def _stamp(row: StudyRow) -> _Stamp:
    return row.state, row.ended_at
