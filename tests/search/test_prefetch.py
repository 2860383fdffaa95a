"""Proposals in a thread: never waited for while something runs, never of what is long past."""

from __future__ import annotations

import threading

import optuna
import pytest

from dialin.lifecycle import TrialState
from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.decision import Decision
from dialin.search.prefetch import FRESH_SECONDS, Prefetcher
from dialin.search.records import Observation
from dialin.search.study import Study
from dialin.specification import load_spec


class Gate:
    """A suggester that waits to be let through, and remembers what it was shown."""

    def __init__(self):
        self.open, self.shown, self.counts = threading.Event(), [], []

    def __call__(self, number, seen, count):
        self.counts.append(count)
        self.shown.append((number, {key: (one.state, dict(one.values)) for key, one in seen.items()}))
        assert self.open.wait(30)
        return [{"lr": float(number + index)} for index in range(count)]


def running(*values):
    return Observation({"lr": 0.1}, dict(enumerate(values, 1)), TrialState.RUNNING)


def test_it_is_made_before_it_is_asked_for():
    gate = Gate()
    prefetcher = Prefetcher(gate)
    prefetcher.prepare(3, {}, 0)
    prefetcher.prepare(3, {}, 0)
    gate.open.set()
    assert prefetcher.take(3, {}, 0, newest=False) == {"lr": 3.0}
    assert len(gate.shown) == 1


def test_what_is_there_is_taken_while_a_newer_one_is_being_made():
    now, gate = [0.0], Gate()
    gate.open.set()
    prefetcher = Prefetcher(gate, lambda: now[0])
    assert prefetcher.take(0, {}, 1, newest=False) == {"lr": 0.0}
    gate.open.clear()
    now[0] = 2 * FRESH_SECONDS
    prefetcher.prepare(0, {}, 2)
    assert prefetcher.take(0, {}, 2, newest=False) == {"lr": 0.0}  # and does not wait
    gate.open.set()
    assert prefetcher.take(0, {}, 2, newest=True) == {"lr": 0.0}
    assert len(gate.shown) == 2


@pytest.mark.parametrize(
    ("reports", "seconds", "made"),
    [(0, 10 * FRESH_SECONDS, 1), (1, FRESH_SECONDS / 2, 1), (1, 2 * FRESH_SECONDS, 2)],
    ids=["nothing new", "made just now", "old, and there is news"],
)
def test_a_proposal_is_made_anew_only_where_that_changes_something(reports, seconds, made):
    now, gate = [0.0], Gate()
    gate.open.set()
    prefetcher = Prefetcher(gate, lambda: now[0])
    prefetcher.take(0, {}, 0, newest=True)
    now[0] = seconds
    assert prefetcher.take(0, {}, reports, newest=True) == {"lr": 0.0}
    assert len(gate.shown) == made


def test_it_is_shown_what_was_known_then():
    gate, observations = Gate(), {0: running(0.5)}
    prefetcher = Prefetcher(gate)
    prefetcher.prepare(1, observations, 1)
    observations[0] = running(0.5, 0.7)  # the driver goes on
    gate.open.set()
    prefetcher.take(1, observations, 1, newest=True)
    assert gate.shown == [(1, {0: (TrialState.RUNNING, {1: 0.5})})]


def test_what_the_proposing_raises_comes_out():
    def fail(number, seen, count):
        raise ArithmeticError("singular")

    with pytest.raises(ArithmeticError, match="singular"):
        Prefetcher(fail).take(0, {}, 0, newest=False)


def test_a_study_goes_on_reporting_while_a_proposal_is_made(monkeypatch):
    plan = plan_study(load_spec("synthetic", ["budget.trials=3", "early_stopping=off"]), ClusterShape(2))
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s", prefetch=True)
    first = study.ask()  # nothing runs: it is waited for
    study.ask()
    gate = Gate()
    monkeypatch.setattr(study, "_prefetcher", Prefetcher(gate))
    assert study.report(first, 1, 0.5).continues
    study.tell(first, Decision.of_state(TrialState.STOPPED, "enough"))
    assert study.trials()[0].state is TrialState.STOPPED
    assert study._prefetcher.is_making  # all the while
    gate.open.set()
    assert study.ask().params["lr"] == 2.0


def test_a_space_that_is_exhausted_ends_the_study():
    overrides = ["budget.trials=30", "early_stopping=off", "space={schedule: [fixed, cosine]}"]
    plan = plan_study(load_spec("synthetic", overrides), ClusterShape(2))
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s", prefetch=True)
    seen = []
    while not study.finished:
        trial = study.ask()
        if trial is not None:
            seen.append(trial.params["schedule"])
            study.tell(trial, Decision.of_state(TrialState.STOPPED, ""))
    assert sorted(seen) == ["cosine", "fixed"]
    assert study.exhausted


def test_short_trials_get_several_proposals_at_a_time_and_each_is_asked_for_once():
    now = [0.0]

    def suggest(number, seen, count):
        counts.append((number, count))
        now[0] += 0.010  # what it takes
        return [{"lr": float(number + index)} for index in range(count)]

    counts = []
    prefetcher = Prefetcher(suggest, lambda: now[0])
    for number in range(20):
        now[0] += 0.010  # and what a trial takes
        assert prefetcher.take(number, {}, number, newest=False) == {"lr": float(number)}
    assert max(count for _, count in counts) == 4
    assert len(counts) < 12
    for number in range(20, 60):
        now[0] += 10.0
        prefetcher.take(number, {}, number, newest=False)
    assert counts[-1][1] == 1


def test_more_proposals_of_the_model_are_others_and_good_ones():
    """Those that go with the first are apart from it and each other, and better than random where the model knows."""
    import numpy as np

    from dialin.search.suggester import Suggester

    overrides = [
        "budget.trials=60",
        "early_stopping=off",
        "search.sampler=gp",
        "space={lr: {min: 1e-4, max: 1, log: true}, dropout: {min: 0, max: 0.5}}",
    ]
    plan = plan_study(load_spec("synthetic", overrides), ClusterShape(2))

    def height(params):
        return 1 - (np.log10(params["lr"]) + 2) ** 2 / 4 - (params["dropout"] - 0.2) ** 2 * 4

    generator = np.random.default_rng(3)
    seen = {
        number: Observation(params, {plan.spec.budget.epochs: height(params)}, TrialState.COMPLETE)
        for number in range(40)
        for params in [{"lr": 10 ** generator.uniform(-4, 0), "dropout": generator.uniform(0, 0.5)}]
    }
    found, firsts = [], 0
    for number in range(40, 60):
        suggestions = Suggester(plan).suggest_batch(number, seen, 4)
        firsts += len(suggestions) == 1  # drawn blindly, now and then, and then there is nothing to go with it
        found += suggestions[1:]
        assert len({tuple(each.values()) for each in suggestions}) == len(suggestions)
    assert firsts < 10
    random_ones = [height({"lr": 10 ** generator.uniform(-4, 0), "dropout": generator.uniform(0, 0.5)}) for _ in found]
    assert np.median([height(each) for each in found]) > np.quantile(random_ones, 0.8)


def test_a_study_that_is_closed_leaves_no_thread():
    others = set(threading.enumerate())
    plan = plan_study(load_spec("synthetic", ["budget.trials=3", "early_stopping=off"]), ClusterShape(2))
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s", prefetch=True)
    study.ask()
    assert set(threading.enumerate()) - others
    study.close()
    assert not set(threading.enumerate()) - others
