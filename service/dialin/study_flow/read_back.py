"""Reads stored studies from the database and from their folders in the output folder."""

from __future__ import annotations

from collections.abc import Sequence

from dialin.errors import DatabaseError, NotFoundError, UsageError
from dialin.paths import OutputFolder
from dialin.search.records import TrialRecord
from dialin.search.storage import BaseStorage, close_storage, open_storage
from dialin.search.trial_rows import TrialReader
from dialin.settings import Settings
from dialin.specification import spec_of_study
from dialin.store.studies import Studies, StudyRow
from dialin.study_flow.calibration_file import read_calibration
from dialin.study_flow.snapshot import StudySnapshot, mirror_lag_of, result_of


def load_study(settings: Settings, reference: str) -> StudySnapshot:
    """Return a study by id, name or `last`.

    Raises NotFoundError, and UnreadableError for a study that is damaged or was stored by another version.
    """
    with StudyReader(settings, reference) as reader:
        return reader.load(reference)


class StudyReader:
    """Reads studies repeatedly: keeps the database open, and reads only trials again that may have changed.

    A context manager. The constructor raises NotFoundError when there is no database yet.
    """

    def __init__(self, settings: Settings, reference: str) -> None:
        self._settings, self._out = settings, OutputFolder(settings.out)
        self.studies = open_studies(settings, reference)
        self._storage: BaseStorage | None = None
        self._trials: dict[str, TrialReader] = {}

    def __enter__(self) -> StudyReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        if self._storage is not None:
            close_storage(self._storage)
        self.studies.close()

    def trials(self, study_id: str) -> Sequence[TrialRecord]:
        """Return the trials of a study; its row and its specification need not be readable. Raises UnreadableError."""
        if self._storage is None:
            self._storage = open_storage(self._settings.database)
        if study_id not in self._trials:
            self._trials[study_id] = TrialReader(self._storage, study_id)
        return self._trials[study_id].read()

    def load(self, reference: str) -> StudySnapshot:
        """Return a study by id, name or `last`. Raises as `load_study`."""
        row = find_study(self._settings, self.studies, reference)
        spec = spec_of_study(row.id, row.spec)
        trials = self.trials(row.id)
        calibration = read_calibration(self._out.study(row.id).calibration)
        result = result_of(row, spec, trials, self._settings, calibration)
        lag = mirror_lag_of(self._settings, row)
        return StudySnapshot(
            row, spec, trials, result, calibration, lag.events, mirror_note=lag.text(), history=row.history()
        )


def study_row(settings: Settings, reference: str) -> StudyRow:
    """Return the row of a study by id, name or `last`; nothing else of it need be readable. Raises NotFoundError."""
    with open_studies(settings, reference) as studies:
        return find_study(settings, studies, reference)


def list_rows(settings: Settings) -> list[StudyRow]:
    """Return the rows of the studies in `settings.out`, the newest first.

    Raises DatabaseError when studies have folders there but the database has no study, and UsageError when
    `settings.out` is a file.
    """
    if settings.out.is_file():
        raise UsageError(f"{settings.out} is a file; studies are kept in a folder")
    rows = []
    if settings.has_database:
        with Studies(settings.database) as studies:
            rows = studies.list()
    if not rows:
        _check_not_lost(settings)
    return rows


def find_study(settings: Settings, studies: Studies, reference: str) -> StudyRow:
    """Return the row of a study. Raises NotFoundError, and DatabaseError when the database seems to be lost."""
    try:
        return studies.find(reference)
    except NotFoundError:
        if not studies.list():
            _check_not_lost(settings)
        raise


def open_studies(settings: Settings, reference: str) -> Studies:
    """Open the table of studies; `reference`, the study that is wanted, is named in an error.

    Raises NotFoundError when there is no database yet, and DatabaseError when studies have folders but no database.
    """
    if not settings.has_database:
        _check_not_lost(settings)
        raise NotFoundError(f"there is no study {reference!r}: {settings.out} has no studies")
    return Studies(settings.database)


def _check_not_lost(settings: Settings) -> None:
    """Raise DatabaseError when studies have folders but the database knows none of them.

    Without the check, a lost database would look like an output folder without studies.
    """
    folder = OutputFolder(settings.out).root / "studies"
    left = sum(one.is_dir() for one in folder.iterdir()) if folder.is_dir() else 0
    if left and settings.database_url is None:
        database = OutputFolder(settings.out).database
        state = "has no studies" if database.exists() else "does not exist"
        raise DatabaseError(
            f"{database} {state}, but {folder} has folders of studies ({left}); restore a copy of the database. "
            " The folders still hold the event logs, logs and checkpoints"
        )
