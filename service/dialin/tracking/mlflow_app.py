"""MLflow's application for `dialin up`, over a SQLite database and a folder to which its artifacts are confined."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from dialin.paths import sqlite_url
from dialin.tracking.local_artifacts import confine_artifacts

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]  # an ASGI application
_ARTIFACT_ROOT = "mlflow-artifacts:/"  # the location of experiments that name none: this server's folder


def open_mlflow(port: int, database: Path, artifacts: Path) -> App:
    """MLflow's application over a database, which is made if it is missing, and a folder of artifacts.

    It starts MLflow's server without `mlflow server`, which starts processes of its own; the names that this needs of
    `mlflow.server` are listed in tests/tracking/test_upstream.py."""
    os.environ |= {
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
        # MLflow would start processes for its jobs (evaluations of language models), which dialin has none of.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_WORKSPACES": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    artifacts.mkdir(exist_ok=True)
    from dialin.tracking.mlflow_client import sqlite_client

    uri = sqlite_url(database)
    sqlite_client(uri, _make_store).search_experiments(max_results=1)

    from mlflow.server import constants, handlers

    os.environ |= {  # what `mlflow server` hands to its workers
        constants.BACKEND_STORE_URI_ENV_VAR: uri,
        constants.REGISTRY_STORE_URI_ENV_VAR: uri,
        constants.ARTIFACT_ROOT_ENV_VAR: _ARTIFACT_ROOT,
        constants.ARTIFACTS_DESTINATION_ENV_VAR: str(artifacts.resolve()),
        constants.SERVE_ARTIFACTS_ENV_VAR: "true",
    }
    confine_artifacts(artifacts)
    handlers.initialize_backend_stores(uri, uri, _ARTIFACT_ROOT)
    from mlflow.server.fastapi_app import app

    served: App = app
    return served


def _make_store(uri: str) -> object:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(uri, _ARTIFACT_ROOT)
