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
        "unreadable": "",
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
        "links": {
            "self": f"/api/v1/studies/{study_id}",
            **{name: f"/api/v1/studies/{study_id}/{name}" for name in ("trials", "best", "curve", "events", "logs")},
            "page": f"/studies/{study_id}",
            "mlflow": None,
        },
        **changes,
    }  # fmt: skip


def study_in_full(study_id="mine-abc", **changes):
    """A study in full as the server's JSON has it."""
    epochs = {"trained": 6, "repeated": 0, "range_tests": 0.0, "full": 18, "saved": 2, "saved_share": 0.25}
    return {
        **study(study_id),
        "spec": SPACE,
        "test": None,
        "test_trial": None,
        "test_looks": [],
        "epochs": epochs,
        "seconds_left": None,
        "claim": None,
        "history": [],
        "calibration": [],
        "doctor": [],
        **changes,
    }


def trial(number=0, **changes):
    """A trial as the server's JSON has it."""
    return {
        "trial": number,
        "state": "complete",
        "reason": "",
        "decision": None,
        "continues": None,
        "value": 0.5,
        "best_epoch": 1,
        "loss": None,
        "epochs": 1,
        "values": {"1": 0.5},
        "params": {"lr": 0.1},
        "seed": 1,
        "started_at": 1.8e9,
        "ended_at": 1.8e9,
        "findings": [],
        "link": None,
        **changes,
    }


def best(**changes):
    """A best configuration as the server's JSON has it."""
    return {
        "trial": 3,
        "value": 0.9,
        "epoch": 2,
        "params": {"lr": 0.1},
        "metric": "val_accuracy",
        "mode": "max",
        "test": None,
        "test_trial": None,
        "test_looks": [],
        "state": "complete",
        **changes,
    }


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
