"""The process of the HTTP server: `python -m dialin.server.serve --host H --port P`.

All other settings come from the environment (`dialin.settings`).
"""

from __future__ import annotations

import argparse
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
from dialin.supervisor import logs

_NOT_STARTED = 3  # the exit code that uvicorn's command line uses for it
LOGGERS = ("dialin", "uvicorn", "asyncio", "py.warnings")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dialin.server.serve")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="the port to listen on")
    parser.add_argument("--socket", type=int, help="the descriptor of an inherited socket that already listens there")
    arguments = parser.parse_args(argv)
    try:
        settings, limits = Settings.read(), ServerSettings.read()
        handler = logs.configure(limits.log_level, limits.log_format, loggers=LOGGERS)
        handler.addFilter(LogThrottle())
        serve(arguments.host, arguments.port, settings, limits, arguments.socket)
    except DialinError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def serve(host: str, port: int, settings: Settings, limits: ServerSettings, descriptor: int | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT. `descriptor`: of an inherited socket that already listens.

    Raises UsageError if no Ray cluster is named, and for settings that are not safe on that address.
    """
    if limits.ray_address is None:
        raise UsageError(
            "DIALIN_RAY_ADDRESS is not set; name the dashboard of a Ray cluster, or use `dialin up`, which starts one"
        )
    if settings.upgrade_database:
        upgrade(settings.database)
    check_exposure(host, settings, limits)
    app = create_app(settings, limits, RayJobs(limits.ray_address), host=host)
    connections = ConnectionLimits.within(limits.max_connections, limits.max_connections_per_address)
    server = uvicorn.Server(uvicorn_config(app, host, port, connections))
    with suppress(KeyboardInterrupt):
        server.run([socket.socket(fileno=descriptor)] if descriptor is not None else None)
    if not server.started:
        sys.exit(_NOT_STARTED)


def uvicorn_config(app: ASGIApp, host: str, port: int, limits: ConnectionLimits) -> uvicorn.Config:
    """Return the configuration with which uvicorn serves the application."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=protocol(limits),
        ws="none",
        backlog=128,  # all of these may be accepted at once, so they have to fit into the free file descriptors
        log_config=None,  # the handler of `logs.configure` writes uvicorn's records too
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,  # event streams have no end, and would otherwise keep the server from ending
    )


def check_exposure(host: str, settings: Settings, limits: ServerSettings) -> None:
    """Raise UsageError, which says what to set, if other machines can reach the server and it is not secured."""
    if host in LOOPBACK:
        return
    missing = []
    with Tokens(settings.database) as tokens:
        if not any(role == "admin" for _, role, _ in tokens.list()):
            missing.append("an admin's token (dialin token create NAME --role admin)")
    if not limits.allowed_hosts:
        missing.append("DIALIN_ALLOWED_HOSTS with the host names of its address, such as dialin.example.org")
    if missing:
        raise UsageError(
            f"a server that listens on {host} can be reached from other machines; it needs " + " and ".join(missing)
        )


if __name__ == "__main__":
    sys.exit(main())
