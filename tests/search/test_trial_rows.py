"""A reader that reads on has what a fresh read of everything has, whatever happened in between."""

from __future__ import annotations

import math

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.study import StudyDirection
from optuna.trial import TrialState as OptunaState
from optuna.trial import create_trial

from dialin.lifecycle import TrialState
from dialin.paths import sqlite_url
from dialin.search import optuna_tables
from dialin.search.decision import Decision
from dialin.search.storage import open_storage
from dialin.search.study import Study
from dialin.search.trial_rows import TrialReader, read_study, read_trials
from dialin.specification.findings import Finding
from tests.factories import make_plan


class Driven:
    """A study and its driver, who can be replaced by another one."""

    def __init__(self, storage) -> None:
        self.storage, self.trials, self.epochs = storage, 4, 3
        self.study, self.running = None, {}
        self.take_over()

    @property
    def optuna_id(self):
        return self.storage.get_study_id_from_name("s")

    def take_over(self) -> None:
        asha = "early_stopping.asha.grace_epochs=1"
        plan = make_plan(f"budget.trials={self.trials}", f"budget.epochs={self.epochs}", asha)
        self.study, self.running = Study.open(plan, self.storage, "s"), {}

    def ask(self) -> None:
        if (trial := self.study.ask()) is not None:
            self.running[trial.number] = trial

    def report(self, pick: int, value: float) -> None:
        trial = self._picked(pick)
        if trial is None:
            return
        epoch = max(self.study.values(trial), default=trial.epochs_done) + 1
        with self.study.batch():
            decision = self.study.report(trial, epoch, value)
            self.study.record_checkpoint(trial, epoch, f"checkpoints/{trial.number}/{epoch}")
            if not decision.continues:
                self.study.record_metrics(trial, {"val_accuracy": 0.5})
                self.study.tell(trial, decision)
        if not decision.continues:
            self.running.pop(trial.number)

    def note(self, pick: int) -> None:
        if (trial := self._picked(pick)) is not None:
            self.study.record_findings(trial, [Finding("diverging", 1, {"loss": 1.0})])

    def end(self, pick: int, state: TrialState) -> None:
        if (trial := self._picked(pick)) is not None:
            self.study.tell(trial, Decision.of_state(state, f"told {state}"))
            self.running.pop(trial.number)

    def end_waiting(self) -> None:
        for trial, decision in self.study.paused():
            self.study.tell(trial, decision)

    def extend(self) -> None:
        self.end_waiting()
        self.trials, self.epochs = self.trials + 2, self.epochs + 2
        self.take_over()

    def _picked(self, pick: int):
        numbers = sorted(self.running)
        return self.running[numbers[pick % len(numbers)]] if numbers else None


values = st.floats(0, 1) | st.sampled_from([math.nan, math.inf])
picks = st.integers(0, 3)
steps = st.one_of(
    st.just(("ask",)),
    st.tuples(st.just("report"), picks, st.floats(0, 1)),
    st.tuples(st.just("report"), picks, values),
    st.tuples(st.just("note"), picks),
    st.tuples(
        st.just("end"),
        picks,
        st.sampled_from([TrialState.WAITING, TrialState.STOPPED, TrialState.FAILED, TrialState.COMPLETE]),
    ),
    st.just(("end_waiting",)),
    st.just(("take_over",)),
    st.just(("extend",)),
)


@pytest.fixture(params=["memory", "sqlite", "sqlite of an unknown layout"])
def storage(request, tmp_path, monkeypatch):
    if request.param == "memory":
        yield optuna.storages.InMemoryStorage()
        return
    if request.param != "sqlite":
        monkeypatch.setattr(optuna_tables, "TESTED_REVISION", "v0.0.0")
    made = open_storage(sqlite_url(tmp_path / "studies.db"))
    yield made
    made.engine.dispose()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(done=st.lists(st.tuples(steps, st.booleans()), max_size=30))
def test_what_was_read_on_equals_what_is_read_anew(storage, done):
    if "s" in [study.study_name for study in storage.get_all_studies()]:
        storage.delete_study(storage.get_study_id_from_name("s"))
    driven = Driven(storage)
    reader = TrialReader(storage, "s")
    for (name, *arguments), is_read in [*done, (("ask",), True)]:
        getattr(driven, name)(*arguments)
        if is_read:
            assert comparable(reader.read()) == comparable(read_trials(storage, driven.optuna_id))


def comparable(records):
    """NaN equals nothing, itself neither."""
    return [repr(record) for record in records]


def test_what_has_not_changed_is_not_read_again(tmp_path):
    storage = open_storage(sqlite_url(tmp_path / "studies.db"))
    driven = Driven(storage)
    for _ in range(3):
        driven.ask()
    driven.end(0, TrialState.FAILED)
    driven.end(0, TrialState.WAITING)
    reader = TrialReader(storage, "s")
    before = reader.read()
    rows = []
    sa.event.listen(
        storage.engine, "before_cursor_execute", lambda *call: rows.append(call[3]) if "attributes" in call[2] else None
    )
    assert reader.read() is before
    (asked,) = rows
    assert len(asked) == 1  # only the trial that is being trained
    driven.report(0, 0.5)
    after = reader.read()
    assert after[2].values == {1: 0.5}
    assert after[0] is before[0]
    assert after[1] is before[1]
    storage.engine.dispose()


def test_a_study_that_comes_later_is_found(storage):
    reader = TrialReader(storage, "s")
    assert list(reader.read()) == []
    driven = Driven(storage)
    driven.ask()
    assert [record.state for record in reader.read()] == [TrialState.RUNNING]


def test_a_trial_of_another_program_has_its_parameters(storage):
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    space = {"lr": optuna.distributions.FloatDistribution(1e-3, 1, log=True)}
    storage.create_new_trial(study_id, create_trial(state=OptunaState.WAITING, params={"lr": 0.1}, distributions=space))
    (record,) = read_study(storage, "s")
    assert record.params == {"lr": pytest.approx(0.1)}


def test_a_damaged_row_harms_only_its_trial(tmp_path):
    storage = open_storage(sqlite_url(tmp_path / "studies.db"))
    driven = Driven(storage)
    for _ in range(2):
        driven.ask()
    driven.report(1, 0.5)
    with storage.engine.begin() as connection:
        connection.execute(sa.text("UPDATE trial_user_attributes SET value_json = '{' WHERE trial_id = 1"))
    damaged, whole = read_study(storage, "s")
    assert damaged.reason.startswith("the stored attributes of the trial cannot be read: ")
    assert whole.values == {1: 0.5}
    assert whole.params
    storage.engine.dispose()
