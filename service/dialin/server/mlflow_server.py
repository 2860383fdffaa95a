"""MLflow's server for `dialin up`, which only the other services of `dialin up` can call:

    python -m dialin.server.mlflow_server --port N --database FILE --artifacts FOLDER

Every route requires the secret in DIALIN_MLFLOW_SECRET. Connections are limited as those of the API are, because every
account of the machine can open some. MLflow's own command is not used: it starts uvicorn as another process, and has no
way to check requests to all routes.
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
_REFUSAL = b"this MLflow answers dialin only; use the path /mlflow/ of the dialin server instead\n"


class RequireSecret:
    """ASGI middleware that answers 401 to requests without the secret."""

    def __init__(self, app: ASGIApp, secret: str) -> None:
        self._app, self._accepted = app, accepted_headers(secret)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._is_authorized(scope)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send(
                {
                    "type": "http.response.body",
                    "body": _REFUSAL,
                }
            )
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _is_authorized(self, scope: Scope) -> bool:
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
        print(f"error: {MLFLOW_SECRET} is not set; start MLflow with `dialin up`, which sets it", file=sys.stderr)
        return 2
    os.umask(OutputFolder(arguments.artifacts.parent).mask)
    app = RequireSecret(open_mlflow(arguments.port, arguments.database, arguments.artifacts), secret)
    limits = ConnectionLimits.within(MOST_CONNECTIONS, MOST_CONNECTIONS)  # all callers have one address
    uvicorn.run(
        app, host="127.0.0.1", port=arguments.port, http=protocol(limits), ws="none", log_level="warning",
        access_log=False, server_header=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
