"""Health of a Ray cluster: whether its dashboard, its GCS and the raylet of each node answer.

The dashboard's list of nodes comes from the GCS, which calls a node alive until it has been silent for about a minute.
So each raylet is asked directly, by the first bytes of its protocol. A gRPC server answers them with its settings, or
closes the connection where it uses TLS; one that hangs does neither, though the kernel accepts connections for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

ANSWER_SECONDS = 2.0
"""Time that a part has to answer."""
MOST_NODES = 20
"""Nodes that one check asks."""
# The preface of an HTTP/2 connection with empty settings; RFC 9113, section 3.4.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def check_cluster(fetch: Callable[[str], Any], asks: Callable[[str], None]) -> str:
    """Return `ok`, or what is wrong.

    `fetch` returns the dashboard's answer to a path, parsed. `asks` is told which part is about to be asked. Raises
    TimeoutError when that part does not answer, and what `fetch` raises.
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
    """Return whether a gRPC server accepts a connection and then says nothing for so many seconds.

    A server that cannot be reached counts as not hanging: there may be a firewall in between.
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
            pass  # it closed the connection, so it is alive
    return False
