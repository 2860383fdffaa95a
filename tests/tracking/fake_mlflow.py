"""As much of MLflow as the recorder uses, in memory, with failures at chosen calls."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import SimpleNamespace


class Killed(BaseException):
    """The process was killed here."""


@dataclass
class FakeRun:
    id: str
    name: str
    started_at: int
    tags: dict = field(default_factory=dict)
    params: dict = field(default_factory=dict)
    points: set = field(default_factory=set)
    status: str = "RUNNING"
    ended_at: int | None = None
    stage: str = "active"

    def seen(self):
        info = SimpleNamespace(
            run_id=self.id,
            start_time=self.started_at,
            status=self.status,
            lifecycle_stage=self.stage,
            artifact_uri=f"file:///nowhere/{self.id}",
        )
        return SimpleNamespace(info=info, data=SimpleNamespace(tags=dict(self.tags), params=dict(self.params)))


class Page(list):
    token = None


class FakeMlflow:
    """Keeps points as the SQL store does: name, value, time and step make a point, and there is one of each.

    `failures` says what goes wrong at which call, counted from 1: `before` and `after` raise, without and with the
    effect; `kill` and `kill after` end the process; `late` and `kill late` do so too, and a run is created a few calls
    later: the server was slow.
    """

    def __init__(self, failures=None, page=3):
        self.page = page
        self.failures = dict(failures or {})
        self.calls = 0
        self.log = []
        self.experiments = {}
        self.runs = {}
        self._late = []

    def at(self, name, effect):
        self.calls += 1
        self.log.append(name)
        self._catch_up()
        how = self.failures.get(self.calls)
        if how == "before":
            raise ConnectionError(f"{name} was not sent")
        if how == "kill":
            raise Killed(name)
        if how in ("late", "kill late") and name == "create_run":
            self._late.append((self.calls + 3, effect))
            raise Killed(name) if how == "kill late" else TimeoutError("create_run took too long to answer")
        result = effect()
        if how in ("after", "late"):
            raise ConnectionError(f"the answer to {name} was lost")
        if how in ("kill after", "kill late"):
            raise Killed(name)
        return result

    def _catch_up(self):
        for due, effect in list(self._late):
            if due <= self.calls:
                self._late.remove((due, effect))
                effect()

    def get_experiment_by_name(self, name):
        return self.at("get_experiment_by_name", lambda: self.experiments.get(name))

    def create_experiment(self, name, artifact_location, tags):
        assert name not in self.experiments
        made = SimpleNamespace(experiment_id=str(len(self.experiments) + 1), lifecycle_stage="active")
        return self.at("create_experiment", lambda: self.experiments.setdefault(name, made).experiment_id)

    def search_runs(self, experiments, filter_string, run_view_type, max_results, page_token):
        def page():
            wanted = dict(re.findall(r"tags\.`([\w.]+)` = '([^']*)'", filter_string))
            found = [run.seen() for run in self.runs.values() if wanted.items() <= run.tags.items()]
            start = int(page_token or 0)
            answer = Page(found[start : start + self.page])
            answer.token = str(start + self.page) if len(found) > start + self.page else None
            return answer

        return self.at("search_runs", page)

    def create_run(self, experiment, start_time, tags, run_name):
        def make():
            run = FakeRun(f"run-{len(self.runs)}", run_name, start_time, dict(tags))
            self.runs[run.id] = run
            return run.seen()

        return self.at("create_run", make)

    def log_batch(self, run_id, metrics, params, tags):
        assert len(metrics) + len(params) + len(tags) <= 1000

        def write():
            run = self.runs[run_id]
            run.points |= {(m.key, repr(m.value), m.timestamp, m.step) for m in metrics}
            for param in params:
                assert run.params.setdefault(param.key, param.value) == param.value
            run.tags.update({tag.key: tag.value for tag in tags})

        return self.at("log_batch", write)

    def get_run(self, run_id):
        return self.at("get_run", lambda: self.runs[run_id].seen())

    def get_metric_history(self, run_id, name):
        def history():
            return [SimpleNamespace(step=step) for key, _, _, step in self.runs[run_id].points if key == name]

        return self.at("get_metric_history", history)

    def update_run(self, run_id, status):
        return self.at("update_run", lambda: setattr(self.runs[run_id], "status", status))

    def set_terminated(self, run_id, status, end_time):
        def end():
            run = self.runs[run_id]
            run.status, run.ended_at = status, end_time

        return self.at("set_terminated", end)

    def delete_run(self, run_id):
        return self.at("delete_run", lambda: setattr(self.runs[run_id], "stage", "deleted"))
