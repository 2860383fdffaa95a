"""MLflow's server for `dialin up`, for nobody but its parts:

    python -m dialin.server.mlflow_server --port N --database FILE --artifacts FOLDER

Every answer, of whatever route, needs the secret that DIALIN_MLFLOW_SECRET holds; connections have the limits that the
API's have, as every account of the machine can open some. It is one process: MLflow's own command would start uvicorn
as another one, and cannot put anything before all routes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from hmac import compare_digest
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from dialin.paths import OutputFolder
from dialin.server.connections import ConnectionLimits, protocol
from dialin.settings import MLFLOW_SECRET
from dialin.tracking.mlflow_access import accepted_headers
from dialin.tracking.mlflow_app import open_mlflow

MOST_CONNECTIONS = 500


class Locked:
    """An ASGI application that answers only who shows the secret."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app, self._accepted = app, accepted_headers(secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._knows(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b"ask by way of the server's /mlflow/\n"})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _knows(self, scope: Scope) -> bool:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(shown) == 1 and any(compare_digest(shown[0], accepted) for accepted in self._accepted)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dialin.server.mlflow_server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--database", type=Path, required=True)
    parser.add_argument("--artifacts", type=Path, required=True)
    arguments = parser.parse_args(argv)
    secret = os.environ.pop(MLFLOW_SECRET, "")
    if not secret:
        print(f"error: {MLFLOW_SECRET} is not set; `dialin up` starts this with a secret of its own", file=sys.stderr)
        return 2
    os.umask(OutputFolder(arguments.artifacts.parent).mask)
    app = Locked(open_mlflow(arguments.port, arguments.database, arguments.artifacts), secret)
    limits = ConnectionLimits.within(MOST_CONNECTIONS, MOST_CONNECTIONS)  # all callers have one address
    uvicorn.run(
        app, host="127.0.0.1", port=arguments.port, http=protocol(limits), ws="none", log_level="warning",
        access_log=False, server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
