"""Health check of a Ray cluster: whether its dashboard, its GCS and the raylet of each node answer.

The dashboard's list of nodes comes from the GCS, in which a node stays alive until it has been silent for about a
minute. Therefore each raylet is asked directly, by the first bytes of its protocol. A gRPC server answers them with its
settings, or closes the connection if it uses TLS. One that hangs does neither, although the kernel accepts connections
for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

ANSWER_SECONDS = 2.0
"""Longest time that an answer may take."""
MOST_NODES = 20
"""Most nodes that one check asks."""
# The preface of an HTTP/2 connection with empty settings; RFC 9113, section 3.4.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def check_cluster(fetch: Callable[[str], Any], asks: Callable[[str], None]) -> str:
    """Return `ok`, or what is wrong.

    `fetch` returns the dashboard's answer to a path, parsed. `asks` is called with the name of the service that is
    asked next. Raises TimeoutError if that service does not answer, and what `fetch` raises.
    """
    asks("Ray's dashboard")
    fetch("/api/version")
    asks("Ray's GCS")
    # Without nocache the dashboard answers from memory, without asking the GCS.
    nodes = [node["raylet"] for node in fetch("/nodes?view=summary&nocache=1")["data"]["summary"]]
    alive = [node for node in nodes if node.get("state") == "ALIVE"]
    if not alive:
        return "has no nodes"
    for node in alive[:MOST_NODES]:
        asks(f"the raylet of node {node['nodeManagerAddress']}")
        if hangs(node["nodeManagerAddress"], int(node["nodeManagerPort"])):
            raise TimeoutError
    return "ok"


def hangs(host: str, port: int, seconds: float = ANSWER_SECONDS) -> bool:
    """Return whether a gRPC server accepts a connection and then sends nothing for `seconds`.

    A server that cannot be reached does not count as hanging, because a firewall may be in between.
    """
    try:
        connection = socket.create_connection((host, port), timeout=seconds)
    except OSError:
        return False
    with connection:
        try:
            connection.sendall(_HELLO)
            connection.recv(1)
        except TimeoutError:
            return True
        except OSError:
            pass  # the server has closed the connection, so it is alive
    return False
