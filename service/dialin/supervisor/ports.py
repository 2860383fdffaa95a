"""Ports of this machine: bound when they are chosen where the one who listens can be given the socket, else chosen anew
when somebody else was faster."""

from __future__ import annotations

import errno
import socket

from dialin.errors import UsageError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on an address, for a process that inherits it. Nobody else can have the port from then on,
    and who calls while that process is started again waits for it. Raises UsageError for a port that is taken."""
    try:
        return _bound(host, port, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} on {host} is taken; name another with --port") from None
        raise UsageError(f"port {port} on {host} cannot be opened: {error.strerror or error}") from None


def is_free(host: str, port: int) -> bool:
    try:
        _bound(host, port).close()
    except OSError:
        return False
    return True


def free_port(wanted: int = 0) -> int:
    """That one of 127.0.0.1 where it is free, else any. It is not kept: somebody else may take it."""
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
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # as asyncio's servers
        bound.bind((host, port))
        if backlog is not None:
            bound.listen(backlog)
    except OSError:
        bound.close()
        raise
    return bound
