"""Health check of a Ray head on this machine: asks each of the processes that a study needs."""

from __future__ import annotations

import json
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from dialin.execution.health import hangs

# Without proxies: a proxy cannot reach the loopback interface, and must not see the token.
_DIRECT = build_opener(ProxyHandler({}))


class HeadHealth:
    """A health check. Calling it returns which process does not answer, in a few words; empty if all of them answer.

    The dashboard has to answer with Ray's version, which comes from the process that accepts jobs. GCS and raylet have
    to answer the first bytes of their protocol. The dashboard's agent, which starts jobs, may answer with any status.
    Ray's own checks report a dead raylet after 65 s, and never a dead GCS.

    `dashboard`: its URL. `token`: Ray's token. `folder`: Ray's temporary folder. `timeout_seconds`: the longest time
    that each answer may take.
    """

    def __init__(self, dashboard: str, token: str, folder: Path, timeout_seconds: float) -> None:
        self._dashboard, self._folder, self._timeout_seconds = dashboard, folder, timeout_seconds
        self._headers = {"Authorization": f"Bearer {token}"}
        self._session: Path | None = None
        self._node: dict[str, Any] = {}

    def __call__(self) -> str:
        try:
            self._get(f"{self._dashboard}/api/version")
        except (OSError, HTTPException, ValueError) as error:
            return f"its dashboard does not answer: {getattr(error, 'reason', error)}"
        session = (self._folder / "session_latest").resolve()
        gcs = next((file.read_text().strip() for file in session.glob("gcs_server_port_*")), "")
        if not gcs.isdigit() or hangs("127.0.0.1", int(gcs), self._timeout_seconds):
            return "its GCS does not answer"
        if session != self._session and (trouble := self._find_node(session)):
            return trouble
        return self._check_node()

    def _check_node(self) -> str:
        host = self._node.get("nodeManagerAddress", "127.0.0.1")
        port, agent = self._node.get("nodeManagerPort"), self._node.get("dashboardAgentListenPort")
        if port and hangs(host, port, self._timeout_seconds):
            return "its raylet does not answer"
        if agent and agent > 0 and not self._answers(f"http://{host}:{agent}/api/local_raylet_healthz"):
            return "its dashboard's agent does not answer"
        return ""

    def _find_node(self, session: Path) -> str:
        """Look up the ports of this session's node. Return what is wrong if that fails, else an empty text."""
        try:
            found = self._get(f"{self._dashboard}/nodes?view=summary")
            nodes = [node["raylet"] for node in found["data"]["summary"]]
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            return f"its dashboard does not list its nodes: {getattr(error, 'reason', error)}"
        alive = [node for node in nodes if node.get("state", "ALIVE") == "ALIVE"]
        if not alive:
            return "its raylet has not joined yet"
        self._session, self._node = session, alive[0]
        return ""

    def _get(self, url: str) -> Any:
        with _DIRECT.open(Request(url, headers=self._headers), timeout=self._timeout_seconds) as response:
            return json.load(response)

    def _answers(self, url: str) -> bool:
        """Return whether a request gets an answer, with any status."""
        try:
            with _DIRECT.open(Request(url, headers=self._headers), timeout=self._timeout_seconds):
                return True
        except HTTPError:
            return True
        except (OSError, HTTPException):
            return False
