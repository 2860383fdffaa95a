"""The Study's contract, over the storages it is used with."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.trial import TrialState as OptunaState

from dialin.lifecycle import TrialState
from dialin.paths import sqlite_url
from dialin.search.decision import Decision
from dialin.search.storage import opened_storage
from dialin.search.study import Study
from dialin.search.trial_rows import read_finished
from dialin.specification.findings import Finding
from tests.factories import make_plan


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path):
    if request.param == "memory":
        yield optuna.storages.InMemoryStorage()
        return
    with opened_storage(sqlite_url(tmp_path / "studies.db")) as storage:
        yield storage


def train(study, trial, values, told=True):
    """Report `values` from the next epoch on, as long as the study lets it; the last decision."""
    decision = None
    for epoch, value in enumerate(values, trial.epochs_done + 1):
        decision = study.report(trial, epoch, value)
        if not decision.continues:
            break
    if told and decision is not None and not decision.continues:
        study.tell(trial, decision)
    return decision


STOPPING = "early_stopping.asha.type=stopping"


def rising(top, epochs=9):
    return [top * epoch / epochs for epoch in range(1, epochs + 1)]


def test_asks_for_as_many_trials_as_the_budget_has(storage):
    study = Study.open(make_plan("budget.trials=3"), storage, "s")
    assert [study.ask().number for _ in range(3)] == [0, 1, 2]
    assert study.ask() is None


def test_conditional_knobs_exist_only_where_their_condition_holds(storage):
    study = Study.open(make_plan("budget.trials=20"), storage, "s")
    trials = [study.ask() for _ in range(20)]
    rows = storage.get_all_trials(storage.get_study_id_from_name("s"))
    assert {trial.params["optimizer"] for trial in trials} == {"sgd", "adam"}
    for trial, row in zip(trials, rows, strict=True):
        with_momentum = trial.params["optimizer"] == "sgd"
        assert ("momentum" in trial.params) is with_momentum
        assert ("momentum" in row.params) is with_momentum
        assert isinstance(trial.params["batch_size"], int)
        assert 1e-4 <= trial.params["lr"] <= 1


def test_reports_are_stored_before_report_returns(storage):
    study = Study.open(make_plan(), storage, "s")
    trial = study.ask()
    study.report(trial, 1, 0.25)
    assert Study.open(make_plan(), storage, "s").trials()[0].values == {1: 0.25}


@pytest.mark.parametrize(
    ("values", "state", "optuna_state", "reason"),
    [
        (rising(0.9), TrialState.COMPLETE, OptunaState.COMPLETE, "trained all 9 epochs"),
        ([0.5, math.nan], TrialState.DIVERGED, OptunaState.PRUNED, "val_accuracy was nan after epoch 2"),
        ([math.inf], TrialState.DIVERGED, OptunaState.PRUNED, "val_accuracy was inf after epoch 1"),
    ],
)
def test_ends(storage, values, state, optuna_state, reason):
    study = Study.open(make_plan(STOPPING), storage, "s")
    decision = train(study, study.ask(), values)
    assert (decision.continues, decision.state, decision.text()) == (False, state, reason)
    record = study.trials()[0]
    assert (record.state, record.reason) == (state, reason)
    assert storage.get_all_trials(storage.get_study_id_from_name("s"))[0].state is optuna_state


def test_a_weak_trial_is_stopped_at_its_rung_with_the_reason(storage):
    study = Study.open(make_plan("early_stopping.asha.grace_epochs=3", STOPPING), storage, "s")
    for top in (0.9, 0.8):
        train(study, study.ask(), rising(top))
    weak = study.ask()
    decision = train(study, weak, rising(0.3))
    assert decision.state is TrialState.STOPPED
    assert decision.text() == "val_accuracy 0.1 is below 0.2889, the cutoff of rung 3 over 2 trials"
    assert study.trials()[weak.number].epochs_done == 3


def test_a_failed_trial_keeps_its_reason(storage):
    study = Study.open(make_plan(), storage, "s")
    study.tell(study.ask(), Decision("fail", "exception", detail="ValueError: no"))
    assert (study.trials()[0].state, study.trials()[0].reason) == (TrialState.FAILED, "ValueError: no")


def test_telling_twice_keeps_the_first_end(storage):
    study = Study.open(make_plan(STOPPING), storage, "s")
    trial = study.ask()
    train(study, trial, rising(0.9))
    study.tell(trial, Decision("fail", "exception", detail="late"))
    assert study.trials()[0].state is TrialState.COMPLETE


def test_reporting_an_epoch_twice_keeps_the_first_value(storage):
    study = Study.open(make_plan(), storage, "s")
    trial = study.ask()
    study.report(trial, 1, 0.5)
    assert study.report(trial, 1, 0.1).continues
    assert study.trials()[0].values == {1: 0.5}


def test_best_is_the_best_epoch_of_a_complete_trial(storage):
    study = Study.open(make_plan("early_stopping=off"), storage, "s")
    assert study.best() is None
    train(study, study.ask(), [0.99, math.nan])  # diverged: its good epoch does not count
    train(study, study.ask(), [0.98], told=False)  # under way: neither
    train(study, study.ask(), [0.1, 0.7, 0.95, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])
    train(study, study.ask(), [0.94] * 9)
    assert study.best().number == 2


def test_a_second_study_over_the_same_storage_agrees(storage):
    plan = make_plan("early_stopping.asha.grace_epochs=3", "search.seed=4", STOPPING)
    first = Study.open(plan, storage, "s")
    for top in (0.9, 0.8, 0.7):
        train(first, first.ask(), rising(top))
    second = Study.open(plan, storage, "s")
    assert second.trials() == first.trials()
    assert second.best() == first.best()
    weak = second.ask()
    assert weak.number == 3
    assert train(second, weak, rising(0.3)).state is TrialState.STOPPED


def test_an_unfinished_trial_goes_on_first_from_its_checkpoint(storage):
    first = Study.open(make_plan("early_stopping=off"), storage, "s")
    trial = first.ask()
    train(first, trial, [0.1, 0.2, 0.3], told=False)
    first.record_checkpoint(trial, 2, "/checkpoints/0000/epoch-0002")
    other = first.ask()
    first.interrupt(other)
    second = Study.open(make_plan("early_stopping=off"), storage, "s")
    again = second.ask()
    assert (again.number, again.epochs_done, again.checkpoint) == (0, 2, "/checkpoints/0000/epoch-0002")
    assert (again.params, again.seed) == (trial.params, trial.seed)
    assert second.ask().number == other.number
    assert second.ask().number == 2
    train(second, again, rising(0.9)[2:])
    record = second.trials()[0]
    assert record.state is TrialState.COMPLETE
    assert list(record.values) == list(range(1, 10))
    assert record.values[3] == 0.3


def test_a_trial_whose_last_report_was_its_end_is_told_on_reopening(storage):
    first = Study.open(make_plan("early_stopping=off"), storage, "s")
    train(first, first.ask(), rising(0.9), told=False)
    second = Study.open(make_plan("early_stopping=off"), storage, "s")
    assert second.ask().number == 1
    assert second.trials()[0].state is TrialState.COMPLETE


def test_the_target_ends_a_trial_as_complete(storage):
    study = Study.open(make_plan("budget.target=0.5", STOPPING), storage, "s")
    decision = train(study, study.ask(), [0.4, 0.6])
    assert (decision.state, decision.text()) == (TrialState.COMPLETE, "reached the target 0.5 after epoch 2")


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_one_seed_gives_the_same_trials_across_a_restart(tmp_path, sampler):
    plan = make_plan(f"search.sampler={sampler}", "search.seed=7", "budget.trials=25", "early_stopping=off")

    def search(restarts):
        storage = optuna.storages.InMemoryStorage()
        study = Study.open(plan, storage, "s")
        for number in range(25):
            if number in restarts:
                study = Study.open(plan, storage, "s")
            trial = study.ask()
            train(study, trial, rising(1 - abs(math.log10(trial.params["lr"]) + 2) / 4))
        return [(record.params, record.seed) for record in study.trials()]

    straight = search(())
    assert search((5, 12, 20)) == straight
    assert len({seed for _, seed in straight}) == 25


def test_a_grid_takes_every_combination_and_goes_round_with_other_seeds():
    space = "\n  optimizer: [sgd, adam]\n  lr: [0.1, 0.01]\n  momentum: {choices: [0.5, 0.9], when: {optimizer: sgd}}\n"
    plan = make_plan("search.sampler=grid", "budget.trials=12", "early_stopping=off", space=space)
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s")
    trials = [study.ask() for _ in range(12)]
    seen = [(t.params["optimizer"], t.params["lr"], t.params.get("momentum")) for t in trials]
    assert seen[:6] == [
        ("sgd", 0.1, 0.5), ("sgd", 0.1, 0.9), ("sgd", 0.01, 0.5), ("sgd", 0.01, 0.9),
        ("adam", 0.1, None), ("adam", 0.01, None),
    ]  # fmt: skip
    assert seen[6:] == seen[:6]
    assert len({trial.seed for trial in trials}) == 12


def test_findings_and_the_last_metrics_are_kept(storage):
    study = Study.open(make_plan(), storage, "s")
    trial = study.ask()
    study.record_findings(trial, [Finding("dead_units", 1, {"dead units": 0.5}, "layer 2")])
    study.record_metrics(trial, {"val_loss": 0.3})
    record = Study.open(make_plan(), storage, "s").trials()[0]
    assert record.findings == (Finding("dead_units", 1, {"dead units": 0.5}, "layer 2"),)
    assert record.metrics == {"val_loss": 0.3}


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_a_model_learns_where_random_does_not(sampler):
    """On a smooth one-knob problem the later half of its trials lies nearer to the optimum than random's."""

    def mean_distance(sampler):
        plan = make_plan(f"search.sampler={sampler}", "budget.trials=40", "early_stopping=off")
        study = Study.open(plan, optuna.storages.InMemoryStorage(), "s")
        for _ in range(40):
            trial = study.ask()
            train(study, trial, [1 - abs(math.log10(trial.params["lr"]) + 2)] * 9)
        return sum(abs(math.log10(record.params["lr"]) + 2) for record in study.trials()[20:]) / 20

    assert mean_distance(sampler) < 0.6 * mean_distance("random")


def train_all(study, top_of):
    """Train what the study asks for, one trial at a time, until it has nothing more; the order of (trial, epochs). The
    state is saved after each epoch."""
    order = []
    while (trial := study.ask()) is not None:
        done = max(study.values(trial), default=0)
        for epoch in range(done + 1, 10):
            decision = study.report(trial, epoch, top_of(trial) * epoch / 9)
            study.record_checkpoint(trial, epoch, f"/checkpoints/{trial.number:04d}/epoch-{epoch:04d}")
            if not decision.continues:
                study.tell(trial, decision)
                break
        order.append((trial.number, epoch))
    return order


def test_a_trial_waits_at_a_rung_until_it_is_among_the_best_there(storage):
    study = Study.open(make_plan("budget.trials=6", "early_stopping.asha.grace_epochs=3"), storage, "s")
    tops = [0.3, 0.9, 0.5, 0.6, 0.2, 0.1]
    assert train_all(study, lambda trial: tops[trial.number]) == [
        (0, 3), (1, 3), (2, 3),  # of one or two none may go on, of three the best
        (1, 9), (3, 3), (4, 3), (5, 3),  # of six two: the next is the second best
        (3, 9),
    ]  # fmt: skip
    assert study.finished
    assert next((trial.number, decision.text()) for trial, decision in study.paused()) == (
        0,
        "val_accuracy 0.1 ranks 4 of 6 at rung 3, where the best 2 continue",
    )
    assert [record.state for record in study.trials()].count(TrialState.COMPLETE) == 2


def test_with_few_trials_the_best_still_gets_to_the_end(storage):
    study = Study.open(make_plan("budget.trials=2"), storage, "s")
    train_all(study, lambda trial: 0.5 + trial.number / 10)
    assert study.best().number == 1


def test_there_may_be_nothing_now_and_something_later(storage):
    study = Study.open(make_plan("budget.trials=1", "early_stopping=off"), storage, "s")
    trial = study.ask()
    assert study.ask() is None
    assert not study.finished
    train(study, trial, rising(0.5))
    assert study.ask() is None
    assert study.finished


def test_rungs_and_waiting_trials_come_out_as_they_were(storage):
    plan = make_plan("budget.trials=6", "early_stopping.asha.grace_epochs=3")
    tops = [0.3, 0.9, 0.5, 0.6, 0.2, 0.1]

    def top_of(trial):
        return tops[trial.number]

    first = Study.open(plan, storage, "s")
    for _ in range(3):
        train(first, first.ask(), rising(tops[_]))
    second = Study.open(plan, storage, "s")
    assert [trial.number for trial, _ in second.paused()] == [0, 1, 2]
    assert train_all(second, top_of) == [(1, 9), (3, 3), (4, 3), (5, 3), (3, 9)]


def test_a_trial_that_is_paused_or_ended_reports_no_more(storage):
    study = Study.open(make_plan(), storage, "s")
    trial = study.ask()
    assert train(study, trial, [0.5]).state is TrialState.WAITING
    with pytest.raises(KeyError, match="trial 0 is not being trained"):
        study.report(trial, 2, 0.6)


def test_a_trial_that_was_interrupted_at_a_rung_is_handed_out_once(storage):
    plan = make_plan(STOPPING, "early_stopping.asha.grace_epochs=3", "budget.trials=6")
    first = Study.open(plan, storage, "s")
    for top in (0.3, 0.9, 0.5):
        trial = first.ask()
        train(first, trial, rising(top)[:3], told=False)
        first.interrupt(trial)
    second = Study.open(plan, storage, "s")
    asked = []
    while (trial := second.ask()) is not None:
        asked.append(trial.number)
    assert len(asked) == len(set(asked))


CHOICES = "\n  optimizer: [sgd, adam]\n  momentum: {choices: [0.5, 0.9], when: {optimizer: sgd}}\n"


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random"])
def test_no_configuration_is_tried_twice_and_an_exhausted_space_ends_the_study(storage, sampler):
    study = Study.open(make_plan(f"search.sampler={sampler}", "early_stopping=off", space=CHOICES), storage, "s")
    assert len(train_all(study, lambda trial: 0.5)) == 3
    assert study.finished
    tried = {(r.params["optimizer"], r.params.get("momentum")) for r in study.trials()}
    assert tried == {("sgd", 0.5), ("sgd", 0.9), ("adam", None)}


def test_enqueued_configurations_come_first(storage):
    wanted = "search.enqueue=[{optimizer: adam, lr: 0.01, batch_size: 32}, {optimizer: sgd, lr: 0.5}]"
    study = Study.open(make_plan(wanted, "early_stopping=off"), storage, "s")
    first, second, third = (study.ask() for _ in range(3))
    assert {name: first.params[name] for name in ("optimizer", "lr", "batch_size")} == {
        "optimizer": "adam", "lr": 0.01, "batch_size": 32,
    }  # fmt: skip
    assert (second.params["optimizer"], second.params["lr"]) == ("sgd", 0.5)
    assert 0.5 <= second.params["momentum"] <= 0.99
    assert third.params["lr"] not in (0.01, 0.5)


@pytest.mark.parametrize("sampler", ["gp", "tpe"])
def test_a_warm_start_learns_from_another_studys_trials(sampler):
    """Its first ten trials lie nearer to the optimum than those of a study that knows nothing."""

    def distance(others):
        plan = make_plan(f"search.sampler={sampler}", "budget.trials=10", "early_stopping=off", "search.seed=1")
        study = Study.open(plan, optuna.storages.InMemoryStorage(), "s", others)
        train_all(study, lambda trial: 1 - abs(math.log10(trial.params["lr"]) + 2) / 4)
        return sum(abs(math.log10(record.params["lr"]) + 2) for record in study.trials()) / 10

    plan = make_plan("search.sampler=random", "budget.trials=30", "early_stopping=off")
    storage = optuna.storages.InMemoryStorage()
    before = Study.open(plan, storage, "before")
    train_all(before, lambda trial: 1 - abs(math.log10(trial.params["lr"]) + 2) / 4)
    assert distance(read_finished(storage, ["before"])) < 0.7 * distance([])


def test_in_an_extended_study_the_best_go_on(storage):
    short = make_plan("budget.trials=6", "early_stopping.asha.grace_epochs=3")
    tops = [0.3, 0.9, 0.5, 0.6, 0.2, 0.1]
    first = Study.open(short, storage, "s")
    train_all(first, lambda trial: tops[trial.number])
    for trial, _ in first.paused():
        first.tell(trial, Decision("stop", "study_ended", detail="complete"))
    longer = make_plan("budget.trials=6", "budget.epochs=27", "early_stopping.asha.rungs=[3, 9]")
    second = Study.open(longer, storage, "s")
    trial = second.ask()
    assert (trial.number, trial.epochs_done, trial.checkpoint) == (6, 9, "/checkpoints/0001/epoch-0009")
    assert trial.params == first.trials()[1].params
    for epoch in range(10, 28):
        decision = second.report(trial, epoch, 0.95)
    second.tell(trial, decision)
    record = second.trials()[6]
    assert (record.state, record.continues, record.began, len(record.values)) == (TrialState.COMPLETE, 1, 9, 18)
    assert second.ask() is None  # of two that were complete one goes on
    assert Study.open(longer, storage, "s").finished


def test_optunas_own_tools_find_a_value_of_every_trial_that_ended_and_the_metrics_name(storage):
    study = Study.open(make_plan(STOPPING, "early_stopping.asha.rungs=[1]"), storage, "s")
    reported = {
        TrialState.COMPLETE: [0.3, 0.9, 0.8],
        TrialState.STOPPED: [0.4, 0.2],
        TrialState.DIVERGED: [0.7, math.nan],
        TrialState.FAILED: [0.5],
    }
    for state, values in reported.items():
        trial = study.ask()
        train(study, trial, values, told=False)
        study.tell(trial, Decision.of_state(state))
    found = optuna.load_study(study_name="s", storage=storage)
    assert found.metric_names == ["val_accuracy"]
    assert [trial.values for trial in found.trials] == [[0.9], [0.2], None, None]
    assert found.best_trial.number == 0
    # Optuna itself writes the same of trials that it is told have been pruned.
    own = optuna.create_study(direction="maximize")
    for values in (reported[TrialState.STOPPED], reported[TrialState.DIVERGED]):
        asked = own.ask()
        for epoch, value in enumerate(values, 1):
            asked.report(value, epoch)
        own.tell(asked, state=OptunaState.PRUNED)
    assert [trial.values for trial in own.trials] == [[0.2], None]
    # And what is read back is what it was.
    assert [record.state for record in Study.open(make_plan(STOPPING), storage, "s").trials()] == [*reported]


def test_epochs_that_were_trained_again_are_counted_and_who_stopped_a_trial_is_kept(storage):
    study = Study.open(make_plan(STOPPING, "early_stopping.asha.rungs=[1]"), storage, "s")
    for top in (0.9, 0.1):
        trial = study.ask()
        train(study, trial, [top, top], told=False)
        study.report(trial, 2, 0.5)
        study.report(trial, 1, 0.5)
        study.tell(trial, Decision("stop", "rung_rank" if top < 0.5 else "study_ended", rung=1, rank=2, of=2, quota=1))
    again = Study.open(make_plan(STOPPING), storage, "s")
    assert [(record.repeated, record.decision.is_early_stop) for record in again.trials()] == [(2, False), (1, True)]
