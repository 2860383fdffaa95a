"""The driver of one study as a separate process, `python -m dialin.server.job`, which Ray starts on the cluster.

Environment variables name the study and the job. Everything that the process prints or logs goes to `logs/driver.log`
in the study's folder; DIALIN_LOG_LEVEL and DIALIN_LOG_FORMAT apply as they do to the server's log.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console

from dialin.errors import ClusterError, ConflictError, DatabaseError, DialinError, StorageError, UsageError
from dialin.execution.ray_executor import RayExecutor
from dialin.execution.ray_jobs import JOB, STUDY, joined_cluster
from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
from dialin.settings import ServerSettings, Settings
from dialin.store.submissions import Submissions
from dialin.study_flow.progress import Progress
from dialin.study_flow.run import resume_study
from dialin.study_flow.session import Control
from dialin.supervisor.logs import configure, log_context, quiet_optuna
from dialin.supervisor.rotating import watch_length

LOG_BYTES = 10 * 2**20
"""Size at which the driver's log is rotated; one old log is kept beside it."""
ALLOCATION_SECONDS = 2.0
"""Time between two reads of the study's allocation, the number of trials that it may run at a time."""


def main() -> int:
    """Drive the study to its end, and return the exit code. If the server has assigned the study to another job, or has
    stopped it, return at once."""
    study_id, job = os.environ[STUDY], os.environ[JOB]
    settings = with_own_access(Settings.read(), study_id)
    redirect_output(OutputFolder(settings.out).study(study_id).logs / "driver.log")
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} job {job} begins", flush=True)
    try:
        log_settings = ServerSettings.read()
        configure(log_settings.log_level, log_settings.log_format)
        quiet_optuna()
        with log_context(study=study_id), Submissions(settings.database) as submissions:
            if not submissions.mark_started(study_id, job):
                print("the study was stopped, or another job drives it now; this job ends without driving it")
                return 0
            return _drive(study_id, job, settings, submissions)
    except (DatabaseError, UsageError) as error:
        return _print_error(error)


def with_own_access(settings: Settings, study_id: str) -> Settings:
    """Return the settings with the database URL that the server has written to the study's folder for this driver;
    unchanged if there is no such file."""
    file = OutputFolder(settings.out).study(study_id).database_url
    return replace(settings, database_url=file.read_text()) if file.exists() else settings


def redirect_output(log: Path) -> None:
    """Append everything that this process prints, native code included, to a log file that is rotated at LOG_BYTES."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    watch_length(log, LOG_BYTES)
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)


def _drive(study_id: str, job: str, settings: Settings, submissions: Submissions) -> int:
    try:
        with joined_cluster() as shape:
            console = Console(highlight=False, soft_wrap=True, width=200, no_color=True)
            control = Control(job, _allocation_of(submissions, study_id), _note_starvation(submissions, study_id, job))
            with Progress(console) as progress:
                executor = RayExecutor(shape, nullcontext)
                result = resume_study(study_id, settings, progress, executor, control).result
        print(f"the study is {result.state}{f': {result.reason}' if result.reason else ''}", flush=True)
    except ConflictError as error:
        # Another driver is alive, or the study has ended: this driver must not write the study's state.
        return _print_error(error)
    except (ClusterError, StorageError, sa.exc.OperationalError) as error:
        # These errors may be temporary. INTERRUPTED has the server start another driver.
        submissions.mark_aborted(study_id, job, StudyState.INTERRUPTED, _first_line(error))
        return _print_error(error)
    except DialinError as error:
        submissions.mark_aborted(study_id, job, StudyState.FAILED, str(error))
        return _print_error(error)
    return 0


def _allocation_of(submissions: Submissions, study_id: str) -> Callable[[], int | None]:
    """Return a function that returns how many trials the study may run at a time; None while that is not computed. It
    reads the database once in ALLOCATION_SECONDS."""
    read_at, allocation = -ALLOCATION_SECONDS, None

    def read() -> int | None:
        nonlocal read_at, allocation
        if time.monotonic() - read_at >= ALLOCATION_SECONDS:
            read_at = time.monotonic()
            with suppress(sa.exc.OperationalError):  # while the database is unavailable, the last value is used
                allocation = submissions.concurrency_of(study_id)
        return allocation

    return read


def _note_starvation(submissions: Submissions, study_id: str, job: str) -> Callable[[bool], None]:
    """Return a function that records whether the study's trials are waiting for a worker."""

    def note(starved: bool) -> None:
        with suppress(DatabaseError, sa.exc.OperationalError):  # the page only lacks a hint then
            submissions.set_waiting_for(study_id, job, "its trials wait for a worker" if starved else "")

    return note


def _print_error(error: Exception) -> int:
    print(f"error: {error}", flush=True)
    return 1


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:500]


if __name__ == "__main__":
    sys.exit(main())
