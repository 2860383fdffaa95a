"""A service to try the page on: studies that tests move by hand, behind the page and the part of the API it asks."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

import search_spaces
from service.errors import ConflictError, ForbiddenError, NotFoundError, SpecError, UnauthorizedError
from service.planning import ClusterShape, plan_study, rungs_for
from service.spec import active_params, parse_spec
from service.spec.domains import Choice, Fixed, FloatRange, holds
from service.web.backend import Caller
from service.web.pages import COOKIE, router

STARTED = 1_790_000_000.0
TOKENS = {
    "t-viewer": Caller("vera", "viewer"),
    "t-submitter": Caller("sam", "submitter"),
    "t-admin": Caller("ada", "admin"),
}
ENDED = ("complete", "failed", "interrupted")


class FakeBackend:
    """`tokens`: whether one has to sign in; without, everything is open to `local`."""

    def __init__(self, tokens: bool = False) -> None:
        self.tokens = tokens
        self.rows: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.logs: dict[str, list[str]] = {}
        self.keys: dict[str, str] = {}
        self.sessions: dict[str, Caller] = {}
        self.acts: list[tuple[str, str, Mapping[str, str]]] = []
        self._listeners: list[tuple[str, asyncio.AbstractEventLoop, asyncio.Queue]] = []

    # What the page asks.

    def caller(self, request: Request) -> Caller:
        if not self.tokens:
            return Caller("local", "admin")
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        found = TOKENS.get(bearer) or self.sessions.get(request.cookies.get(COOKIE, ""))
        if found is None:
            raise UnauthorizedError("not signed in")
        return found

    def sign_in(self, request: Request, token: str) -> str:
        if token not in TOKENS:
            raise UnauthorizedError("nobody has this token")
        self.sessions[f"session-of-{token}"] = TOKENS[token]
        return f"session-of-{token}"

    def sign_out(self, request: Request) -> None:
        self.sessions.pop(request.cookies.get(COOKIE, ""), None)

    def studies(self, states: Sequence[str], archived: bool, cursor: str | None, limit: int) -> dict[str, Any]:
        rows = [self._study(row["id"]) for row in reversed(self.rows.values()) if row["archived"] == archived]
        rows = [row for row in rows if not states or row["state"] in states]
        start = int(cursor or 0)
        return {
            "studies": rows[start : start + limit],
            "next": str(start + limit) if len(rows) > start + limit else None,
        }

    def study(self, study_id: str) -> dict[str, Any]:
        if study_id not in self.rows:
            raise NotFoundError(f"no study {study_id!r}")
        return self._study(study_id)

    def trials(self, study_id: str) -> list[dict[str, Any]]:
        return list(self.kept[study_id])

    def curve(self, study_id: str) -> dict[str, Any]:
        row, steps, best, total = self.rows[study_id], [], None, 0
        for trial in self.kept[study_id]:
            for epoch, value in trial["values"].items():
                total += 1
                if value is not None and (best is None or (value > best if row["mode"] == "max" else value < best)):
                    best = value
                    steps.append(self._point(trial, int(epoch), total, value, best))
        if steps:
            steps.append({**steps[-1], "epochs_total": total})
        return {"metric": row["metric"], "mode": row["mode"], "points": steps}

    def _point(self, trial, epoch: int, total: int, value: float, best: float) -> dict[str, Any]:
        return {
            "trial": trial["trial"], "epoch": epoch, "epochs_total": total, "trials_total": trial["trial"] + 1,
            "seconds": total * 0.7, "value": value, "best": best,
        }  # fmt: skip

    def best_config(self, study_id: str) -> str | None:
        best = self._best(study_id)
        if best is None:
            return None
        params = "\n".join(f"  {name}: {value}" for name, value in best["params"].items())
        return f"# trial {best['trial']} of {study_id}\nname: {self.rows[study_id]['name']}\nspace:\n{params}\n"

    def log(self, study_id: str, tail: int) -> str:
        return "\n".join(self.logs[study_id][-tail:])

    def plan(self, caller: Caller, text: str) -> dict[str, Any]:
        plan = plan_study(parse_spec(text), ClusterShape(2))
        return {
            "name": plan.spec.name,
            "knobs": {name: {} for name in plan.spec.space},
            "trials": plan.spec.budget.trials,
            "epochs": plan.spec.budget.epochs,
            "rungs": list(plan.rungs),
            "concurrency": plan.concurrency,
            "most_epochs": plan.most_epochs,
            "likely_epochs": plan.likely_epochs,
            "warnings": [{"path": "space.lr", "message": "a warning"}] if "lr: {min: 0.1" in text else [],
        }

    def submit(self, caller: Caller, text: str, key: str, priority: int) -> str:
        if not caller.may_submit():
            raise ForbiddenError(f"{caller.name} is a {caller.role}")
        if key not in self.keys:
            self.keys[key] = self.add(text, owner=caller.name, priority=priority)
        return self.keys[key]

    def act(self, caller: Caller, study_id: str, action: str, change: Mapping[str, str]) -> None:
        row = self.rows[study_id]
        if not caller.may_change(row["owner"]):
            raise ForbiddenError(f"{caller.name} may not change {study_id}")
        self.acts.append((study_id, action, change))
        if action == "stop":
            self.become(study_id, "interrupted", "stopped by a person")
        elif action == "resume":
            self.become(study_id, "queued")
        elif action == "extend":
            if not change:
                raise ConflictError("nothing to add: name trials or epochs")
            row["trials_budget"] += int(change.get("trials", "0").lstrip("+"))
            self.become(study_id, "queued")
        else:
            row["archived"] = True

    # What tests do to it.

    def add(self, text: str, *, owner: str = "sam", name: str | None = None, priority: int = 0) -> str:
        """A queued study."""
        spec = parse_spec(text)
        study_id = f"{name or spec.name}-{len(self.rows):06d}"
        self.rows[study_id] = {
            "id": study_id, "name": name or spec.name, "state": "queued", "reason": "", "owner": owner,
            "priority": priority, "metric": spec.objective.metric, "mode": spec.objective.mode, "seconds": 0.0,
            "created_at": time.time(), "started_at": None, "ended_at": None, "attempts": 1, "concurrency": 2,
            "mirror_lag": 0, "archived": False, "spec": text, "test": None, "claim": None, "calibration": [],
            "doctor": [], "trials_budget": spec.budget.trials, "full": spec.budget.trials * spec.budget.epochs,
            "mlflow": None,
        }  # fmt: skip
        self.kept[study_id], self.logs[study_id] = [], []
        return study_id

    def start_trial(self, study_id: str, params: Mapping[str, Any]) -> int:
        number = len(self.kept[study_id])
        self.kept[study_id].append(make_trial(number, params=params, state="running"))
        self._tell(study_id, "trial_started", {"trial": number})
        return number

    def report(self, study_id: str, number: int, value: float) -> None:
        trial = self.kept[study_id][number]
        values = {**trial["values"], str(trial["epochs"] + 1): value if math.isfinite(value) else None}
        self.kept[study_id][number] = made(self.rows[study_id]["mode"], {**trial, "values": values})
        self.rows[study_id]["seconds"] += 0.7
        self._tell(study_id, "epoch", {"trial": number})

    def end_trial(self, study_id: str, number: int, state: str, reason: str) -> None:
        self.kept[study_id][number] |= {"state": state, "reason": reason}
        self._tell(study_id, "trial_ended", {"trial": number})

    def say(self, study_id: str, line: str) -> None:
        self.logs[study_id].append(line)
        self._tell(study_id, "note", {"text": line})

    def become(self, study_id: str, state: str, reason: str = "") -> None:
        self.rows[study_id] |= {"state": state, "reason": reason}
        self._tell(study_id, "study", self._study(study_id))

    def _study(self, study_id: str) -> dict[str, Any]:
        row, trials = dict(self.rows[study_id]), self.kept[study_id]
        counts = Counter(trial["state"] for trial in trials)
        best = self._best(study_id)
        states = ("complete", "stopped", "diverged", "failed", "running", "waiting")
        own = f"/api/v1/studies/{study_id}"
        links = {name: f"{own}/{name}" for name in ("trials", "best", "events", "logs")}
        return row | {
            "best": best["value"] if best else None,
            "trials": {state: counts[state] for state in states} | {"budget": row.pop("trials_budget")},
            "epochs": {"trained": sum(trial["epochs"] for trial in trials), "full": row.pop("full")},
            "links": {"self": own, **links, "page": f"/studies/{study_id}", "mlflow": row.pop("mlflow")},
        }

    def _best(self, study_id: str) -> dict[str, Any] | None:
        sign = 1 if self.rows[study_id]["mode"] == "max" else -1
        with_values = [trial for trial in self.kept[study_id] if trial["value"] is not None]
        return max(with_values, key=lambda t: (t["state"] == "complete", sign * t["value"]), default=None)

    def _tell(self, study_id: str, kind: str, data: Mapping[str, Any]) -> None:
        for listened, loop, queue in list(self._listeners):
            if listened == study_id:
                loop.call_soon_threadsafe(queue.put_nowait, (kind, dict(data)))

    async def events(self, study_id: str) -> AsyncIterator[str]:
        queue: asyncio.Queue = asyncio.Queue()
        entry = (study_id, asyncio.get_running_loop(), queue)
        self._listeners.append(entry)
        try:
            yield f"event: study\ndata: {json.dumps(self._study(study_id))}\n\n"
            while self.rows[study_id]["state"] not in ENDED:
                kind, data = await queue.get()
                yield f"event: {kind}\ndata: {json.dumps(data)}\n\n"
        finally:
            self._listeners.remove(entry)


def application(backend: FakeBackend) -> FastAPI:
    """The page over the fake, with the three things that it asks the API itself."""
    app = FastAPI()

    @app.post("/api/v1/plan")
    async def plan(request: Request) -> Response:
        text = (await request.body()).decode()
        try:
            return JSONResponse(backend.plan(backend.caller(request), text))
        except SpecError as error:
            errors = [{"path": p.path, "line": p.line, "message": p.message} for p in error.problems]
            problem = {"type": "about:blank", "title": "Unprocessable", "status": 422, "code": error.code}
            return JSONResponse(problem | {"errors": errors, "detail": str(error)}, 422)

    @app.get("/api/v1/session")
    def session(request: Request) -> Response:
        try:
            caller = backend.caller(request)
        except UnauthorizedError as error:
            return JSONResponse({"status": 401, "detail": str(error)}, 401)
        return JSONResponse({"name": caller.name, "role": caller.role})

    @app.get("/api/v1/studies/{study_id}/events")
    async def events(study_id: str) -> Response:
        return StreamingResponse(backend.events(study_id), media_type="text/event-stream")

    app.include_router(router(backend))
    return app


def make_trial(number: int, **given: Any) -> dict[str, Any]:
    """A trial as the API says it; `mode` says which of its values is the best."""
    mode = given.pop("mode", "max")
    trial = {
        "trial": number, "state": "complete", "reason": "", "continues": None, "value": None, "epochs": 0,
        "values": {}, "params": {}, "seed": number, "findings": [], "started_at": STARTED, "ended_at": None, "link": None,
    }  # fmt: skip
    return made(mode, trial | given)


def made(mode: str, trial: dict[str, Any]) -> dict[str, Any]:
    finite = [value for value in trial["values"].values() if value is not None]
    best = (max if mode == "max" else min)(finite, default=None)
    return trial | {"value": best, "epochs": len(trial["values"])}


def grown(
    backend: FakeBackend, space: str = "digits", *, trials: int = 30, seed: int = 1, name: str | None = None
) -> str:
    """A running study with a past: curves that look like training, stopped at its rungs."""
    study_id = backend.add(search_spaces.read(space), name=name)
    spec, draw = parse_spec(search_spaces.read(space)), random.Random(seed)
    backend.become(study_id, "running")
    rungs, seen = rungs_for(spec), {rung: [] for rung in rungs_for(spec)}
    for _ in range(trials):
        params = _draw(spec, draw)
        number = backend.start_trial(study_id, params)
        off = abs(math.log10(params["lr"]) + 2.2)
        top, slow = 0.985 - 0.16 * off - draw.random() * 0.03, 0.6 + off * 1.5 + draw.random()
        if params["lr"] > 0.12 and draw.random() < 0.6:
            backend.report(study_id, number, 0.1)
            backend.end_trial(study_id, number, "diverged", "train_loss was nan after epoch 2")
            continue
        for epoch in range(1, spec.budget.epochs + 1):
            value = round(top * (1 - math.exp(-epoch / slow)) + draw.gauss(0, 0.006), 4)
            backend.report(study_id, number, value)
            if epoch in seen:
                seen[epoch].append(value)
                place = sorted(seen[epoch], reverse=True).index(value) + 1
                if place > max(1, math.ceil(len(seen[epoch]) / 2.2)):
                    why = f"{spec.objective.metric} {value} is place {place} of {len(seen[epoch])} at rung {epoch}, where {len(rungs)} go on"
                    backend.end_trial(study_id, number, "stopped", why)
                    break
        else:
            backend.end_trial(study_id, number, "complete", f"trained all {spec.budget.epochs} epochs")
        backend.say(study_id, f"12:00:{number % 60:02d} trial {number} {backend.kept[study_id][number]['state']}")
    return study_id


def _draw(spec, draw: random.Random) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, domain in spec.space.items():
        if isinstance(domain, Fixed):
            chosen[name] = domain.value
        elif isinstance(domain, Choice):
            chosen[name] = draw.choice(domain.values)
        else:
            low, high = (math.log(domain.low), math.log(domain.high)) if domain.log else (domain.low, domain.high)
            value = draw.uniform(low, high)
            value = math.exp(value) if domain.log else value
            chosen[name] = value if isinstance(domain, FloatRange) else round(value)
    named = {name for name in spec.space if holds(spec.space[name].when, chosen)}
    return {name: value for name, value in active_params(spec, chosen).items() if name in named}
