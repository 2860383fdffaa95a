"""Every environment variable that dialin reads, typed and read once, and the folders that follow from them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from service.errors import UsageError

_SWITCH = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


@dataclass(frozen=True)
class Settings:
    """`out`: where studies are kept (DIALIN_OUT). `data_dir`: where data sets are looked for and downloaded to
    (DIALIN_DATA_DIR); by default a folder of `out`. `mlflow_uri`: MLflow's server (DIALIN_MLFLOW_URI); None: a database
    in `out`. `allow_code`: whether a server takes specifications that name a person's own function, and runs it
    (DIALIN_ALLOW_CODE; off)."""

    out: Path
    data_dir: Path
    mlflow_uri: str | None = None
    allow_code: bool = False

    @classmethod
    def read(
        cls, environ: Mapping[str, str] = os.environ, *, out: str | None = None, data_dir: str | None = None
    ) -> Settings:
        """From the command line first, then the environment, then the defaults. Empty values count as unset.

        Raises UsageError for a value that is none of those allowed.
        """
        chosen_out = Path(out or environ.get("DIALIN_OUT") or "dialin-data").expanduser().resolve()
        chosen_data = data_dir or environ.get("DIALIN_DATA_DIR")
        folder = Path(chosen_data).expanduser().resolve() if chosen_data else chosen_out / "data"
        allow_code = _switch("DIALIN_ALLOW_CODE", environ)
        return cls(chosen_out, folder, environ.get("DIALIN_MLFLOW_URI") or None, allow_code)


def _switch(name: str, environ: Mapping[str, str]) -> bool:
    value = environ.get(name) or "0"
    if value.lower() not in _SWITCH:
        raise UsageError(f"{name}={value!r}; allowed: {', '.join(_SWITCH)}")
    return _SWITCH[value.lower()]


@dataclass(frozen=True)
class StudyFolder:
    """Where the files of one study lie."""

    root: Path

    @property
    def best_config(self) -> Path:
        return self.root / "best_config.yaml"

    @property
    def spool(self) -> Path:
        return self.root / "spool"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration.json"

    @property
    def range_tests_plot(self) -> Path:
        return self.root / "range_tests.png"

    @property
    def logs(self) -> Path:
        return self.root / "logs"


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

    def study(self, study_id: str) -> StudyFolder:
        return StudyFolder(self.root / "studies" / study_id)


@dataclass(frozen=True)
class ServerAddress:
    """The server that commands go to (DIALIN_SERVER), and the token that says who asks (DIALIN_TOKEN). A token is never
    an argument: those can be read by everybody on the machine."""

    url: str
    token: str | None = field(default=None, repr=False)

    @classmethod
    def read(
        cls, environ: Mapping[str, str] = os.environ, *, url: str | None = None, out: str | None = None
    ) -> ServerAddress | None:
        """The one named on the command line, else the environment's unless `out` names a folder of this machine; None
        for none. Raises UsageError when the command line names both."""
        if url and out:
            raise UsageError(f"--server {url} and --out {out}: a study is on a server or in a folder; name either")
        chosen = url or (None if out else environ.get("DIALIN_SERVER"))
        return cls(chosen, environ.get("DIALIN_TOKEN") or None) if chosen else None
