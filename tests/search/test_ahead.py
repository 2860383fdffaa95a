"""Proposals in a thread: never waited for while something runs, never of what is long past."""

from __future__ import annotations

import threading

import optuna
import pytest

from service.planning import ClusterShape, plan_study
from service.search.ahead import FRESH_SECONDS, Ahead
from service.search.records import Outcome, Seen, State
from service.search.study import Study
from service.spec import load_spec


class Gate:
    """A proposer that waits to be let through, and remembers what it was shown."""

    def __init__(self):
        self.open, self.shown = threading.Event(), []

    def __call__(self, number, seen):
        self.shown.append((number, {key: (one.state, dict(one.values)) for key, one in seen.items()}))
        assert self.open.wait(30)
        return {"lr": float(number)}


def running(*values):
    return Seen({"lr": 0.1}, dict(enumerate(values, 1)), State.RUNNING)


def test_it_is_made_before_it_is_asked_for():
    gate = Gate()
    ahead = Ahead(gate)
    ahead.prepare(3, {}, 0)
    ahead.prepare(3, {}, 0)
    gate.open.set()
    assert ahead.take(3, {}, 0, newest=False) == {"lr": 3.0}
    assert len(gate.shown) == 1


def test_what_is_there_is_taken_while_a_newer_one_is_being_made():
    now, gate = [0.0], Gate()
    gate.open.set()
    ahead = Ahead(gate, lambda: now[0])
    assert ahead.take(0, {}, 1, newest=False) == {"lr": 0.0}
    gate.open.clear()
    now[0] = 2 * FRESH_SECONDS
    ahead.prepare(0, {}, 2)
    assert ahead.take(0, {}, 2, newest=False) == {"lr": 0.0}  # and does not wait
    gate.open.set()
    assert ahead.take(0, {}, 2, newest=True) == {"lr": 0.0}
    assert len(gate.shown) == 2


@pytest.mark.parametrize(
    ("reports", "seconds", "made"),
    [(0, 10 * FRESH_SECONDS, 1), (1, FRESH_SECONDS / 2, 1), (1, 2 * FRESH_SECONDS, 2)],
    ids=["nothing new", "made just now", "old, and there is news"],
)
def test_a_proposal_is_made_anew_only_where_that_changes_something(reports, seconds, made):
    now, gate = [0.0], Gate()
    gate.open.set()
    ahead = Ahead(gate, lambda: now[0])
    ahead.take(0, {}, 0, newest=True)
    now[0] = seconds
    assert ahead.take(0, {}, reports, newest=True) == {"lr": 0.0}
    assert len(gate.shown) == made


def test_it_is_shown_what_was_known_then():
    gate, live = Gate(), running(0.5)
    ahead = Ahead(gate)
    ahead.prepare(1, {0: live}, 1)
    live.values[2] = 0.7  # the driver goes on
    gate.open.set()
    ahead.take(1, {0: live}, 1, newest=True)
    assert gate.shown == [(1, {0: (State.RUNNING, {1: 0.5})})]


def test_what_the_proposing_raises_comes_out():
    def fail(number, seen):
        raise ArithmeticError("singular")

    with pytest.raises(ArithmeticError, match="singular"):
        Ahead(fail).take(0, {}, 0, newest=False)


def test_a_study_goes_on_reporting_while_a_proposal_is_made(monkeypatch):
    plan = plan_study(load_spec("synthetic", ["budget.trials=3", "early_stopping=off"]), ClusterShape(2))
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s", ahead=True)
    first = study.ask()  # nothing runs: it is waited for
    study.ask()
    gate = Gate()
    monkeypatch.setattr(study, "_ahead", Ahead(gate))
    assert not study.report(first, 1, 0.5).stop
    study.tell(first, Outcome(State.STOPPED, "enough"))
    assert study.trials()[0].state is State.STOPPED
    assert study._ahead._making is not None  # all the while
    gate.open.set()
    assert study.ask().params["lr"] == 2.0


def test_a_space_that_is_exhausted_ends_the_study():
    overrides = ["budget.trials=30", "early_stopping=off", "space={schedule: [fixed, cosine]}"]
    plan = plan_study(load_spec("synthetic", overrides), ClusterShape(2))
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s", ahead=True)
    seen = []
    while not study.finished:
        trial = study.ask()
        if trial is not None:
            seen.append(trial.params["schedule"])
            study.tell(trial, Outcome(State.STOPPED, ""))
    assert sorted(seen) == ["cosine", "fixed"]
    assert study.exhausted
