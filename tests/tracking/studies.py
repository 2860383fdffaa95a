"""Studies to mirror, and what MLflow must hold of them."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from dialin.events.log import EventLog
from dialin.events.types import EpochReported, StudyEnded, StudyStarted, TrialEnded, TrialStarted
from dialin.paths import sqlite_url
from dialin.tracking.mirror import Mirror
from dialin.tracking.recorder import Turn

ENDS = {"complete": "FINISHED", "stopped": "KILLED", "diverged": "KILLED", "failed": "FAILED", "interrupted": "KILLED"}


def client_of(path):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=sqlite_url(path))


class Mirrored:
    """A study's event log with its mirror, as a driver has them."""

    def __init__(self, folder, uri="unused", artifacts=None):
        self.log = EventLog(folder)
        self.mirror = Mirror(folder, uri, artifacts, self.log.restore)

    def __getattr__(self, name):
        return getattr(self.mirror, name)

    def study_started(self, study, name, params, tags):
        self.log.append(StudyStarted(study, name, params, tags))

    def trial_started(self, trial, params):
        self.log.append(TrialStarted(trial, params))

    def epoch(self, trial, epoch, metrics):
        self.log.append(EpochReported(trial, epoch, metrics))

    def trial_ended(self, trial, state, reason, tags=None):
        self.log.append(TrialEnded(trial, state, reason, tags or {}))

    def study_ended(self, state, reason, metrics, tags, artifacts):
        self.log.append(StudyEnded(state, reason, metrics, tags, tuple(artifacts)))

    def abandon(self):
        self.log.close()
        self.mirror.abandon()

    def close(self, timeout_seconds):
        is_written = self.mirror.close(timeout_seconds)
        self.log.close()
        return is_written


def fill(folder, trials=5, epochs=3, end=True):
    """A study's worth of events; the way each trial ended is that of ENDS, in turn."""
    mirror = Mirrored(folder)
    mirror.study_started("digits-abc", "digits", {"sampler": "tpe", "seed": 0}, {"spec": "name: digits"})
    for trial in range(trials):
        mirror.trial_started(trial, {"lr": 0.1, "nesterov": True, "optimizer": "sgd"})
        for epoch in range(1, epochs + 1):
            mirror.epoch(trial, epoch, {"val_accuracy": trial + epoch / 10, "lr": 0.1})
        mirror.trial_ended(trial, list(ENDS)[trial % len(ENDS)], f"reason {trial}")
    if end:
        mirror.study_ended("complete", "", {"best_val_accuracy": 4.3}, {"dialin.best_trial": "4"}, [])
    return mirror


def contents(client, trials, epochs):
    """Assert that MLflow holds exactly the study of `fill`."""
    experiment = client.get_experiment_by_name("digits")
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    by_trial = Counter(run.data.tags.get("dialin.trial", "parent") for run in runs)
    assert by_trial == Counter(["parent", *map(str, range(trials))])
    parent = next(run for run in runs if "dialin.trial" not in run.data.tags)
    for run_ in runs:
        trial = run_.data.tags.get("dialin.trial")
        if trial is None:
            continue
        state = list(ENDS)[int(trial) % len(ENDS)]
        assert run_.info.status == ENDS[state]
        assert run_.info.end_time is not None
        assert run_.info.run_name == f"trial-{int(trial):04d}"
        assert run_.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (run_.data.tags["dialin.state"], run_.data.tags["dialin.reason"]) == (state, f"reason {trial}")
        assert run_.data.params == {"lr": "0.1", "nesterov": "true", "optimizer": "sgd"}
        history = client.get_metric_history(run_.info.run_id, "val_accuracy")
        expected = [(epoch, int(trial) + epoch / 10) for epoch in range(1, epochs + 1)]
        assert sorted((point.step, point.value) for point in history) == expected
    return parent


def drain(recorder):
    while recorder.step(limit=4):
        pass


def kill_recorder(mirror):
    """Kill it, as somebody might; its id."""
    process = mirror._recorder._process
    process.kill()
    process.wait()
    return process.pid


def turn_on(folder, finishing):
    """A recorder's turn with a spool."""
    return Turn(folder, finishing).__enter__()


def alive(pid):
    try:
        with Path(f"/proc/{pid}/stat").open() as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, timeout_seconds=60):
    """Return once the condition holds; fails after the time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
