"""A study as it stands: what a driver leaves, what is read back from disk, what a server answers with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from dialin.errors import NotFoundError
from dialin.events.log import has_log
from dialin.lifecycle import ENDED
from dialin.paths import OutputFolder
from dialin.results.looks import looks_of
from dialin.results.summary import Result, summarize
from dialin.search.records import TrialRecord
from dialin.settings import Settings
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import StudySpec
from dialin.store.studies import StudyRow
from dialin.study_flow.calibration_file import UnreadableCalibration
from dialin.tracking.lag import Lag, read_lag


class PrintableCalibration(Protocol):
    """Range tests as text: those of a study, or a server's lines about them."""

    def lines(self) -> list[str]:
        """The bounds of each combination, the cost and the warnings, a line each."""


@dataclass(frozen=True)
class StudySnapshot:
    """One study at one moment."""

    row: StudyRow
    """Its name, state and times."""
    spec: StudySpec
    trials: Sequence[TrialRecord]
    """Every trial, by number."""
    result: Result
    """The best configuration and the counts, so far or at the end."""
    calibration: PrintableCalibration | None = None
    """The range tests; None where the space asks for none, or before they have been run."""
    mirror_lag: int = 0
    """Events that MLflow has not received yet."""
    verdict: str = ""
    """How the claim of the study was judged, where a server has done that."""
    mirror_note: str = ""
    """How far MLflow is behind and why, in words; empty when it has everything."""
    history: Sequence[str] = ()
    """Why earlier drivers are gone, a line each, the oldest first."""

    def find_trial(self, number: int) -> TrialRecord:
        """The trial of that number. Raises NotFoundError, which names the numbers that exist."""
        for trial in self.trials:
            if trial.number == number:
                return trial
        existing = f"0 to {len(self.trials) - 1}" if self.trials else "none"
        raise NotFoundError(f"study {self.row.id} has no trial {number}; its trials: {existing}")


def result_of(
    row: StudyRow,
    spec: StudySpec,
    trials: Sequence[TrialRecord],
    settings: Settings,
    calibration: Calibration | UnreadableCalibration | None,
) -> Result:
    """The result of a study as it is stored."""
    best_config = OutputFolder(settings.out).study(row.id).best_config
    result = summarize(
        spec,
        row.id,
        row.state.value,
        trials,
        looks=looks_of(row.summary),
        range_tests=calibration.epochs if calibration is not None else 0.0,
        seconds=row.summary.get("seconds", 0.0),
    )
    paths = {**paths_of(settings), "best_config": str(best_config) if best_config.exists() else None}
    return replace(result, paths=paths, reason=row.reason)


def paths_of(settings: Settings) -> dict[str, str | None]:
    """Where the results of a study lie: `best_config`, None until there is one; `mlflow`, a file or a server's address;
    `storage`, the database where that is a file."""
    out = OutputFolder(settings.out)
    return {
        "best_config": None,
        "mlflow": settings.mlflow_uri or str(out.mlflow_database),
        "storage": str(out.database) if settings.database_url is None else None,
    }


def mirror_lag_of(settings: Settings, row: StudyRow) -> Lag:
    """How far MLflow is behind a study, and why."""
    folder = OutputFolder(settings.out).study(row.id).events
    if row.state in ENDED and row.summary.get("trials") and not has_log(folder):
        return Lag(unknown=True)
    return read_lag(folder)
