"""Whatever fails, and whenever the recorder is killed: MLflow ends up with what the spool says, once.

Random studies with restarts and repeated epochs, random failures at calls and between them, against a model of the
outcome that reads the spool from its beginning and knows nothing of batches, positions or retries.
"""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dialin.events.log import read_events
from dialin.events.types import Note, TrialDecided, event_data
from dialin.search.decision import Decision
from dialin.tracking import replicate
from dialin.tracking.replicate import Replicator
from tests import others
from tests.tracking.fake_mlflow import FakeMlflow, Killed
from tests.tracking.studies import Mirrored

pytestmark = others.MLFLOW
STATUS = {
    "complete": "FINISHED",
    "stopped": "KILLED",
    "diverged": "KILLED",
    "interrupted": "KILLED",
    "failed": "FAILED",
}
HOW = ["before", "after", "late", "kill", "kill after", "kill late"]

# One driver's life: the trials it runs (number, epochs reported, how it ends; None: the driver died under it), and how
# the study ended (None: the driver was killed).
trials = st.tuples(
    st.integers(0, 5),
    st.lists(st.integers(1, 6), max_size=6),
    st.sampled_from([*STATUS, "waiting", None]),
)
lives = st.tuples(st.lists(trials, max_size=5), st.sampled_from(["complete", "failed", "interrupted", None]))
failures = st.dictionaries(st.integers(1, 120), st.sampled_from(HOW), max_size=40)


def live(folder, life):
    mirror = Mirrored(folder, "unused")
    mirror.study_started("s-1", "s", {"seed": 0}, {"spec": "x"})
    for number, epochs, end in life[0]:
        mirror.trial_started(number, {"lr": number / 7})
        for epoch in epochs:
            mirror.epoch(number, epoch, {"val_loss": math.nan if epoch == 5 else epoch / 3, "lr": 0.1})
            mirror.log.append(TrialDecided(number, epoch, Decision("continue", "between_rungs")))
        mirror.log.append(Note("a message"))
        if end is not None:
            mirror.trial_ended(number, end, f"because {end}")
    if life[1] is not None:
        mirror.study_ended(life[1], f"the study was {life[1]}", {"best": 1.0}, {"k": "v"}, [])
    mirror.log.close()


def expected(folder):
    """What MLflow must hold at the end: by trial (None: the study), the status, its reason, params and points."""
    runs, last = {}, {}
    for event in map(event_data, read_events(folder, 0, 10**6).events):
        if event["kind"] in ("decision", "note") or event.get("state") == "waiting":
            continue
        if event["kind"] == "study_started":
            end_dead_driver(runs)
        kind, trial = event["kind"], str(event["trial"]) if "trial" in event else None
        run = runs.setdefault(trial, {"status": "RUNNING", "reason": "", "params": {}, "points": set()})
        if kind in ("study_started", "trial_started"):
            run |= {"status": "RUNNING", "reason": ""}
            run["params"] = {name: str(value) for name, value in event["params"].items()}
        elif kind == "epoch" and event["epoch"] > last.get(trial, 0):
            last[trial] = event["epoch"]
            run |= {"status": "RUNNING", "reason": ""} if run["status"] != "RUNNING" else {}
            run["points"] |= {(n, repr(v), event["time"], event["epoch"]) for n, v in event["metrics"].items()}
        elif kind in ("trial_ended", "study_ended"):
            run |= {"status": STATUS[event["state"]], "reason": event["reason"] or event["state"]}
        if kind == "study_ended":
            run["points"] |= {(n, repr(v), event["time"], 0) for n, v in event["metrics"].items()}
            close_open(runs, event["reason"])
    end_dead_driver(runs)
    return runs


def end_dead_driver(runs):
    """Each driver's recorder has come to its end before the next one starts, and has ended what that one had left."""
    if runs and runs[None]["status"] == "RUNNING":
        runs[None] |= {"status": "KILLED", "reason": "the driver is gone"}
        close_open(runs, "the driver is gone")


def close_open(runs, reason):
    for trial, run in runs.items():
        if trial is not None and run["status"] == "RUNNING":
            run |= {"status": "KILLED", "reason": reason}


def actual(mlflow):
    active = [run for run in mlflow.runs.values() if run.stage == "active"]
    assert max(Counter(run.tags.get("dialin.trial") for run in active).values()) == 1
    parent = next(run for run in active if "dialin.trial" not in run.tags)
    assert {run.tags.get("mlflow.parentRunId", parent.id) for run in active} == {parent.id}
    return {
        run.tags.get("dialin.trial"): {
            "status": run.status,
            "reason": run.tags["dialin.reason"],
            "params": run.params,
            "points": run.points,
        }
        for run in active
    }


def drain(folder, mlflow, limit, dead):
    """Recorders over the spool, a new one whenever one is killed, until one has written all and, if the driver is
    `dead`, ended what it left."""
    recorder = Replicator(folder, mlflow, None)
    for _ in range(500):
        try:
            if recorder.step(limit) == 0:
                if dead:
                    recorder.abandon()
                return
        except OSError:
            continue
        except Killed:
            recorder = Replicator(folder, mlflow, None)
    pytest.fail("it does not come to an end")


@settings(max_examples=300, deadline=None)
@example(  # two runs for the study, and the one with a trial below it must stay
    lives=[([(0, [], "complete")], "complete")], failures={5: "late", 6: "before", 9: "kill after"}, limit=9
)
@given(lives=st.lists(lives, min_size=1, max_size=3), failures=failures, limit=st.integers(1, 30))
def test_random_studies_under_random_failures(lives, failures, limit):
    go_through(lives, failures, limit)


def go_through(lives, failures, limit):
    original = replicate.write_cursor
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder, mlflow = Path(name), FakeMlflow(failures)
        patch.setattr(replicate, "write_cursor", lambda *args: mlflow.at("write_cursor", lambda: original(*args)))
        for life in lives:
            live(folder, life)
            drain(folder, mlflow, limit, dead=life[1] is None)
        assert actual(mlflow) == expected(folder)


@pytest.mark.parametrize("how", HOW)
def test_every_single_call_may_fail(tmp_path, how):
    """The same for one study, at every call in turn: what a random test might miss."""
    life = ([(0, [1, 2, 3], "complete"), (1, [1], "stopped"), (2, [1, 5], None)], "interrupted")
    live(tmp_path / "spool", life)
    want = expected(tmp_path / "spool")
    for at in itertools.count(1):
        mlflow = FakeMlflow({at: how})
        folder = tmp_path / str(at)
        folder.mkdir()
        (folder / "events.jsonl").write_bytes((tmp_path / "spool" / "events.jsonl").read_bytes())
        drain(folder, mlflow, 4, dead=False)
        assert actual(mlflow) == want, at
        assert len(mlflow.runs) == 4 or "late" in how  # not even for a moment was there a double
        if at > mlflow.calls:
            break
    assert at > 10


def test_a_long_way_over_a_line_that_fails_every_third_call(tmp_path):
    """One step may hold many calls: it goes on where it failed, or it would never come to its end."""
    live(tmp_path, ([(number, [1, 2], "complete") for number in range(60)], "complete"))
    mlflow = FakeMlflow(dict.fromkeys(range(3, 2000, 3), "before"), page=1000)
    drain(tmp_path, mlflow, 2000, dead=False)
    assert actual(mlflow) == expected(tmp_path)
    assert mlflow.calls < 61 * 6 + 10  # create, log, end; half as much again, and a look after each create that failed


def test_a_run_is_written_in_few_calls(tmp_path):
    live(tmp_path, ([(number, [1, 2, 3, 4, 6], "complete") for number in range(20)], "complete"))
    mlflow = FakeMlflow()
    drain(tmp_path, mlflow, 2000, dead=False)
    assert Counter(mlflow.log)["create_run"] == Counter(mlflow.log)["log_batch"] == 21
    assert mlflow.calls <= 21 * 3 + 4
