"""The folders and files of studies: what lies where below the output folder."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StudyFolder:
    """Where the files of one study lie."""

    root: Path

    @property
    def best_config(self) -> Path:
        return self.root / "best_config.yaml"

    @property
    def events(self) -> Path:
        """The folder of the study's event log and of what its recorder keeps beside it."""
        return self.root / "spool"  # its name since the first release: older folders continue as they are

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration.json"

    @property
    def range_tests_plot(self) -> Path:
        return self.root / "range_tests.svg"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def trial_log(self, number: int) -> Path:
        """What a trial has printed, and the traceback of one that has failed."""
        return self.logs / f"trial-{number:04d}.log"

    @property
    def database_url(self) -> Path:
        """What a driver on a server that runs other people's code is given in place of DIALIN_DATABASE_URL."""
        return self.root / "database_url"


@dataclass(frozen=True)
class OutputFolder:
    """What lies where below `out`: one database, one MLflow database, one folder a study."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "dialin.db"

    @property
    def mlflow_database(self) -> Path:
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        return self.root / "mlflow-artifacts"

    @property
    def mask(self) -> int:
        """The rights that nobody but its owner has to what lies in it, as in umask; where it has the setgid bit, it was
        given to a group, which keeps its own."""
        return 0o007 if self.root.stat().st_mode & stat.S_ISGID else 0o077

    def is_ours(self, entry: Path) -> bool:
        """Whether an entry of the folder has a name that dialin gives."""
        known = (self.studies, self.bundles, self.server, self.mlflow_artifacts, self.root / "data")
        return entry in known or entry.name.startswith((self.database.name, self.mlflow_database.name))

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def server(self) -> Path:
        """Logs and notes of the server that works on this folder."""
        return self.root / "server"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    def study(self, study_id: str) -> StudyFolder:
        return StudyFolder(self.studies / study_id)
