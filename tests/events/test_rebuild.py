"""A spool that was lost or damaged is made again from the study's storage, and nothing in MLflow doubles."""

from __future__ import annotations

import pytest

from dialin.events.log import FILE
from dialin.events.rebuild import append, rebuild, survey
from dialin.events.types import EpochReported, StudyEnded, StudyStarted
from dialin.lifecycle import TrialState
from dialin.search.decision import Decision
from dialin.search.records import TrialRecord
from dialin.tracking.cursor import read_cursor
from dialin.tracking.replicate import HeadlessError, Replicator
from tests import others
from tests.tracking.fake_mlflow import FakeMlflow
from tests.tracking.studies import ENDS, fill

pytestmark = others.MLFLOW
STARTED = StudyStarted("digits-abc", "digits", {"sampler": "tpe", "seed": 0}, {"spec": "name: digits"}, time=5000)
RECORDS = [
    TrialRecord(
        number=trial,
        state=TrialState(list(ENDS)[trial]),
        params={"lr": 0.1, "nesterov": True, "optimizer": "sgd"},
        seed=0,
        values={epoch: trial + epoch / 10 for epoch in (1, 2, 3)},
        decision=Decision.of_state(TrialState(list(ENDS)[trial]), f"reason {trial}"),
        metrics={"val_accuracy": trial + 0.3, "lr": 0.1},
        started_at=10.0 + trial,
        ended_at=12.5 + trial,
    )
    for trial in range(4)
]
ENDED = StudyEnded("complete", "", {"best": 1.0}, time=20_000)


def write(folder, mlflow):
    recorder = Replicator(folder, mlflow, None)
    while recorder.step(limit=7):
        pass
    return recorder


def points_of(run, name="val_accuracy"):
    return sorted((step, float(value)) for key, value, _, step in run.points if key == name)


def check(mlflow):
    """All of it is there, once."""
    trials = {run.tags["dialin.trial"]: run for run in mlflow.runs.values() if "dialin.trial" in run.tags}
    assert len(mlflow.runs) == 5
    assert {run.status for run in mlflow.runs.values()} <= {"FINISHED", "KILLED", "FAILED"}
    for record in RECORDS:
        run = trials[str(record.number)]
        assert points_of(run) == sorted(record.values.items())
        assert run.status == ENDS[record.state.value]
        assert run.tags["dialin.reason"] == record.reason
        assert run.params == {"lr": "0.1", "nesterov": "true", "optimizer": "sgd"}


@pytest.mark.parametrize("written", [0, 7, 14, 100], ids=["nothing", "some", "more", "all"])
def test_a_spool_that_is_gone_is_made_again_and_nothing_doubles(tmp_path, written):
    mlflow = FakeMlflow()
    fill(tmp_path, trials=4)
    if written:
        Replicator(tmp_path, mlflow, None).step(limit=written)
    for file in tmp_path.iterdir():
        file.unlink()
    rebuild(tmp_path, STARTED, "val_accuracy", RECORDS)
    append(tmp_path, [ENDED])
    assert survey(tmp_path).whole
    assert survey(tmp_path).ended
    assert write(tmp_path, mlflow).done
    check(mlflow)


@pytest.mark.parametrize("damaged", range(0, 22, 3))
def test_what_a_damaged_line_said_comes_from_the_storage(tmp_path, damaged):
    mlflow = FakeMlflow()
    fill(tmp_path, trials=4)
    lines = (tmp_path / FILE).read_bytes().splitlines(keepends=True)
    lines[damaged] = b'{"kind": "epoch"}\n'
    (tmp_path / FILE).write_bytes(b"".join(lines))
    if damaged == 0:
        with pytest.raises(HeadlessError, match="first event"):
            write(tmp_path, mlflow)
        assert read_cursor(tmp_path).offset == 0
    else:
        assert write(tmp_path, mlflow).done is (damaged < 21)  # the last one said how the study ended
        assert read_cursor(tmp_path).damaged == 1
    assert not survey(tmp_path).whole
    rebuild(tmp_path, STARTED, "val_accuracy", RECORDS)
    append(tmp_path, [ENDED])
    assert survey(tmp_path).whole
    assert write(tmp_path, mlflow).done
    assert read_cursor(tmp_path).damaged == 0
    check(mlflow)
    (first,) = (run for run in mlflow.runs.values() if run.tags.get("dialin.trial") == "0")
    assert len(points_of(first, "lr")) >= 2  # the storage has the other metrics of the last epoch only


def test_a_study_that_goes_on_after_it_was_rebuilt(tmp_path):
    mlflow = FakeMlflow()
    running = TrialRecord(
        number=4, state=TrialState.RUNNING, params={"lr": 0.5}, seed=0, values={1: 0.5}, started_at=30.0
    )
    rebuild(tmp_path, STARTED, "val_accuracy", [*RECORDS, running])
    recorder = Replicator(tmp_path, mlflow, None)
    while recorder.step(limit=7):
        pass
    append(tmp_path, [STARTED, *(EpochReported(4, n, {"a": n}, time=40_000) for n in (1, 2))])
    while recorder.step(limit=7):
        pass
    (run,) = (run for run in mlflow.runs.values() if run.tags.get("dialin.trial") == "4")
    assert run.status == "RUNNING"
    assert points_of(run, "val_accuracy") == [(1, 0.5)]
    assert points_of(run, "a") == [(2, 2.0)]
