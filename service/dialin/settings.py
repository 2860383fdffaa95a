"""The environment variables that dialin reads, typed and read once, at the edge of the program.

Each setting stands in one place: a field with its variable, how its text is read, its default and what it means. The
tables of the manual come from there (`table`).
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from dialin.errors import UsageError
from dialin.paths import OutputFolder, sqlite_url

LOOPBACK = ("127.0.0.1", "localhost", "::1")  # addresses that only this machine can reach
MLFLOW_SECRET = "DIALIN_MLFLOW_SECRET"
MLFLOW_PATH = "/mlflow"  # of the server: where it passes requests on to the MLflow that it started
_SWITCH = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
_MIB = 2**20
RENAMED: Mapping[str, str] = {"DIALIN_PATIENCE_SECONDS": "DIALIN_HEALTH_TIMEOUT_SECONDS"}
"""Earlier names of environment variables, each with its present name."""


def _path(_variable: str, text: str) -> Path:
    return Path(text).expanduser().resolve()


def _text(_variable: str, text: str) -> str:
    return text


def _switch(variable: str, text: str) -> bool:
    if text.lower() not in _SWITCH:
        raise UsageError(f"{variable}={text!r}; allowed: {', '.join(_SWITCH)}")
    return _SWITCH[text.lower()]


def _dashboard(variable: str, text: str) -> str:
    if not re.fullmatch(r"https?://[^/\s]+/?", text):
        raise UsageError(f"{variable}={text!r}; allowed: the address of Ray's dashboard, as http://127.0.0.1:8265")
    return text.rstrip("/")


def _one_of(*allowed: str) -> Callable[[str, str], str]:
    def read(variable: str, text: str) -> str:
        if text not in allowed:
            raise UsageError(f"{variable}={text!r}; allowed: {', '.join(allowed)}")
        return text

    return read


def _count(variable: str, text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        raise UsageError(f"{variable}={text!r}; allowed: a whole number from 1 to 9999999")
    return int(text)


def _positive(variable: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < 1e6:
        raise UsageError(f"{variable}={text!r}; allowed: a number above 0 and below 1000000")
    return value


def _mebibytes(variable: str, text: str) -> int:
    return _count(variable, text) * _MIB


def _hosts(variable: str, text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower().strip("[]") for part in text.split(",") if part.strip())
    if "*" in names:
        raise UsageError(
            f"{variable}={text!r}; name each host: any web page could call a server that accepts every host name"
        )
    wrong = [each for each in names if not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", each)]
    if wrong:
        raise UsageError(
            f"{variable}: {wrong[0]!r} is not a host; allowed: names and addresses, without a scheme or a port"
        )
    return names


@dataclass(frozen=True)
class Variable:
    """The environment variable of a setting."""

    name: str
    read: Callable[[str, str], Any]
    """Called with the variable's name and its text; raises UsageError."""
    meaning: str


def _variables(record: type[Any]) -> dict[str, Variable]:
    """Return the variable of each field of a record."""
    hints = get_type_hints(record, include_extras=True)
    return {field.name: hints[field.name].__metadata__[0] for field in dataclasses.fields(record)}


def _values(record: type[Any], environ: Mapping[str, str]) -> dict[str, Any]:
    """Read the fields of a record whose variables are set. An empty value counts as unset.

    Raises UsageError for a value that is not allowed, and for an earlier name of one of these variables: ignoring it
    would silently use the default.
    """
    variables = _variables(record)
    names = {variable.name for variable in variables.values()}
    for earlier, name in RENAMED.items():
        if name in names and environ.get(earlier):
            raise UsageError(f"{earlier} was renamed to {name}; set {name} and unset {earlier}")
    return {
        name: variable.read(variable.name, environ[variable.name])
        for name, variable in variables.items()
        if environ.get(variable.name)
    }


@dataclass(frozen=True)
class Settings:
    """What commands, servers and drivers read. The values of the command line go before the environment's."""

    out: Annotated[
        Path,
        Variable(
            "DIALIN_OUT", _path, "the folder that studies are kept in; by default `dialin-data` in the current folder"
        ),
    ]
    data_dir: Annotated[
        Path, Variable("DIALIN_DATA_DIR", _path, "the folder of data sets; by default `data` in the former")
    ]
    mlflow_uri: Annotated[
        str | None,
        Variable(
            "DIALIN_MLFLOW_URI", _text, "an MLflow server; without it, a SQLite database in the folder of studies"
        ),
    ] = None
    allow_code: Annotated[
        bool, Variable("DIALIN_ALLOW_CODE", _switch, "whether a server runs training functions that people send to it")
    ] = False
    database_url: Annotated[
        str | None,
        Variable(
            "DIALIN_DATABASE_URL",
            _text,
            "the studies' database as an SQLAlchemy URL; without it, a SQLite file in the folder of studies",
        ),
    ] = dataclasses.field(default=None, repr=False)
    mlflow_secret: Annotated[
        str | None,
        Variable(
            MLFLOW_SECRET,
            _text,
            "the secret of the MLflow that `dialin up` starts; `dialin up` sets it for the processes that it runs",
        ),
    ] = dataclasses.field(default=None, repr=False)
    upgrade_database: Annotated[
        bool,
        Variable(
            "DIALIN_UPGRADE_DATABASE",
            _switch,
            "whether a server upgrades an older database at DIALIN_DATABASE_URL when it starts; otherwise it refuses",
        ),
    ] = False

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the studies' database."""
        return self.database_url or sqlite_url(OutputFolder(self.out).database)

    def command(self, words: str) -> str:
        """Return a dialin command that works from the current folder: with --out if the command would not find these
        studies without it."""
        if self.out == Settings.read().out:
            return f"dialin {words}"
        relative = os.path.relpath(self.out)
        shown = relative if len(relative) < len(str(self.out)) else str(self.out)
        return f"dialin {words} --out {shlex.quote(shown)}"

    @property
    def has_database(self) -> bool:
        """Whether there can be a study. The SQLite file exists from the first study on."""
        return self.database_url is not None or OutputFolder(self.out).database.exists()

    @classmethod
    def read(
        cls, environ: Mapping[str, str] = os.environ, *, out: str | None = None, data_dir: str | None = None
    ) -> Settings:
        """Read the settings: from the arguments first, then from the environment, then the defaults.

        Raises UsageError, which names the variable and what is allowed, for a value that is not.
        """
        given = {"DIALIN_OUT": out or environ.get("DIALIN_OUT") or "dialin-data"}
        folder = data_dir or environ.get("DIALIN_DATA_DIR")
        given["DIALIN_DATA_DIR"] = folder or str(Path(given["DIALIN_OUT"]).expanduser() / "data")
        return cls(**_values(cls, {**environ, **given}))


@dataclass(frozen=True)
class ServerSettings:
    """What only a server reads."""

    ray_address: Annotated[
        str | None,
        Variable(
            "DIALIN_RAY_ADDRESS",
            _dashboard,
            "the dashboard of the Ray cluster that studies run on, as http://HOST:8265; without it, `dialin up` "
            "starts one",
        ),
    ] = None
    max_running: Annotated[
        int | None,
        Variable(
            "DIALIN_MAX_RUNNING", _count, "studies that run at a time; by default as many as have room for a trial"
        ),
    ] = None
    max_attempts: Annotated[
        int,
        Variable("DIALIN_MAX_ATTEMPTS", _count, "drivers of one study that may die in a row before the study fails"),
    ] = 5
    allowed_hosts: Annotated[
        tuple[str, ...],
        Variable(
            "DIALIN_ALLOWED_HOSTS",
            _hosts,
            "the names that requests may be addressed to, with commas between them; needed beyond loopback",
        ),
    ] = ()
    max_trials: Annotated[int, Variable("DIALIN_MAX_TRIALS", _count, "trials of one study")] = 10_000
    max_studies: Annotated[
        int, Variable("DIALIN_MAX_STUDIES", _count, "studies of one token that are queued or running")
    ] = 100
    reads: Annotated[
        float,
        Variable("DIALIN_READS_PER_SECOND", _positive, "reading requests of one caller a second, with bursts of 10 s"),
    ] = 500.0
    writes: Annotated[
        float,
        Variable("DIALIN_WRITES_PER_SECOND", _positive, "writing requests of one caller a second, with bursts of 10 s"),
    ] = 50.0
    anonymous: Annotated[
        float,
        Variable(
            "DIALIN_ANONYMOUS_PER_SECOND",
            _positive,
            "requests of one address a second that show no valid token, with bursts of 10 s",
        ),
    ] = 50.0
    max_streams: Annotated[int, Variable("DIALIN_MAX_STREAMS", _count, "event streams that are open at a time")] = 200
    max_streams_per_caller: Annotated[
        int, Variable("DIALIN_MAX_STREAMS_PER_CALLER", _count, "event streams of one caller that are open at a time")
    ] = 50
    max_connections: Annotated[
        int,
        Variable(
            "DIALIN_MAX_CONNECTIONS",
            _count,
            "connections that are open at a time; fewer where the process may not open as many files (384 are kept "
            "free)",
        ),
    ] = 1000
    max_connections_per_address: Annotated[
        int | None,
        Variable("DIALIN_MAX_CONNECTIONS_PER_ADDRESS", _count, "connections of one address; by default half of them"),
    ] = None
    poll_seconds: Annotated[
        float,
        Variable("DIALIN_POLL_SECONDS", _positive, "seconds between two comparisons of what shall run with what runs"),
    ] = 1.0
    health_timeout_seconds: Annotated[
        float,
        Variable(
            "DIALIN_HEALTH_TIMEOUT_SECONDS",
            _positive,
            "seconds that a service of `dialin up` may fail its health checks before it is restarted; up to four times "
            "as long on a busy machine",
        ),
    ] = 30.0
    log_bytes: Annotated[
        int,
        Variable("DIALIN_LOG_MIB", _mebibytes, "size in MiB at which a service's log is rotated; one old log is kept"),
    ] = 10 * _MIB
    log_level: Annotated[
        str,
        Variable("DIALIN_LOG_LEVEL", _one_of("debug", "info", "warning", "error"), "the least level that is logged"),
    ] = "info"
    log_format: Annotated[
        str,
        Variable(
            "DIALIN_LOG_FORMAT", _one_of("text", "json"), "`json`: an object a line, with the ids of study and request"
        ),
    ] = "text"
    bundle_bytes: Annotated[
        int, Variable("DIALIN_BUNDLES_MIB", _mebibytes, "size in MiB of the code bundles of one submitter")
    ] = 500 * _MIB
    all_bundles_bytes: Annotated[
        int, Variable("DIALIN_ALL_BUNDLES_MIB", _mebibytes, "size in MiB of all code bundles together")
    ] = 5120 * _MIB
    bundle_hours: Annotated[
        float, Variable("DIALIN_BUNDLE_HOURS", _positive, "hours for which a code bundle that no study uses is kept")
    ] = 24.0

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ) -> ServerSettings:
        """Read the settings from the environment. Raises UsageError, which names the variable and what is allowed, for
        a value that is not."""
        return cls(**_values(cls, environ))


@dataclass(frozen=True)
class ServerAddress:
    """The server that commands go to. The token is never an argument: every account can read those of a process."""

    url: Annotated[str, Variable("DIALIN_SERVER", _text, "the server that commands go to, as http://127.0.0.1:8080")]
    token: Annotated[str | None, Variable("DIALIN_TOKEN", _text, "the token that commands show to it")] = (
        dataclasses.field(default=None, repr=False)
    )

    @classmethod
    def read(
        cls, environ: Mapping[str, str] = os.environ, *, url: str | None = None, out: str | None = None
    ) -> ServerAddress | None:
        """Return the address on the command line, else the environment's unless `out` names a folder of this machine;
        None if neither names one. Raises UsageError if the command line names a server and a folder."""
        if url and out:
            raise UsageError(f"--server {url} and --out {out}: a study is on a server or in a folder; name either")
        values = _values(cls, environ)
        if url is not None:
            values["url"] = url
        elif out:
            return None
        return cls(**values) if values.get("url") else None


def table(record: type[Settings | ServerSettings | ServerAddress]) -> list[tuple[str, str, str]]:
    """Return a row for each setting of a record: its variable, its default as it would be written there (empty: none),
    and what it means."""
    defaults = {field.name: field.default for field in dataclasses.fields(record)}
    return [
        (variable.name, _written(defaults[name], variable), variable.meaning)
        for name, variable in _variables(record).items()
    ]


def _written(default: Any, variable: Variable) -> str:
    if default in (None, dataclasses.MISSING):
        return ""
    if isinstance(default, bool):
        return "1" if default else "0"
    if isinstance(default, int | float):
        return f"{default / _MIB if variable.read is _mebibytes else default:g}"
    return ",".join(default) if isinstance(default, tuple) else str(default)
