"""Every environment variable that dialin reads, typed and read once."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dialin.errors import UsageError
from dialin.paths import OutputFolder

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # this machine, for itself only
MLFLOW_SECRET = "DIALIN_MLFLOW_SECRET"
MLFLOW_PATH = "/mlflow"  # of the server, under which it passes requests on to an MLflow of its own
_SWITCH = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


@dataclass(frozen=True)
class Settings:
    """`out`: where studies are kept (DIALIN_OUT). `data_dir`: where data sets are looked for and downloaded to
    (DIALIN_DATA_DIR); by default a folder of `out`. `mlflow_uri`: MLflow's server (DIALIN_MLFLOW_URI); None: a database
    in `out`. `allow_code`: whether a server takes specifications that name a person's own function, and runs it
    (DIALIN_ALLOW_CODE; off). `database_url`: the studies' database as an SQLAlchemy URL (DIALIN_DATABASE_URL); None: a
    SQLite file in `out`. `upgrade_database`: a server upgrades dialin's tables in `database_url` when it starts
    (DIALIN_UPGRADE_DATABASE; off). `mlflow_secret`: what MLflow's server of `dialin up` wants to be shown, which makes it anew at
    each start and tells only its own parts (DIALIN_MLFLOW_SECRET); None: MLflow is somebody else's."""

    out: Path
    data_dir: Path
    mlflow_uri: str | None = None
    allow_code: bool = False
    database_url: str | None = field(default=None, repr=False)  # there may be a password in it
    mlflow_secret: str | None = field(default=None, repr=False)
    upgrade_database: bool = False

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the studies' database."""
        return self.database_url or f"sqlite:///{OutputFolder(self.out).database.resolve()}"

    def command(self, words: str) -> str:
        """A dialin command as it works from the current folder: with --out where the studies lie elsewhere than a
        command would look for them by itself."""
        if self.out == Settings.read().out:
            return f"dialin {words}"
        relative = os.path.relpath(self.out)
        shown = relative if len(relative) < len(str(self.out)) else str(self.out)
        return f"dialin {words} --out {shlex.quote(shown)}"

    @property
    def has_database(self) -> bool:
        """Whether there can be a study: a SQLite file is there from the first one on."""
        return self.database_url is not None or OutputFolder(self.out).database.exists()

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
        return cls(
            chosen_out,
            folder,
            environ.get("DIALIN_MLFLOW_URI") or None,
            _switch("DIALIN_ALLOW_CODE", environ),
            environ.get("DIALIN_DATABASE_URL") or None,
            environ.get(MLFLOW_SECRET) or None,
            _switch("DIALIN_UPGRADE_DATABASE", environ),
        )


@dataclass(frozen=True)
class ServerSettings:
    """What only a server asks about; each field's variable is in `_SERVER`.

    `ray_address`: the dashboard of a Ray cluster that studies run on, as http://HOST:8265; None: one of its own.
    `max_running`: studies at a time at most; None: as many as have room for a trial. `max_attempts`: drivers of one
    study that may die in a row. `allowed_hosts`: names that requests may be addressed to. `max_trials`: of one study.
    `max_studies`: queued or running, of one token. `reads`, `writes`: requests a second of one caller, with ten
    seconds' worth at once; `anonymous`: the same of one address, by callers who are not known. `max_streams`: event
    streams at a time, `max_streams_per_caller` of one caller. `max_connections`: at a time, fewer where the process may
    not have as many files open; `max_connections_per_address` of one address, by default half of them. `poll_seconds`:
    between two looks at what is wanted and what runs.

    `patience_seconds`: how long a part of `dialin up` may answer nothing before it is replaced, on a machine that is
    not busy; up to four times as long on one that is. `log_bytes`: of each part's log; twice as many are kept.
    `bundle_bytes`: of files that one submitter has sent; `all_bundles_bytes`: of all together. `bundle_hours`: how long
    files that no study uses are kept after they were sent."""

    ray_address: str | None = None
    max_running: int | None = None
    max_attempts: int = 5
    allowed_hosts: tuple[str, ...] = ()
    max_trials: int = 10_000
    max_studies: int = 100
    reads: float = 500.0
    writes: float = 50.0
    anonymous: float = 50.0
    max_streams: int = 200
    max_streams_per_caller: int = 50
    max_connections: int = 1000
    max_connections_per_address: int | None = None
    poll_seconds: float = 1.0
    patience_seconds: float = 30.0
    log_bytes: int = 10 * 2**20
    bundle_bytes: int = 500 * 2**20
    all_bundles_bytes: int = 5 * 2**30
    bundle_hours: float = 24.0

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> ServerSettings:
        """From the environment. Raises UsageError for a value that is none of those allowed."""
        values = {
            name: convert(variable, environ[variable])
            for name, (variable, convert) in _SERVER.items()
            if environ.get(variable)
        }
        return cls(**values)


def _address(name: str, text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+/?", text):
        raise UsageError(f"{name}={text!r}; the address of Ray's dashboard, as http://127.0.0.1:8265")
    return text.rstrip("/")


def _count(name: str, text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        raise UsageError(f"{name}={text!r}; allowed: a whole number from 1 to 9999999")
    return int(text)


def _positive(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise UsageError(f"{name}={text!r}; allowed: a number above 0")
    return value


def _mebibytes(name: str, text: str) -> int:
    return _count(name, text) * 2**20


def _names(name: str, text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower().strip("[]") for part in text.split(",") if part.strip())
    if "*" in names:
        raise UsageError(f"{name}={text!r}; name the hosts: a server for every host can be called by any page")
    wrong = [each for each in names if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", each)]
    if wrong:
        raise UsageError(f"{name}: {wrong[0]!r} is no host; allowed: names and addresses, without a scheme or a port")
    return names


_SERVER: Mapping[str, tuple[str, Callable[[str, str], Any]]] = {
    "ray_address": ("DIALIN_RAY_ADDRESS", _address),
    "max_running": ("DIALIN_MAX_RUNNING", _count),
    "max_attempts": ("DIALIN_MAX_ATTEMPTS", _count),
    "allowed_hosts": ("DIALIN_ALLOWED_HOSTS", _names),
    "max_trials": ("DIALIN_MAX_TRIALS", _count),
    "max_studies": ("DIALIN_MAX_STUDIES", _count),
    "reads": ("DIALIN_READS_PER_SECOND", _positive),
    "writes": ("DIALIN_WRITES_PER_SECOND", _positive),
    "anonymous": ("DIALIN_ANONYMOUS_PER_SECOND", _positive),
    "max_streams": ("DIALIN_MAX_STREAMS", _count),
    "max_streams_per_caller": ("DIALIN_MAX_STREAMS_PER_CALLER", _count),
    "max_connections": ("DIALIN_MAX_CONNECTIONS", _count),
    "max_connections_per_address": ("DIALIN_MAX_CONNECTIONS_PER_ADDRESS", _count),
    "poll_seconds": ("DIALIN_POLL_SECONDS", _positive),
    "patience_seconds": ("DIALIN_PATIENCE_SECONDS", _positive),
    "log_bytes": ("DIALIN_LOG_MIB", _mebibytes),
    "bundle_bytes": ("DIALIN_BUNDLES_MIB", _mebibytes),
    "all_bundles_bytes": ("DIALIN_ALL_BUNDLES_MIB", _mebibytes),
    "bundle_hours": ("DIALIN_BUNDLE_HOURS", _positive),
}


def _switch(name: str, environ: Mapping[str, str]) -> bool:
    value = environ.get(name) or "0"
    if value.lower() not in _SWITCH:
        raise UsageError(f"{name}={value!r}; allowed: {', '.join(_SWITCH)}")
    return _SWITCH[value.lower()]


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
