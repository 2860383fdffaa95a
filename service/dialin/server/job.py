"""The driver of one study as a process of its own, `python -m dialin.server.job`, which Ray starts on the cluster.

The environment names the study. Everything that the process prints goes to `logs/driver.log` in the study's folder.
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

from dialin.errors import ClusterError, ConflictError, DatabaseError, DialinError, StorageError
from dialin.execution.ray_executor import RayExecutor
from dialin.execution.ray_jobs import JOB, STUDY, joined_cluster
from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
from dialin.settings import Settings
from dialin.store.submissions import Submissions
from dialin.study_flow.progress import Progress
from dialin.study_flow.run import resume_study
from dialin.study_flow.session import Control
from dialin.supervisor.logs import log_context
from dialin.supervisor.rotating import watch_length

LOG_BYTES = 10 * 2**20  # of the driver's log; twice as many are kept
SHARE_SECONDS = 2.0  # between two looks at the study's share of the cluster


def main() -> int:
    """Drive the study to its end, unless another driver is wanted by now. Returns the exit code."""
    study_id, job = os.environ[STUDY], os.environ[JOB]
    settings = with_own_access(Settings.read(), study_id)
    redirect_output(OutputFolder(settings.out).study(study_id).logs / "driver.log")
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} job {job} begins", flush=True)
    try:
        with log_context(study=study_id), Submissions(settings.database) as submissions:
            if not submissions.mark_started(study_id, job):
                print("this job is not wanted any more")
                return 0
            return _drive(study_id, job, settings, submissions)
    except DatabaseError as error:
        return _print_error(error)


def with_own_access(settings: Settings, study_id: str) -> Settings:
    """Settings with the database as this driver may use it, where its server has left that in the study's folder."""
    file = OutputFolder(settings.out).study(study_id).database_url
    return replace(settings, database_url=file.read_text()) if file.exists() else settings


def redirect_output(log: Path) -> None:
    """Append everything that this process prints, native code included, to a file of bounded length."""
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
            control = Control(job, _share_of(submissions, study_id), _note_starvation(submissions, study_id, job))
            with Progress(console) as progress:
                executor = RayExecutor(shape, nullcontext)
                result = resume_study(study_id, settings, progress, executor, control).result
        print(f"the study is {result.state}{f': {result.reason}' if result.reason else ''}", flush=True)
    except ConflictError as error:
        # Another driver lives, or the study has ended: its state is not this driver's to write.
        return _print_error(error)
    except (ClusterError, StorageError, sa.exc.OperationalError) as error:
        # They may be gone at the next attempt, which the server starts.
        submissions.mark_aborted(study_id, job, StudyState.INTERRUPTED, _first_line(error))
        return _print_error(error)
    except DialinError as error:
        submissions.mark_aborted(study_id, job, StudyState.FAILED, str(error))
        return _print_error(error)
    return 0


def _share_of(submissions: Submissions, study_id: str) -> Callable[[], int | None]:
    """How many trials the study may run at a time, read from the database every SHARE_SECONDS."""
    read_at, share = -SHARE_SECONDS, None

    def read() -> int | None:
        nonlocal read_at, share
        if time.monotonic() - read_at >= SHARE_SECONDS:
            read_at = time.monotonic()
            with suppress(sa.exc.OperationalError):  # the database is busy or away: the last share stands
                share = submissions.concurrency_of(study_id)
        return share

    return read


def _note_starvation(submissions: Submissions, study_id: str, job: str) -> Callable[[bool], None]:
    """Writes down that the study's trials wait for a worker, or no longer do."""

    def note(starved: bool) -> None:
        with suppress(DatabaseError, sa.exc.OperationalError):  # only a hint for the page is lost
            submissions.set_waiting_for(study_id, job, "its trials wait for a worker" if starved else "")

    return note


def _print_error(error: Exception) -> int:
    print(f"error: {error}", flush=True)
    return 1


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:500]


if __name__ == "__main__":
    sys.exit(main())
