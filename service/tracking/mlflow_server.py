"""MLflow's server for `dialin up`, for nobody but its parts:

    python -P -m service.tracking.mlflow_server --port N --database FILE --artifacts FOLDER

Every answer, of whatever route, needs the secret that DIALIN_MLFLOW_SECRET holds; artifacts stay in their folder. It
is one process: MLflow's own command would start uvicorn as another one, and cannot put anything before all routes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from hmac import compare_digest
from pathlib import Path
from typing import Any

from service.settings import MLFLOW_SECRET, OutputFolder
from service.tracking.local_artifacts import confine_artifacts
from service.tracking.mirror import sqlite_uri
from service.tracking.mlflow_access import accepted_headers

_ARTIFACT_ROOT = "mlflow-artifacts:/"  # of experiments that name none: in our folder, by way of this server
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Locked:
    """An ASGI application that answers only who shows the secret."""

    def __init__(self, app: App, secret: str) -> None:
        self._app, self._accepted = app, accepted_headers(secret)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._knows(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"ask by way of the server's /mlflow/\n"})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _knows(self, scope: Message) -> bool:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(shown) == 1 and any(compare_digest(shown[0], accepted) for accepted in self._accepted)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m service.tracking.mlflow_server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    arguments = parser.parse_args(argv)
    secret = os.environ.pop(MLFLOW_SECRET, "")
    if not secret:
        print(f"error: {MLFLOW_SECRET} is not set; `dialin up` starts this with a secret of its own", file=sys.stderr)
        return 2
    import uvicorn

    os.umask(OutputFolder(arguments.artifacts.parent).mask)
    app = Locked(_mlflow(arguments.port, arguments.database, arguments.artifacts), secret)
    # h11 limits headers before anybody is known, which the faster parser does not.
    uvicorn.run(
        app, host="127.0.0.1", port=arguments.port, http="h11", ws="none", log_level="warning", access_log=False,
        server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return 0


def _mlflow(port: int, database: Path, artifacts: Path) -> App:
    """MLflow's application over a database, which is made where it is missing, and a folder of artifacts."""
    os.environ |= {
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
        # Processes that run jobs of MLflow's (evaluations of language models), of which we have none.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_WORKSPACES": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    artifacts.mkdir(exist_ok=True)
    from service.tracking.recorder import sqlite_client

    uri = sqlite_uri(database)
    sqlite_client(uri, _store).search_experiments(max_results=1)

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


def _store(uri: str) -> Any:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(uri, _ARTIFACT_ROOT)


if __name__ == "__main__":
    sys.exit(main())
