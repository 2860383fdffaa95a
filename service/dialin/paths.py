"""The layout of the output folder: paths of the files and folders of studies and of the server."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path


def sqlite_url(path: Path) -> str:
    """The URL of a SQLite file, as SQLAlchemy, Optuna and MLflow take it."""
    return f"sqlite:///{path.resolve()}"


@dataclass(frozen=True)
class StudyFolder:
    """The paths of one study's files."""

    root: Path

    @property
    def best_config(self) -> Path:
        return self.root / "best_config.yaml"

    @property
    def pareto(self) -> Path:
        """With several metrics: the configurations of the Pareto front, and their index."""
        return self.root / "pareto"

    @property
    def pareto_plot(self) -> Path:
        return self.root / "pareto.svg"

    @property
    def events(self) -> Path:
        """The folder of the study's event log and of the files of its recorder, which copies the log to MLflow."""
        return self.root / "spool"  # the name of the first release, so that its folders can still be read

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
        """The output of a trial, and the traceback of a trial that has failed."""
        return self.logs / f"trial-{number:04d}.log"

    @property
    def database_url(self) -> Path:
        """The file with the database URL for the study's driver, which a server that runs code that people send gives
        to it in place of DIALIN_DATABASE_URL."""
        return self.root / "database_url"


@dataclass(frozen=True)
class OutputFolder:
    """The paths below the output folder: the studies' database, MLflow's database, and a folder for each study."""

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
        """The permission bits that files in the folder must not have, as in umask: those of other accounts. A folder
        with the setgid bit is shared with its group, which keeps its permissions."""
        return 0o007 if self.root.stat().st_mode & stat.S_ISGID else 0o077

    def is_ours(self, entry: Path) -> bool:
        """Return whether an entry of the folder has a name that dialin uses."""
        known = (self.studies, self.bundles, self.server, self.mlflow_artifacts, self.root / "data")
        return entry in known or entry.name.startswith((self.database.name, self.mlflow_database.name))

    @property
    def studies(self) -> Path:
        return self.root / "studies"

    @property
    def server(self) -> Path:
        """Logs and state of the server that runs on this folder."""
        return self.root / "server"

    @property
    def bundles(self) -> Path:
        return self.root / "bundles"

    def study(self, study_id: str) -> StudyFolder:
        return StudyFolder(self.studies / study_id)
