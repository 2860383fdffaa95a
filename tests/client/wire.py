"""What a server sends, for tests without one."""

from __future__ import annotations

import json

import httpx

SPACE = """name: mine
objective: {dataset: synthetic}
space:
  lr: {min: 1e-4, max: 1, log: true}
budget: {trials: 6, epochs: 3}
"""

TRAIN = """def train(config, trial):
    trial.report(1, config["x"])
"""


def study(study_id="mine-abc", **changes):
    """A study as the server's JSON has it."""
    return {
        "id": study_id,
        "name": "mine",
        "state": "running",
        "reason": "",
        "owner": "local",
        "priority": 0,
        "metric": "val_accuracy",
        "mode": "max",
        "best": None,
        "trials": {
            "complete": 1, "stopped": 1, "diverged": 0, "failed": 0, "running": 2, "waiting": 0, "budget": 6,
        },
        "seconds": 12.0,
        "created_at": 1.8e9,
        "started_at": 1.8e9,
        "ended_at": None,
        "attempts": 1,
        "concurrency": 2,
        "mirror_lag": 0,
        "mirror_note": "",
        "archived": False,
        "links": {"self": f"/api/v1/studies/{study_id}", "page": None, "mlflow": None},
        **changes,
    }  # fmt: skip


def problem(status, code, detail, *, errors=None, retry_after=None):
    """An error as a problem document."""
    body = {"type": "about:blank", "title": "no", "status": status, "code": code, "detail": detail}
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    return httpx.Response(status, headers=headers, text=json.dumps(body | ({"errors": errors} if errors else {})))


def study_stream(*events):
    """An event stream of (id, kind, data) that then closes."""
    text = "".join(
        f"id: {number}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
        for number, kind, data in events
    )
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)
