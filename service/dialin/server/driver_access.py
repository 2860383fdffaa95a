"""A role of its own in the database for each driver that runs callers' code.

The driver finds it in a file in the study's folder, not in the description of its Ray job: every other job on the
cluster can read that.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from dialin.errors import DialinError
from dialin.execution.ray_jobs import JobInfo, Jobs
from dialin.paths import OutputFolder
from dialin.planning.plan import ClusterShape
from dialin.settings import Settings
from dialin.specification import stored_spec
from dialin.store.driver_roles import DriverRoles
from dialin.store.submissions import Submissions

_LOG = logging.getLogger(__name__)


class JobsWithOwnRoles:
    """Jobs whose drivers find the URL of the database in their study's folder (`StudyFolder.database_url`).

    The URL is of a PostgreSQL role that can change the rows of that study alone. The roles of studies that are not
    active any more are removed when the next driver starts. Where the database cannot have such roles, the file holds
    the server's own URL, and the log says so once.
    """

    def __init__(self, jobs: Jobs, settings: Settings, submissions: Submissions) -> None:
        self._jobs, self._submissions = jobs, submissions
        self._out, self._url = OutputFolder(settings.out), settings.database
        self._roles = DriverRoles(self._url)
        self._has_warned = False

    def submit(self, job: str, study_id: str) -> None:
        """Write the file, and start the job. Raises ClusterError."""
        # The file is written before the job starts. Where two servers start the same job, the last password holds.
        if self._jobs.info(job) is None:
            write_private(self._out.study(study_id).database_url, self._url_for(study_id))
        self._jobs.submit(job, study_id)

    def info(self, job: str) -> JobInfo | None:
        """As the jobs below."""
        return self._jobs.info(job)

    def stop(self, job: str) -> None:
        """As the jobs below."""
        self._jobs.stop(job)

    def shape(self) -> ClusterShape:
        """As the jobs below."""
        return self._jobs.shape()

    def check(self, asks: Callable[[str], None]) -> str:
        """As the jobs below."""
        return self._jobs.check(asks)

    def close(self) -> None:
        """Close the connections to the database."""
        self._roles.close()

    def _url_for(self, study_id: str) -> str:
        if not self._roles.can_be_made():
            if not self._has_warned:
                _LOG.warning(
                    "drivers run other people's code with the server's own access to the database: its user may not "
                    "make roles (it needs CREATEROLE, and PostgreSQL)"
                )
            self._has_warned = True
            return self._url
        active = {entry.study.id for entry in self._submissions.unsettled()}
        for old in self._roles.study_ids() - active - {study_id}:
            self._roles.remove(old)
        return self._roles.url_for(study_id, self._warm_start_of(study_id))

    def _warm_start_of(self, study_id: str) -> list[str]:
        """The studies whose trials this one learns from, so has to read."""
        try:
            return list(stored_spec(self._submissions.get(study_id).study.spec).search.warm_start)
        except DialinError:  # it cannot be read; its driver will report that
            return []


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as opened:
        opened.write(text)
    partial.replace(file)
