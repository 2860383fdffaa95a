"""Which calls of MLflow's REST API this server passes on, and the role that each needs.

Reading needs a viewer, changing a submitter, deleting an admin: MLflow knows no owners. A call that is not in the
tables is refused: others would have the server run something (jobs, assistants, evaluations), call another host
(webhooks, gateways) or read a place that a caller names (traces, sources of models).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import unquote

from dialin.errors import ForbiddenError, NotFoundError, UsageError
from dialin.lifecycle import Role
from dialin.store.tokens import Identity


class Body(StrEnum):
    """What the body of a call holds: nothing that matters, a query, a change as JSON, or a file."""

    NONE = "none"
    QUERY = "query"
    CHANGE = "change"
    FILE = "file"


@dataclass(frozen=True)
class Call:
    """A call that is passed on."""

    role: Role
    """The least role that may make it."""
    body: Body
    """What its body holds."""


_API = r"/(?:ajax-)?api/[23]\.0/mlflow"
_ID = r"[\w-]+"
_READS = (
    "GET /|/version|/static-files/.+",
    "GET (?:/model-versions)?/get-artifact",
    rf"GET {_API}/(?:experiments|runs|metrics|artifacts|registered-models|model-versions)/[\w-]+",
    rf"GET {_API}/logged-models/{_ID}(?:/artifacts/(?:files|directories))?",
    rf"GET {_API}/(?:server-info|ui-telemetry|traces|unified-traces|datasets/search|scorers/list)",
    rf"GET {_API}-artifacts/artifacts(?:/.+)?",
)
_SEARCHES = (  # MLflow wants a body for them; no mutation of its GraphQL changes anything
    rf"POST {_API}/(?:runs|experiments|logged-models|traces|datasets)/search",
    rf"POST {_API}/(?:experiments/search-datasets|traces/metrics|registered-models/get-latest-versions)",
    "POST /graphql",
)
_CHANGES = (
    rf"POST {_API}/experiments/(?:create|update|restore|set-experiment-tag|delete-experiment-tag)",
    rf"POST {_API}/runs/(?:create|update|restore|log-metric|log-batch|log-parameter|log-inputs|log-model)",
    rf"POST {_API}/runs/(?:outputs|set-tag|delete-tag)",
    rf"POST {_API}/registered-models/(?:create|rename|set-tag|alias)",
    rf"POST {_API}/model-versions/(?:create|set-tag|transition-stage)",
    rf"PATCH {_API}/(?:registered-models|model-versions)/update",
    rf"DELETE {_API}/(?:registered-models|model-versions)/delete-tag",
    rf"DELETE {_API}/registered-models/alias",
    rf"POST {_API}/logged-models(?:/{_ID}/params)?",
    rf"PATCH {_API}/logged-models/{_ID}(?:/tags)?",
    rf"DELETE {_API}/logged-models/{_ID}/tags/[^/]+",
)
_FILES = (
    rf"POST {_API}/upload-artifact",
    rf"PUT {_API}-artifacts/artifacts/.+",
)
_DELETIONS = (
    rf"POST {_API}/(?:experiments|runs)/delete",
    rf"DELETE {_API}/(?:registered-models|model-versions)/delete",
    rf"DELETE {_API}/logged-models/{_ID}",
    rf"DELETE {_API}-artifacts/artifacts/.+",
)
_CALLS = [
    (re.compile(line.partition(" ")[2]), line.partition(" ")[0], call)
    for lines, call in (
        (_READS, Call(Role.VIEWER, Body.NONE)),
        (_SEARCHES, Call(Role.VIEWER, Body.QUERY)),
        (_CHANGES, Call(Role.SUBMITTER, Body.CHANGE)),
        (_FILES, Call(Role.SUBMITTER, Body.FILE)),
        (_DELETIONS, Call(Role.ADMIN, Body.CHANGE)),
    )
    for line in lines
]
# The fields of a change that say where MLflow reads or writes files.
_LOCATION_FIELDS = ("artifact_location", "artifact_uri", "source", "storage_location")


def find_call(method: str, path: str) -> Call:
    """The call that a request makes. Raises ForbiddenError for one that is not passed on, and NotFoundError for a path
    that MLflow might read as another one."""
    parts = unquote(path).split("/")
    if not path.isprintable() or "\\" in path or any(part in (".", "..") for part in parts) or "//" in path:
        raise NotFoundError(f"no path {path[:80]!r} in MLflow")
    for pattern, wanted, call in _CALLS:
        if wanted == ("GET" if method == "HEAD" else method) and pattern.fullmatch(path):
            return call
    passes = "MLflow's experiments, runs, metrics, artifacts and models"
    raise ForbiddenError(f"{method} {path[:80]} is not passed on to MLflow; this server passes on calls about {passes}")


def check_role(who: Identity, call: Call, method: str, path: str) -> None:
    """Raise ForbiddenError for a caller whose role is too low for a call."""
    if not who.may(call.role):
        raise ForbiddenError(
            f"{who.name} is a {who.role.value} and may not {method} {path[:80]} in MLflow; "
            f"{'an' if call.role is Role.ADMIN else 'a'} {call.role.value} may"
        )


def checked_change(content: bytes) -> bytes:
    """The JSON of a change, encoded anew so that MLflow reads exactly what was checked.

    Raises UsageError for a body that is no JSON object, and ForbiddenError for one that says where files lie: MLflow
    would read or write there with the server's rights.
    """
    try:
        change: Any = json.loads(content) if content.strip() else {}
    except (ValueError, RecursionError):
        change = None
    if not isinstance(change, dict):
        raise UsageError("the body must be a JSON object")
    for name in change:
        if re.sub("([A-Z])", r"_\1", name).lower() in _LOCATION_FIELDS and change[name] not in ("", None):
            raise ForbiddenError(
                f"{name}={str(change[name])[:200]!r}: only the server decides where files lie; leave {name} out"
            )
    return json.dumps(change).encode()
