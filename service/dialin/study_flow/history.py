"""Finished (and unfinished) studies, read back from what is on disk."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from filelock import Timeout

from dialin.errors import ConflictError, DatabaseError, NotFoundError, UsageError
from dialin.lifecycle import ENDED
from dialin.paths import OutputFolder, StudyFolder
from dialin.results.claims import judge
from dialin.results.leaderboard import describe
from dialin.results.looks import looks_of
from dialin.results.summary import Result, summarize
from dialin.search.records import TrialRecord
from dialin.search.storage import BaseStorage, close_storage, open_storage, opened_storage
from dialin.search.trial_rows import TrialReader, read_study
from dialin.settings import Settings
from dialin.specification import damage_of, sampler_of, searched, spec_of_study
from dialin.specification.domains import Scalar
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.store.database_errors import check_mlflow_file
from dialin.store.leases import holder
from dialin.store.studies import Studies, StudyRow
from dialin.study_flow.calibrate import UnreadableCalibration, read_calibration
from dialin.tracking.events import StudyEnded
from dialin.tracking.lag import Lag, read_lag, recorder_lock
from dialin.tracking.mirror import sqlite_uri
from dialin.tracking.process import sync
from dialin.tracking.rebuilding import append, rebuild, study_ended, study_started, survey
from dialin.tracking.spool import has_spool


class Lines(Protocol):
    """Findings that can be read by a person."""

    def lines(self) -> list[str]: ...


@dataclass(frozen=True)
class ReadBack:
    """One study as the disk or a server has it. `mirror_lag`: events that MLflow has not got yet; `mirror_note`: that
    and why, in words. `verdict`: how its claim was judged, where that was done elsewhere. `history`: why earlier
    drivers are gone, a line each."""

    row: StudyRow
    spec: StudySpec
    trials: Sequence[TrialRecord]
    result: Result
    calibration: Lines | None = None
    mirror_lag: int = 0
    verdict: str = ""
    mirror_note: str = ""
    history: Sequence[str] = ()


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


def sync_study(settings: Settings, reference: str) -> Lag:
    """Write what MLflow has not got of a study yet; what is left after it. A spool that is missing or damaged is made
    again first. Raises NotFoundError, and ConflictError while its driver lives: that one's recorder writes."""
    with _studies(settings, reference) as studies:
        row = _found(settings, studies, reference)
        owner = holder(studies.engine, row.id)
    if owner is not None:
        raise ConflictError(f"study {row.id} is being driven by process {owner.pid} on {owner.host}, which writes it")
    if settings.mlflow_uri is None:
        check_mlflow_file(OutputFolder(settings.out).mlflow_database)
    folder = OutputFolder(settings.out).study(row.id).spool
    complete_spool(settings, row)
    if not has_spool(folder):
        return Lag()
    left = sync(folder, *mlflow_target(settings))
    return replace(read_lag(folder), events=left)


def complete_spool(settings: Settings, row: StudyRow, *, patience_seconds: float = 30.0) -> None:
    """Have the spool of a study say what the study's storage knows, where it does not: lines are damaged, all of it is
    gone, or nobody wrote down how the study ended. Only for whoever drives the study, or while nobody does: what a
    recorder at work still has to say is waited for, and after `patience_seconds` nothing is changed."""
    folder = OutputFolder(settings.out).study(row.id).spool
    found = survey(folder)
    has_ended = row.state in ENDED
    if found.whole and (found.ended or not has_ended):
        return
    with opened_storage(settings.database) as storage:
        records = read_study(storage, row.id)
    if not found.lines and not records:
        return  # it was never driven
    with suppress(Timeout), recorder_lock(folder, patience_seconds):
        if damage_of(row.spec):
            # Without its specification there is nothing to make again, but MLflow's run ends as the study did.
            end = study_ended(row.state.value, row.reason, row.ended_at or time.time(), {}, {}, [])
            append(folder, [end] if has_ended and not found.ended else [])
            return
        spec = spec_of_study(row.id, row.spec)
        if not found.whole:
            started = study_started(row.id, row.name, row.created_at, params_of(spec), row.spec)
            rebuild(folder, started, spec.objective.metric, records)
        if has_ended:
            around = OutputFolder(settings.out).study(row.id)
            result = result_of(row, spec, records, settings, read_calibration(around.calibration))
            append(folder, [ending_of(spec, result, records, around, row.ended_at)])


def mirror_standing(settings: Settings, row: StudyRow) -> Lag:
    """How far MLflow is behind a study, and why."""
    folder = OutputFolder(settings.out).study(row.id).spool
    if row.state in ENDED and row.summary.get("trials") and not has_spool(folder):
        return Lag(unknown=True)
    return read_lag(folder)


def params_of(spec: StudySpec) -> dict[str, Scalar]:
    """What MLflow shows as the parameters of a study, as far as its specification says it."""
    objective = spec.objective
    subject = {"python": objective.python} if isinstance(objective, PythonSpec) else {"dataset": objective.dataset}
    return {
        **subject,
        "metric": objective.metric,
        "mode": objective.mode,
        "sampler": sampler_of(spec),
        "seed": spec.search.seed,
        "trials": spec.budget.trials,
        "epochs": spec.budget.epochs,
        "searched": ", ".join(searched(spec)),
    }


def ending_of(
    spec: StudySpec, result: Result, records: Sequence[TrialRecord], folder: StudyFolder, ended_at: float | None
) -> StudyEnded:
    """What MLflow is told of a study's end."""
    metrics = {f"trials_{state}": float(count) for state, count in result.trials.items()}
    metrics |= {f"epochs_{kind}": float(count) for kind, count in result.epochs.items()}
    metrics["seconds"] = result.seconds
    if result.best is not None:
        metrics[f"best_{result.metric}"] = result.best.value
    # A score of an earlier look must not stand beside another best trial, and MLflow forgets no metric.
    metrics |= {f"test_{name}": math.nan for look in result.looks for name in look.values}
    metrics |= {f"test_{name}": value for name, value in (result.test or {}).items()}
    metrics["test_looks"] = float(len(result.looks))
    claim = judge(spec, spec.claim, records).text() if spec.claim is not None else ""
    # MLflow shows the note, in Markdown, on the page of the run.
    tags = {"mlflow.note.content": describe(result, records, claim)}
    if result.best is not None:
        tags["dialin.best_trial"] = str(result.best.trial)
        tags["dialin.test_trial"] = "none" if result.test_trial is None else str(result.test_trial)
    files = [folder.best_config, folder.calibration, folder.range_tests_plot]
    there = [str(file) for file in files if file.exists()]
    at = time.time() if ended_at is None else ended_at
    return study_ended(result.state, result.reason, at, metrics, tags, there)


def list_studies(settings: Settings) -> list[dict[str, Any]]:
    """The studies below `settings.out`, the newest first; none when there is nothing yet. Raises DatabaseError where
    there are studies' folders and a database that knows of none, and UsageError where `settings.out` is a file."""
    if settings.out.is_file():
        raise UsageError(f"{settings.out} is a file; studies are kept in a folder")
    rows = []
    if settings.has_database:
        with Studies(settings.database) as studies:
            rows = studies.list()
    if not rows:
        _check_not_lost(settings)
    return [{**_line(row), "mirror_lag": mirror_standing(settings, row).events} for row in rows]


def _check_not_lost(settings: Settings) -> None:
    folder = OutputFolder(settings.out).root / "studies"
    left = sum(one.is_dir() for one in folder.iterdir()) if folder.is_dir() else 0
    if left and settings.database_url is None:
        database = OutputFolder(settings.out).database
        state = "knows no study" if database.exists() else "is not there"
        raise DatabaseError(
            f"{database} {state}, but {folder} holds the folders of {left}; restore a copy of it; "
            "the folders still hold the journals, logs and checkpoints"
        )


def read_back(settings: Settings, reference: str) -> ReadBack:
    """A study by id, name or `last`. Raises NotFoundError, and UnreadableError for one that is damaged or of another
    version."""
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
        """A study by id, name or `last`. Raises as the function of that name."""
        row = _found(self._settings, self.studies, reference)
        spec = spec_of_study(row.id, row.spec)
        if self._storage is None:
            self._storage = open_storage(self._settings.database)
        trials = self._trials.setdefault(row.id, TrialReader(self._storage, row.id)).read()
        folder = self._out.study(row.id)
        calibration = read_calibration(folder.calibration)
        result = result_of(row, spec, trials, self._settings, calibration)
        lag = mirror_standing(self._settings, row)
        return ReadBack(
            row, spec, trials, result, calibration, lag.events, mirror_note=lag.text(), history=row.history()
        )


def study_row(settings: Settings, reference: str) -> StudyRow:
    """A study's row by id, name or `last`, whatever else of it can be read. Raises NotFoundError."""
    with _studies(settings, reference) as studies:
        return _found(settings, studies, reference)


def _found(settings: Settings, studies: Studies, reference: str) -> StudyRow:
    """Raises NotFoundError, and DatabaseError where the database seems to have been lost with the study."""
    try:
        return studies.find(reference)
    except NotFoundError:
        if not studies.list():
            _check_not_lost(settings)
        raise


def _studies(settings: Settings, reference: str) -> Studies:
    if not settings.has_database:
        _check_not_lost(settings)
        raise NotFoundError(f"no study {reference!r}: there is none in {settings.out}")
    return Studies(settings.database)


def result_of(
    row: StudyRow,
    spec: StudySpec,
    trials: Sequence[TrialRecord],
    settings: Settings,
    calibration: Calibration | UnreadableCalibration | None,
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
        "unreadable": row.damage or damage_of(row.spec),
        "metric": row.summary.get("metric"),
        "best": best.get("value"),
        "trials": row.summary.get("trials"),
        "seconds": row.summary.get("seconds"),
        "created_at": row.created_at,
        "ended_at": row.ended_at,
    }
