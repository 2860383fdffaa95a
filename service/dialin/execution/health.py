"""Whether the parts of a Ray cluster answer: its dashboard, its GCS, and the raylet of each node.

The dashboard's list of nodes comes from the GCS, which calls a node alive until it has been silent for about a minute.
So each raylet is asked itself, by the first words of its own protocol: a gRPC server answers them with its settings (or
hangs up, where it speaks TLS), and one that hangs does nothing, though the kernel still takes connections for it.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

ANSWER_SECONDS = 2.0
MOST_NODES = 20  # that are asked in one look
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and no settings: RFC 9113


def check_cluster(fetch: Callable[[str], Any], asks: Callable[[str], None]) -> str:
    """`ok`, or what is wrong. `fetch` gives the dashboard's answer to a path, parsed. `asks` is told whom each question
    is for. Raises TimeoutError when that one does not answer, ClusterError when the dashboard cannot be reached."""
    asks("Ray's dashboard")
    fetch("/api/version")
    asks("Ray's GCS")
    # Not what the dashboard remembers: that it gives without asking.
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
    """Whether a gRPC server takes a connection and then says nothing. One that cannot be reached from here does not
    hang as far as is known: there may be a firewall in between."""
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
            pass  # it hung up, so it is there
    return False
