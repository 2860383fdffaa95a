"""The server's process: `python -m dialin.server.serve --host H --port P`; the rest says the environment."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress

import uvicorn
from starlette.types import ASGIApp

from dialin.errors import DialinError, UsageError
from dialin.execution.ray_jobs import RayJobs
from dialin.server.app import create_app
from dialin.server.connections import ConnectionLimits, protocol
from dialin.server.log_throttle import LogThrottle
from dialin.settings import LOOPBACK, ServerSettings, Settings
from dialin.store.migrate import upgrade
from dialin.store.tokens import Tokens

_NOT_STARTED = 3  # as uvicorn's own command has it


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dialin.server.serve")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--socket", type=int, help="a descriptor that is inherited and listens there already")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(LogThrottle())
    try:
        serve(arguments.host, arguments.port, Settings.read(), ServerSettings.read(), arguments.socket)
    except DialinError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def serve(host: str, port: int, settings: Settings, server: ServerSettings, descriptor: int | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT, on a socket that listens already where its descriptor is given. Raises
    UsageError for settings that are not safe where it listens."""
    if server.ray_address is None:
        raise UsageError("DIALIN_RAY_ADDRESS is not set; `dialin up` starts a Ray of its own")
    if settings.upgrade_database:
        upgrade(settings.database)
    check_exposure(host, settings, server)
    app = create_app(settings, server, RayJobs(server.ray_address), host=host)
    limits = ConnectionLimits.within(server.max_connections, server.max_connections_per_address)
    running = uvicorn.Server(configured(app, host, port, limits))
    with suppress(KeyboardInterrupt):
        running.run([socket.socket(fileno=descriptor)] if descriptor is not None else None)
    if not running.started:
        sys.exit(_NOT_STARTED)


def configured(app: ASGIApp, host: str, port: int, limits: ConnectionLimits) -> uvicorn.Config:
    """How uvicorn serves an application here."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol(limits),
        ws="none",
        backlog=128,  # fewer than there are files to spare: all of them may be accepted at once
        log_config=None,  # our own handlers, which write sparingly
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,  # event streams are endless: they must not keep a server that is to end
    )


def check_exposure(host: str, settings: Settings, server: ServerSettings) -> None:
    """Raises UsageError, which says what to set, for a server that others can reach and that is not made for it."""
    if host in LOOPBACK:
        return
    missing = []
    with Tokens(settings.database) as tokens:
        if not any(role == "admin" for _, role, _ in tokens.list()):
            missing.append("an admin's token: dialin token create NAME --role admin")
    if not server.allowed_hosts:
        missing.append("DIALIN_ALLOWED_HOSTS, the names by which it is called, as dialin.example.org")
    if missing:
        raise UsageError(
            f"a server that listens on {host} can be reached by others; it needs " + "; and ".join(missing)
        )


if __name__ == "__main__":
    sys.exit(main())
