"""What a writer writes is what Optuna reads; a batch is stored whole or not at all."""

from __future__ import annotations

import math
from datetime import datetime

import optuna
import pytest
import sqlalchemy
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from dialin.search.storage import fence, open_storage
from dialin.search.trial_writer import OptunaTrialWriter, SqlTrialWriter, make_trial_writer


def template():
    params = {"lr": 0.1, "optimizer": "adam"}
    trial = create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions={
            "lr": FloatDistribution(1e-3, 1, log=True),
            "optimizer": CategoricalDistribution(["sgd", "adam"]),
        },
        user_attrs={"seed": 7, "params": params},
    )
    trial.datetime_start = datetime.now()
    return trial


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path):
    if request.param == "memory":
        yield optuna.storages.InMemoryStorage()
        return
    made = open_storage(f"sqlite:///{tmp_path / 'a.db'}")
    yield made
    made.engine.dispose()


@pytest.fixture
def writer(storage):
    return make_trial_writer(storage, storage.create_new_study([StudyDirection.MAXIMIZE], "s"))


def test_each_storage_has_its_ledger(storage, writer):
    assert isinstance(
        writer, OptunaTrialWriter if isinstance(storage, optuna.storages.InMemoryStorage) else SqlTrialWriter
    )


def test_a_trial_is_what_optuna_would_have_stored(storage, writer):
    before = datetime.now()
    trial_id = writer.create(template(), 0)
    by_optuna = storage.get_trial(storage.create_new_trial(0 if trial_id == 0 else 1, template()))
    trial = storage.get_trial(trial_id)
    assert (trial.number, by_optuna.number) == (0, 1)
    assert (trial.params, trial.distributions, trial.user_attrs, trial.state) == (
        by_optuna.params,
        by_optuna.distributions,
        by_optuna.user_attrs,
        by_optuna.state,
    )
    assert before <= trial.datetime_start <= datetime.now()


@pytest.mark.parametrize("value", [0.25, math.nan, math.inf, -math.inf])
def test_any_number_is_kept(storage, writer, value):
    trial_id = writer.create(template(), 0)
    writer.set_value(trial_id, 3, value)
    (kept,) = storage.get_trial(trial_id).intermediate_values.values()
    assert kept == value or (math.isnan(kept) and math.isnan(value))


def test_an_attribute_takes_the_place_of_the_one_before(storage, writer):
    trial_id = writer.create(template(), 0)
    for path in ("a", "b"):
        writer.set_attribute(trial_id, "checkpoint", {"path": path})
    with writer.batch():
        for path in ("c", "d"):
            writer.set_attribute(trial_id, "checkpoint", {"path": path})
    assert storage.get_trial(trial_id).user_attrs["checkpoint"] == {"path": "d"}
    assert storage.get_trial(trial_id).user_attrs["seed"] == 7


def test_a_trial_waits_goes_on_and_ends(storage, writer):
    trial_id = writer.create(template(), 0)
    writer.set_state(trial_id, TrialState.WAITING)
    assert storage.get_trial(trial_id).state is TrialState.WAITING
    writer.set_state(trial_id, TrialState.RUNNING)
    writer.set_state(trial_id, TrialState.COMPLETE, 0.75)
    trial = storage.get_trial(trial_id)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.75)
    assert trial.datetime_start <= trial.datetime_complete <= datetime.now()


def test_one_that_waits_can_be_ended(storage, writer):
    trial_id = writer.create(template(), 0)
    writer.set_state(trial_id, TrialState.WAITING)
    writer.set_state(trial_id, TrialState.PRUNED)
    assert storage.get_trial(trial_id).state is TrialState.PRUNED


def test_what_has_ended_never_changes(storage, writer):
    trial_id = writer.create(template(), 0)
    writer.set_state(trial_id, TrialState.PRUNED)
    with pytest.raises(UpdateFinishedTrialError):
        writer.set_state(trial_id, TrialState.COMPLETE, 0.5)
    assert storage.get_trial(trial_id).state is TrialState.PRUNED


@pytest.fixture
def sqlite(tmp_path):
    storage = open_storage(f"sqlite:///{tmp_path / 'b.db'}")
    study = storage.create_new_study([StudyDirection.MAXIMIZE], "s")
    yield storage, SqlTrialWriter(storage, study)
    storage.engine.dispose()


def test_a_batch_is_one_transaction(sqlite):
    storage, writer = sqlite
    trial_id = writer.create(template(), 0)
    commits = []
    fence(storage, commits.append)
    with writer.batch():
        for epoch in range(1, 10):
            writer.set_value(trial_id, epoch, epoch / 10)
        with writer.batch():  # nested: part of the outer one
            writer.set_attribute(trial_id, "reason", "trained all 9 epochs")
        assert storage.get_trial(trial_id).intermediate_values == {}
        commits.clear()  # of the look above
        writer.set_state(trial_id, TrialState.COMPLETE, 0.9)
    assert len(commits) == 1
    trial = storage.get_trial(trial_id)
    assert trial.intermediate_values == {epoch: epoch / 10 for epoch in range(1, 10)}
    assert (trial.state, trial.user_attrs["reason"]) == (TrialState.COMPLETE, "trained all 9 epochs")


def test_a_batch_that_raises_leaves_nothing_and_the_next_one_starts_empty(sqlite):
    storage, writer = sqlite
    trial_id = writer.create(template(), 0)
    with pytest.raises(KeyError), writer.batch():
        writer.set_value(trial_id, 1, 0.1)
        raise KeyError("on purpose")
    writer.set_value(trial_id, 2, 0.2)
    assert storage.get_trial(trial_id).intermediate_values == {2: 0.2}


def test_a_batch_whose_commit_is_refused_leaves_nothing(sqlite):
    storage, writer = sqlite
    trial_id = writer.create(template(), 0)

    def refuse(connection: sqlalchemy.Connection) -> None:
        raise PermissionError("fenced")

    sqlalchemy.event.listen(storage.engine, "commit", refuse)
    with pytest.raises(PermissionError, match="fenced"):
        writer.set_value(trial_id, 1, 0.1)
    sqlalchemy.event.remove(storage.engine, "commit", refuse)
    assert storage.get_trial(trial_id).intermediate_values == {}


def test_a_value_reported_twice_is_an_error(sqlite):
    """The study never does; a second driver that got past everything else would."""
    _, writer = sqlite
    trial_id = writer.create(template(), 0)
    writer.set_value(trial_id, 1, 0.1)
    with pytest.raises(sqlalchemy.exc.IntegrityError):
        writer.set_value(trial_id, 1, 0.2)
