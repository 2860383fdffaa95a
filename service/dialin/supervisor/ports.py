"""TCP ports of this machine.

If the process that will listen can inherit a socket, the port is bound when it is chosen (`listen`). Otherwise another
process may take the port in between, and the caller has to choose a new one (`free_port`).
"""

from __future__ import annotations

import errno
import socket

from dialin.errors import UsageError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address, for a process that inherits it.

    While that process is restarted the port stays bound, and new connections wait in the backlog. Raises UsageError for
    a port that is taken or cannot be opened.
    """
    try:
        return _bound(host, port, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} on {host} is taken; name another with --port") from None
        raise UsageError(f"port {port} on {host} cannot be opened: {error.strerror or error}") from None


def is_free(host: str, port: int) -> bool:
    """Return whether a port can be bound now."""
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def free_port(wanted: int = 0) -> int:
    """Return a free port of 127.0.0.1: `wanted` if that is free. It is not reserved: another process may take it."""
    if wanted and is_free("127.0.0.1", wanted):
        return wanted
    with _bound("127.0.0.1", 0) as probe:
        port: int = probe.getsockname()[1]
    return port


def _bound(host: str, port: int, backlog: int | None = None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio does for its servers
        bound.bind((host, port))
        if backlog is not None:
            bound.listen(backlog)
    except OSError:
        bound.close()
        raise
    return bound
