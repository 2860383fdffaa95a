"""The event log of a study and its mirror in MLflow: how they start and end, and how MLflow catches up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from dialin.errors import ConflictError, FencedError
from dialin.events.log import EventLog, has_log
from dialin.events.publisher import Listener, Publisher
from dialin.events.rebuild import append, milliseconds, rebuild, survey
from dialin.events.types import StudyEnded, StudyStarted
from dialin.lifecycle import ENDED, StudyState
from dialin.paths import OutputFolder, StudyFolder, sqlite_url
from dialin.planning.plan import Plan
from dialin.results.claims import judge
from dialin.results.leaderboard import describe
from dialin.results.summary import Result
from dialin.search.goals import Goals
from dialin.search.records import TrialRecord
from dialin.search.storage import opened_storage
from dialin.search.trial_rows import read_study
from dialin.settings import Settings
from dialin.specification import damage_of, sampler_of, searched, spec_of_study, to_yaml
from dialin.specification.domains import Scalar
from dialin.specification.metrics import Metric
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.specification.wording import bound_text
from dialin.store.database_errors import check_mlflow_file
from dialin.store.leases import holder
from dialin.store.storage_errors import is_disk_full
from dialin.store.studies import StudyRow
from dialin.study_flow.calibration_file import read_calibration
from dialin.study_flow.ending import end_of_error, on_error
from dialin.study_flow.read_back import find_study, open_studies
from dialin.study_flow.result_files import files_for_mlflow
from dialin.study_flow.snapshot import result_of
from dialin.tracking.lag import Lag, read_lag, recorder_lock
from dialin.tracking.mirror import Mirror
from dialin.tracking.recorder_process import sync

ABANDONED_SECONDS = 0.3  # a driver that ends on an error waits no longer for MLflow; the recorder continues by itself


def mlflow_target(settings: Settings) -> tuple[str, Path | None]:
    """MLflow's tracking URI, and the folder of artifacts when that URI is dialin's own database."""
    out = OutputFolder(settings.out)
    if settings.mlflow_uri is not None:
        return settings.mlflow_uri, None
    return sqlite_url(out.mlflow_database), out.mlflow_artifacts


@contextmanager
def mirrored(
    plan: Plan, row: StudyRow, records: Sequence[TrialRecord], settings: Settings, listener: Listener
) -> Iterator[tuple[Publisher, Mirror]]:
    """The study's open event log, which also tells `listener`, and its running mirror. An error that leaves the block
    ends the study's run in MLflow too, unless another driver has taken the study over.

    `records`: the trials that the study has already.
    """
    spec, folder = plan.spec, OutputFolder(settings.out).study(row.id).events
    complete_log(settings, replace(row, state=StudyState.RUNNING), records, patience_seconds=0.0)
    rungs = ", ".join(map(str, plan.rungs)) or "none"
    params: dict[str, Scalar] = {**params_of(spec), "rungs": rungs, "concurrency": plan.concurrency}
    with EventLog(folder) as log:
        mirror = Mirror(folder, *mlflow_target(settings), log.restore)
        log.append(StudyStarted(row.id, spec.name, params, {"spec": to_yaml(spec)}))
        mirror.start()

        def end(error: BaseException) -> None:
            if isinstance(error, FencedError):
                mirror.abandon()
                return
            if not is_disk_full(error):
                state, reason = end_of_error(error)
                log.append(StudyEnded(state.value, reason))
            mirror.close(ABANDONED_SECONDS)

        with on_error(end):
            yield Publisher(log, listener), mirror


def sync_study(settings: Settings, reference: str) -> Lag:
    """Write to MLflow what it lacks of a study, and return what is still missing afterwards.

    An event log that is missing or damaged is rebuilt from the study's storage first. Raises NotFoundError, and
    ConflictError while a driver is at work: its own recorder writes.
    """
    with open_studies(settings, reference) as studies:
        row = find_study(settings, studies, reference)
        owner = holder(studies.engine, row.id)
    if owner is not None:
        raise ConflictError(f"study {row.id} is being driven by process {owner.pid} on {owner.host}, which writes it")
    if settings.mlflow_uri is None:
        check_mlflow_file(OutputFolder(settings.out).mlflow_database)
    folder = OutputFolder(settings.out).study(row.id).events
    complete_log(settings, row)
    if not has_log(folder):
        return Lag()
    left = sync(folder, *mlflow_target(settings))
    return replace(read_lag(folder), events=left)


def complete_log(
    settings: Settings,
    row: StudyRow,
    records: Sequence[TrialRecord] | None = None,
    *,
    patience_seconds: float = 30.0,
) -> None:
    """Complete the event log of a study from its storage: lines that are damaged, a log that is gone, an end that
    nobody wrote down.

    Only the study's driver may call this, or anybody while there is no driver. A recorder that is at work is waited
    for; after `patience_seconds` nothing is changed. `records`: the study's trials, for a caller that has just read
    them; None to read them if they are needed.
    """
    folder = OutputFolder(settings.out).study(row.id).events
    found = survey(folder)
    has_ended = row.state in ENDED
    if found.whole and (found.ended or not has_ended):
        return
    if records is None:
        with opened_storage(settings.database) as storage:
            records = read_study(storage, row.id)
    if found.empty and not records:
        return  # no driver has ever worked on it
    with suppress(Timeout), recorder_lock(folder, patience_seconds):
        if not damage_of(row.spec):
            _rebuild(settings, row, records, whole=found.whole)
        elif has_ended and not found.ended:
            _append_end(folder, row)


def _append_end(folder: Path, row: StudyRow) -> None:
    """Without its specification no study can be rebuilt, but its run in MLflow ends as the study did."""
    append(folder, [StudyEnded(row.state.value, row.reason, time=milliseconds(row.ended_at or time.time()))])


def _rebuild(settings: Settings, row: StudyRow, records: Sequence[TrialRecord], *, whole: bool) -> None:
    """Append what the log lacks. `whole`: only its end can be missing."""
    folder = OutputFolder(settings.out).study(row.id)
    spec = spec_of_study(row.id, row.spec)
    if not whole:
        started = StudyStarted(row.id, row.name, params_of(spec), {"spec": row.spec}, time=milliseconds(row.created_at))
        rebuild(folder.events, started, spec.objective.metric, records)
    if row.state in ENDED:
        result = result_of(row, spec, records, settings, read_calibration(folder.calibration))
        append(folder.events, [ending_event(spec, result, records, folder, row.ended_at)])


def params_of(spec: StudySpec) -> dict[str, Scalar]:
    """The parameters of a study's run in MLflow that follow from its specification."""
    objective = spec.objective
    subject = {"python": objective.python} if isinstance(objective, PythonSpec) else {"dataset": objective.dataset}
    return {
        **subject,
        "metric": objective.metric,
        "mode": objective.mode,
        **_several(spec),
        "sampler": sampler_of(spec),
        "seed": spec.search.seed,
        "trials": spec.budget.trials,
        "epochs": spec.budget.epochs,
        "searched": ", ".join(searched(spec)),
    }


def _several(spec: StudySpec) -> dict[str, Scalar]:
    """The parameters that only a study of several metrics or with constraints has."""
    metrics = ", ".join(f"{metric.name} ({metric.mode})" for metric in spec.metrics) if spec.has_front else ""
    bounds = ", ".join(bound_text(name, bound) for name, bound in spec.constraints.items())
    return {name: text for name, text in (("metrics", metrics), ("constraints", bounds)) if text}


def ending_event(
    spec: StudySpec, result: Result, records: Sequence[TrialRecord], folder: StudyFolder, ended_at: float | None
) -> StudyEnded:
    """The event that tells MLflow of a study's end: metrics, the report, files. `ended_at`: in seconds since 1970;
    None: now."""
    claim = judge(spec, spec.claim, records).text() if spec.claim is not None else ""
    # MLflow shows the note, in Markdown, on the page of the run.
    tags = {"mlflow.note.content": describe(result, records, claim, Goals.of(spec))}
    if result.front:
        tags["dialin.front_trials"] = ", ".join(str(one.trial) for one in result.front)
    if result.best is not None:
        tags["dialin.best_trial"] = str(result.best.trial)
        tags["dialin.best_value"] = f"{result.metric} {result.best.value_text()}"
        tags["dialin.test_trial"] = "none" if result.test_trial is None else str(result.test_trial)
    files = [str(file) for file in files_for_mlflow(folder, result)]
    at = time.time() if ended_at is None else ended_at
    return StudyEnded(result.state, result.reason, _metrics(result), tags, tuple(files), milliseconds(at))


def _front_metrics(result: Result) -> dict[str, float]:
    """The best value of each metric on the Pareto front, and its size; nothing with one metric."""
    if not result.front:
        return {}
    best = {f"best_{metric.name}": _best_on_front(result, metric) for metric in result.metrics}
    return {**best, "front_trials": float(len(result.front))}


def _best_on_front(result: Result, metric: Metric) -> float:
    return max((one.values[metric.name] for one in result.front), key=lambda value: metric.sign * value)


def _metrics(result: Result) -> dict[str, float]:
    """What MLflow shows as the metrics of a study."""
    metrics = {f"trials_{state}": float(count) for state, count in result.trials.items()}
    metrics |= {f"epochs_{kind}": float(count) for kind, count in result.epochs.items()}
    metrics["seconds"] = result.seconds
    if result.best is not None:
        metrics[f"best_{result.metric}"] = result.best.value
        if result.best.expected is not None:
            metrics[f"expected_{result.metric}"] = result.best.expected
    metrics |= _front_metrics(result)
    # MLflow never forgets a metric: NaN replaces the score of an earlier look, which belonged to another best trial.
    metrics |= {f"test_{name}": math.nan for look in result.looks for name in look.values}
    metrics |= {f"test_{name}": value for name, value in (result.test or {}).items()}
    return {**metrics, "test_looks": float(len(result.looks))}
