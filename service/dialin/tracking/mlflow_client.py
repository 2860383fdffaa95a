"""MLflow's public client as the recorder and `dialin up` open it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from dialin.settings import MLFLOW_SECRET
from dialin.tracking.mlflow_access import use_secret

SQLITE = "sqlite:///"
OPENING_SECONDS = 60.0  # at most, while another process makes or writes the database


class LazyClient:
    """An MlflowClient that is made at its first use: on SQLite that migrates the database, and may fail as any call."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            self._client = sqlite_client(self._uri) if self._uri.startswith(SQLITE) else _client(self._uri)
        return getattr(self._client, name)


def sqlite_client(uri: str, make_tables: Callable[[str], object] | None = None) -> Any:
    """An MlflowClient on a SQLite file, which is made if it is missing.

    make_tables: makes MLflow's tables in the database at a URI; by default a client does.
    Raises sqlite3.Error for a file that is not a database, and filelock's Timeout.
    """
    database = uri.removeprefix(SQLITE)
    # MLflow's own lock does not cover all of a migration: two processes that make one database at a time ruin it.
    with FileLock(f"{database}.lock", timeout=OPENING_SECONDS):
        if not Path(database).exists():
            _make_database(Path(database), make_tables or _make_tables)
        # MLflow retries a database that cannot be opened for minutes, and logs nothing meanwhile.
        with closing(sqlite3.connect(database, timeout=OPENING_SECONDS)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
        client = _client(uri)
        # With a write-ahead log a commit takes half the time, and readers of MLflow's pages do not delay it.
        with suppress(sqlite3.Error), closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
    return client


def prepare_environment() -> None:
    """Set the environment variables that MLflow's client reads. Call it before the first import of mlflow."""
    os.environ.update(
        {
            # MLflow would repeat a create by itself when its answer is lost, and make a second run.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # printing takes a request for each run
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "GIT_PYTHON_REFRESH": "quiet",
            "OPENBLAS_NUM_THREADS": "1",  # it reserves memory for every core
        }
    )
    if secret := os.environ.pop(MLFLOW_SECRET, None):
        use_secret(secret)


def _make_database(database: Path, make_tables: Callable[[str], object]) -> None:
    """A new database, complete or not at all: MLflow cannot repair one whose migrations were interrupted, and its
    command `mlflow db upgrade` migrates a database but makes none."""
    partial = database.with_name(f"{database.name}.partial")
    for left_over in (partial, partial.with_name(f"{partial.name}-journal")):
        left_over.unlink(missing_ok=True)
    make_tables(f"{SQLITE}{partial}")
    partial.rename(database)  # connections that MLflow keeps open follow the file; they are not used again


def _make_tables(uri: str) -> None:
    _client(uri).search_experiments(max_results=1)


def _client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)
