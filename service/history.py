"""Finished (and unfinished) studies, read back from what is on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.calibration import from_data
from service.errors import ConflictError, NotFoundError
from service.results.looks import looks_of
from service.results.summary import Result, summarize
from service.search.records import TrialRecord
from service.search.storage import BaseStorage, close_storage, open_storage
from service.search.trial_rows import TrialReader
from service.settings import OutputFolder, Settings
from service.spec import stored_spec
from service.spec.range_tests import Calibration
from service.spec.study_spec import StudySpec
from service.store.leases import holder
from service.store.studies import Studies, StudyRow
from service.tracking.mirror import lag_of, sqlite_uri, sync


class Lines(Protocol):
    """Findings that can be read by a person."""

    def lines(self) -> list[str]: ...


@dataclass(frozen=True)
class ReadBack:
    """One study as the disk or a server has it. `mirror_lag`: events that MLflow has not got yet. `verdict`: how its
    claim was judged, where that was done elsewhere."""

    row: StudyRow
    spec: StudySpec
    trials: Sequence[TrialRecord]
    result: Result
    calibration: Lines | None = None
    mirror_lag: int = 0
    verdict: str = ""


def mlflow_target(settings: Settings) -> tuple[str, Path | None]:
    """MLflow's tracking URI, and where artifacts go when that is our own database."""
    out = OutputFolder(settings.out)
    if settings.mlflow_uri is not None:
        return settings.mlflow_uri, None
    return sqlite_uri(out.mlflow_database), out.mlflow_artifacts


def paths_of(settings: Settings) -> dict[str, str | None]:
    """Where a study's answer lies: the best configuration once there is one, MLflow (a file, or a server's address) and
    the database, where that is a file."""
    out = OutputFolder(settings.out)
    return {
        "best_config": None,
        "mlflow": settings.mlflow_uri or str(out.mlflow_database),
        "storage": str(out.database) if settings.database_url is None else None,
    }


def sync_study(settings: Settings, reference: str) -> int:
    """Write what MLflow has not got of a study yet; how many events are left after it. Raises NotFoundError, and
    ConflictError while its driver lives: that one's recorder writes."""
    with _studies(settings, reference) as studies:
        row = studies.find(reference)
        owner = holder(studies.engine, row.id)
    if owner is not None:
        raise ConflictError(f"study {row.id} is being driven by process {owner.pid} on {owner.host}, which writes it")
    folder = OutputFolder(settings.out).study(row.id).spool
    return sync(folder, *mlflow_target(settings)) if folder.exists() else 0


def list_studies(settings: Settings) -> list[dict[str, Any]]:
    """The studies below `settings.out`, the newest first; none when there is nothing yet."""
    if not settings.has_database:
        return []
    with Studies(settings.database) as studies:
        return [_line(row) for row in studies.list()]


def read_back(settings: Settings, reference: str) -> ReadBack:
    """A study by id, name or `last`. Raises NotFoundError."""
    with LocalReader(settings, reference) as reader:
        return reader.read_back(reference)


class LocalReader:
    """Studies below `settings.out`, read as often as one likes: the database stays open, and of trials only those are
    read again that may have changed. A context manager. Raises NotFoundError where there is no database yet."""

    def __init__(self, settings: Settings, reference: str) -> None:
        self._settings, self._out = settings, OutputFolder(settings.out)
        self.studies = _studies(settings, reference)
        self._storage: BaseStorage | None = None
        self._trials: dict[str, TrialReader] = {}

    def __enter__(self) -> LocalReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._storage is not None:
            close_storage(self._storage)
        self.studies.close()

    def read_back(self, reference: str) -> ReadBack:
        """A study by id, name or `last`. Raises NotFoundError."""
        row = self.studies.find(reference)
        spec = stored_spec(row.spec)
        if self._storage is None:
            self._storage = open_storage(self._settings.database)
        trials = self._trials.setdefault(row.id, TrialReader(self._storage, row.id)).read()
        folder = self._out.study(row.id)
        calibration = from_data(json.loads(folder.calibration.read_text())) if folder.calibration.exists() else None
        result = result_of(row, spec, trials, self._settings, calibration)
        return ReadBack(row, spec, trials, result, calibration, lag_of(folder.spool))


def _find(settings: Settings, reference: str) -> StudyRow:
    with _studies(settings, reference) as studies:
        return studies.find(reference)


def _studies(settings: Settings, reference: str) -> Studies:
    if not settings.has_database:
        raise NotFoundError(f"no study {reference!r}: there is none in {settings.out}")
    return Studies(settings.database)


def result_of(
    row: StudyRow,
    spec: StudySpec,
    trials: Sequence[TrialRecord],
    settings: Settings,
    calibration: Calibration | None,
) -> Result:
    """The outcome of a study as it is stored."""
    best_config = OutputFolder(settings.out).study(row.id).best_config
    return summarize(
        spec,
        row.id,
        row.state.value,
        trials,
        looks=looks_of(row.summary),
        range_tests=calibration.epochs if calibration is not None else 0.0,
        seconds=row.summary.get("seconds", 0.0),
        paths={**paths_of(settings), "best_config": str(best_config) if best_config.exists() else None},
        reason=row.reason,
    )


def _line(row: StudyRow) -> dict[str, Any]:
    best = row.summary.get("best") or {}
    return {
        "study_id": row.id,
        "name": row.name,
        "state": row.state.value,
        "reason": row.reason,
        "metric": row.summary.get("metric"),
        "best": best.get("value"),
        "trials": row.summary.get("trials"),
        "seconds": row.summary.get("seconds"),
        "created_at": row.created_at,
        "ended_at": row.ended_at,
    }
