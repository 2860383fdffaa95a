"""The logic of the benchmark of real searches, on the closed form."""

from __future__ import annotations

import argparse
from collections import Counter
from functools import partial

import pytest

from dialin.objectives import build
from tests.benchmarks import real_spaces
from tests.benchmarks.real_spaces import Space, accuracies, append_row, default_of, measure, read_rows, summarize
from tests.benchmarks.searchers.trained import SEARCHERS, study_with
from tests.factories import make_spec

EPOCHS = 40


class Counting:
    """An objective that counts how often each trial was started."""

    def __init__(self, objective):
        self._objective = objective
        self.starts = Counter()
        self.prepare = objective.prepare

    def start(self, params, seed, resources):
        self.starts[seed] += 1
        return self._objective.start(params, seed, resources)


@pytest.fixture
def space(tmp_path):
    return Space(make_spec(), EPOCHS, lambda spec: Counting(build(spec, tmp_path)))


@pytest.mark.parametrize("name", list(SEARCHERS))
def test_a_search_spends_its_epochs_and_trains_no_epoch_twice(space, name):
    outcome = real_spaces.search(space, SEARCHERS[name](space.spec, 3))
    assert sum(outcome.lengths) == EPOCHS
    assert max(outcome.lengths) == space.spec.budget.epochs
    assert set(space.objective.starts.values()) == {1}
    assert len(space.objective.starts) == sum(length > 0 for length in outcome.lengths)


def test_two_workers_take_turns_epoch_by_epoch(space):
    reported = []
    searcher = SEARCHERS["Optuna"](space.spec, 0)
    report = searcher.report
    searcher.report = lambda trial, epoch, *rest: reported.append((trial.number, epoch)) or report(trial, epoch, *rest)
    real_spaces.search(space, searcher)
    assert reported[:5] == [(0, 1), (1, 1), (0, 2), (1, 2), (0, 3)]


def test_a_study_that_has_tried_all_its_trials_is_extended_until_the_epochs_are_spent(space):
    outcome = real_spaces.search(space, study_with("search.sampler=random", "budget.trials=2")(space.spec, 0))
    assert sum(outcome.lengths) == EPOCHS
    assert len(outcome.lengths) > 2


def test_the_winner_is_the_best_complete_trial_not_a_better_value_of_a_shorter_one(space):
    searcher = study_with("search.sampler=random", "early_stopping.asha=off")(space.spec, 0)
    complete, better = searcher.ask(), searcher.ask()
    for epoch in range(1, 10):
        searcher.report(complete, epoch, {"val_accuracy": 0.5}, [])
    searcher.report(better, 1, {"val_accuracy": 0.9}, [])
    assert searcher.winner() == (complete.params, 0.5)


@pytest.mark.parametrize(("luckiest", "winner"), [(False, 1), (True, 0)])
def test_dialin_recommends_its_incumbent_and_a_peer_the_luckiest_epoch(space, luckiest, winner):
    searcher = study_with("search.sampler=random", "early_stopping.asha=off", luckiest=luckiest)(space.spec, 0)
    trials = [searcher.ask(), searcher.ask()]
    curves = [[0.70, 0.72, 0.70, 0.85, 0.71, 0.70, 0.72, 0.70, 0.71], [0.83] * 9]
    for trial, curve in zip(trials, curves, strict=True):
        for epoch, value in enumerate(curve, start=1):
            searcher.report(trial, epoch, {"val_accuracy": value}, [])
    assert searcher.winner() == (trials[winner].params, max(curves[winner]))


def test_a_search_that_completes_no_trial_recommends_its_best_value(tmp_path):
    short = Space(make_spec(), 4, partial(build, data_dir=tmp_path))
    for name in SEARCHERS:
        outcome = real_spaces.search(short, SEARCHERS[name](short.spec, 0))
        assert outcome.params is not None
        assert 0 < outcome.value < 1


def test_optuna_is_asked_for_the_knobs_that_exist(space):
    searcher = SEARCHERS["Optuna"](space.spec, 0)
    asked = [searcher.ask() for _ in range(20)]
    assert {trial.params["optimizer"] for trial in asked} == {"sgd", "adam"}
    # The catalogue adds no momentum to adam.
    assert all(("momentum" in trial.params) == (trial.params["optimizer"] == "sgd") for trial in asked)


def test_a_diverged_trial_frees_its_worker_and_never_wins(space):
    for name in SEARCHERS:
        searcher = SEARCHERS[name](space.spec, 0)
        trial = searcher.ask()
        assert searcher.report(trial, 1, {"val_accuracy": float("nan")}, [])
        assert searcher.winner() is None


def test_the_default_is_the_catalogues(space):
    params = default_of(space.spec)
    assert params["lr"] == 0.1
    assert params["momentum"] == 0.9
    assert params["batch_size"] == 128


def test_the_default_trains_as_long_as_a_trial_and_as_long_as_a_search(space):
    once, whole = (measure(space, name, 0, fresh=5) for name in real_spaces.REFERENCES)
    assert (once["epochs"], len(once["test"])) == (9, 5)
    assert (whole["epochs"], len(whole["test"])) == (EPOCHS, 1)


def test_winners_of_one_seed_are_tested_with_the_same_seeds_and_those_of_another_with_others(space):
    tested = [
        measure(space, name, seed, fresh=3)["test"] for name, seed in (("default", 0), ("default", 0), ("default", 1))
    ]
    assert tested[0] == tested[1] != tested[2]
    assert len(set(tested[0])) == 3


@pytest.mark.parametrize("epochs", [1, 9])
def test_a_training_for_the_test_split_knows_its_length_and_trains_no_further(space, epochs):
    built = []

    class Run:
        def epoch(self):
            built.append("epoch")

        def test(self):
            return {"accuracy": 0.5}

        def close(self):
            built.append("close")

    class Objective:
        def __init__(self, spec):
            built.append(spec.budget.epochs)

        def start(self, params, seed, resources):
            return Run()

    assert accuracies(Space(space.spec, EPOCHS, Objective), {}, [1, 2], epochs) == [0.5, 0.5]
    assert built == [epochs, *["epoch"] * epochs, "close", *["epoch"] * epochs, "close"]


def test_what_is_in_the_file_is_not_run_again_and_a_line_that_was_cut_off_is(space, tmp_path, monkeypatch):
    monkeypatch.setattr(real_spaces, "open_space", lambda name, data_dir: space)
    path = tmp_path / "searches.jsonl"
    asked = argparse.Namespace(
        json=path, space="closed form", data_dir=tmp_path, searchers=["default", "random + ASHA"],
        seeds=2, first_seed=0, fresh=2, processes=1,
    )  # fmt: skip
    real_spaces.run(asked)
    rows = read_rows(path)
    assert [(row["searcher"], row["seed"]) for row in rows] == [
        ("default", 0), ("random + ASHA", 0), ("default", 1), ("random + ASHA", 1),
    ]  # fmt: skip
    path.write_bytes(path.read_bytes()[:-30])
    real_spaces.run(asked)
    again = read_rows(path)
    assert [{**row, "seconds": 0, "search_seconds": 0} for row in again] == [
        {**row, "seconds": 0, "search_seconds": 0} for row in rows
    ]
    real_spaces.run(asked)
    assert read_rows(path) == again


def test_an_unknown_searcher_is_named(space):
    with pytest.raises(SystemExit, match=r"no searcher 'grid'; there are: default, .*dialin"):
        real_spaces.maker_of("grid")


def test_the_table_has_means_differences_and_how_often_the_default_was_beaten(tmp_path):
    tests = {"dialin": [0.98, 0.97, 0.99], "random + ASHA": [0.95, 0.97, 0.94], "default": [0.95, 0.96, 0.97]}
    path = tmp_path / "rows.jsonl"
    for name, means in tests.items():
        for seed, mean in enumerate(means):
            row = {"searcher": name, "seed": seed, "test": [mean - 0.01, mean + 0.01], "epochs": 9}
            append_row(path, row if name == "default" else {**row, "value": mean, "lengths": [9, 0]})
    lines = summarize(read_rows(path), "dialin").splitlines()
    assert lines[2:] == [
        "| dialin | 0.9800 (0.0058) | 100% |  |  | 0.9800 | 9 | 2 | 3 |",
        "| default | 0.9600 (0.0058) |  | +0.0200 (0.0058) | +3.5 |  | 9 |  | 3 |",
        "| random + ASHA | 0.9533 (0.0088) | 33% | +0.0267 (0.0145) | +1.8 | 0.9533 | 9 | 2 | 3 |",
    ]
