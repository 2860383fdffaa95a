"""A study at one moment: what a driver returns at the end, and what is read from the database and the disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dialin.errors import NotFoundError
from dialin.events.log import has_log
from dialin.lifecycle import ENDED
from dialin.paths import OutputFolder
from dialin.results.looks import looks_of
from dialin.results.summary import Result, Spent, is_of_luckiest, summarize
from dialin.search.records import TrialRecord
from dialin.settings import Settings
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import StudySpec
from dialin.store.studies import StudyRow
from dialin.study_flow.calibration_file import UnreadableCalibration
from dialin.tracking.lag import Lag, read_lag


class PrintableCalibration(Protocol):
    """Range tests that can be shown as text, even if their file is damaged."""

    def lines(self) -> list[str]:
        """Return a line for the bounds of each combination, for the cost, and for each warning."""


@dataclass(frozen=True)
class StudySnapshot:
    """One study at one moment."""

    row: StudyRow
    """Its name, state and times."""
    spec: StudySpec
    """Its specification."""
    trials: Sequence[TrialRecord]
    """All trials, by number."""
    result: Result
    """The best configuration and the counts, at this moment."""
    calibration: PrintableCalibration | None = None
    """The range tests; None where the space asks for none, or before they have been run."""
    mirror_lag: int = 0
    """Events that MLflow has not received yet."""
    verdict: str = ""
    """How the study's claim was judged, in a sentence; empty without a claim."""
    mirror_note: str = ""
    """How far MLflow is behind and why, in words; empty when it has everything."""
    history: Sequence[str] = ()
    """Why earlier drivers ended, a line each, the oldest first."""

    def find_trial(self, number: int) -> TrialRecord:
        """Return the trial with this number. Raises NotFoundError, which names the numbers that exist."""
        for trial in self.trials:
            if trial.number == number:
                return trial
        existing = f"0 to {len(self.trials) - 1}" if self.trials else "none"
        raise NotFoundError(f"study {self.row.id} has no trial {number}; its trials: {existing}")


def keeps_luckiest(row: StudyRow) -> bool:
    """Return whether an older version ended the study, which chose the trial with the luckiest epoch: see
    `is_of_luckiest`."""
    return row.state in ENDED and is_of_luckiest(row.summary)


def result_of(
    row: StudyRow,
    spec: StudySpec,
    trials: Sequence[TrialRecord],
    settings: Settings,
    calibration: Calibration | UnreadableCalibration | None,
) -> Result:
    """Return the result of a stored study."""
    folder = OutputFolder(settings.out).study(row.id)
    range_tests = calibration.epochs if calibration is not None else 0.0
    result = summarize(
        spec,
        row.id,
        row.state.value,
        trials,
        looks=looks_of(row.summary),
        spent=Spent(range_tests, row.summary.get("seconds", 0.0)),
        luckiest=keeps_luckiest(row),
    )
    best_config = folder.best_config
    paths = {**paths_of(settings), "best_config": str(best_config) if best_config.exists() else None}
    if spec.has_front and folder.pareto.exists():
        paths["pareto"] = str(folder.pareto)
    return replace(result, paths=paths, reason=row.reason)


def paths_of(settings: Settings) -> dict[str, str | None]:
    """Return where results are stored.

    - `best_config`: None; the caller sets it once the study has a best configuration
    - `mlflow`: MLflow's database file, or the address of a server
    - `storage`: the database file; None for a database of another kind
    """
    out = OutputFolder(settings.out)
    return {
        "best_config": None,
        "mlflow": settings.mlflow_uri or str(out.mlflow_database),
        "storage": str(out.database) if settings.database_url is None else None,
    }


def mirror_lag_of(settings: Settings, row: StudyRow) -> Lag:
    """Return how far MLflow is behind a study, and why."""
    folder = OutputFolder(settings.out).study(row.id).events
    # Only the event log tells which events MLflow lacks, and people delete the log of an ended study to free space.
    if row.state in ENDED and row.summary.get("trials") and not has_log(folder):
        return Lag(unknown=True)
    return read_lag(folder)
