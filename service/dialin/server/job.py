"""The driver of one study as a process of its own: `python -m dialin.server.job`, started by Ray on the cluster.

Which study it is says the environment. Everything it prints goes to `logs/driver.log` in the study's folder.
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
from dialin.supervisor.rotating import watch_length

LOG_BYTES = 10 * 2**20  # of the driver's log; twice as many are kept
SHARE_SECONDS = 2.0  # between two looks at what the study may have of the cluster


def main() -> int:
    """Drive the study to its end, or until this is not the driver that is wanted. Returns the exit code."""
    study_id, job = os.environ[STUDY], os.environ[JOB]
    settings = _with_own_access(Settings.read(), study_id)
    _write_to(OutputFolder(settings.out).study(study_id).logs / "driver.log")
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} job {job} begins", flush=True)
    try:
        with Submissions(settings.database) as submissions:
            if not submissions.began(study_id, job):
                print("this job is not wanted any more")
                return 0
            return _drive(study_id, job, settings, submissions)
    except DatabaseError as error:
        return _said(error)


def _drive(study_id: str, job: str, settings: Settings, submissions: Submissions) -> int:
    try:
        with joined_cluster() as shape:
            console = Console(highlight=False, soft_wrap=True, width=200, no_color=True)
            control = Control(job, _share(submissions, study_id), _starved(submissions, study_id, job))
            with Progress(console) as progress:
                executor = RayExecutor(shape, nullcontext)
                result = resume_study(study_id, settings, progress, executor, control).result
        print(f"the study is {result.state}{f': {result.reason}' if result.reason else ''}", flush=True)
    except ConflictError as error:  # another driver lives, or the study has ended: nothing of ours to note
        return _said(error)
    except (ClusterError, StorageError, sa.exc.OperationalError) as error:  # another attempt may have more luck
        _said(error)
        submissions.broke_off(study_id, job, StudyState.INTERRUPTED, _first_line(error))
        return 1
    except DialinError as error:
        submissions.broke_off(study_id, job, StudyState.FAILED, str(error))
        return _said(error)
    return 0


def _share(submissions: Submissions, study_id: str) -> Callable[[], int | None]:
    """How many trials a study may run at a time, looked up now and then."""
    seen: tuple[float, int | None] = (-SHARE_SECONDS, None)

    def share() -> int | None:
        nonlocal seen
        if time.monotonic() - seen[0] >= SHARE_SECONDS:
            try:
                seen = (time.monotonic(), submissions.share_of(study_id))
            except sa.exc.OperationalError:  # the database is busy or away; it will be asked again
                seen = (time.monotonic(), seen[1])
        return seen[1]

    return share


def _with_own_access(settings: Settings, study_id: str) -> Settings:
    """With the database as this driver may use it, where its server has left that in the study's folder."""
    given = OutputFolder(settings.out).study(study_id).database_url
    return replace(settings, database_url=given.read_text()) if given.exists() else settings


def _starved(submissions: Submissions, study_id: str, job: str) -> Callable[[bool], None]:
    """Notes that a study waits for a worker."""

    def note(starved: bool) -> None:
        with suppress(DatabaseError, sa.exc.OperationalError):  # no more than a hint is lost
            submissions.wait_for(study_id, job, "its trials wait for a worker" if starved else "")

    return note


def _write_to(log: Path) -> None:
    """Have all that this process prints, and what native code does, appended to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    watch_length(log, LOG_BYTES)
    sys.stdout = os.fdopen(1, "w", buffering=1, errors="replace", closefd=False)


def _said(error: Exception) -> int:
    print(f"error: {error}", flush=True)
    return 1


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0][:500]


if __name__ == "__main__":
    sys.exit(main())
