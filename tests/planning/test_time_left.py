"""How much is left of a study, said beforehand and compared with what it then took."""

from __future__ import annotations

import heapq
import random

import optuna
import pytest

from dialin.lifecycle import TrialState
from dialin.planning.time_left import Pace, duration_text, epochs_left
from dialin.search.study import Study
from tests.factories import make_plan


def simulate(plan, seed, workers=2):
    """A study in simulated time: (seconds, trial, epoch, state of the trial after it) of each report."""
    generator = random.Random(seed)
    study = Study.open(plan, optuna.storages.InMemoryStorage(), "s")
    running, told, now, idle = [], [], 12.0, workers  # the start took 12 s
    while True:
        while idle and (trial := study.ask()) is not None:
            pace = generator.uniform(0.2, 0.6)
            best = generator.random()
            heapq.heappush(running, (now + pace, trial.number, trial, trial.epochs_done + 1, pace, best))
            idle -= 1
        if not running:
            return told
        now, _, trial, epoch, pace, best = heapq.heappop(running)
        value = best * epoch / plan.spec.budget.epochs
        decision = study.report(trial, epoch, float("nan") if best < 0.08 and epoch == 1 else value)
        told.append((now, trial.number, epoch, decision.state))
        if not decision.continues:
            study.tell(trial, decision)
            idle += 1
        else:
            heapq.heappush(running, (now + pace, trial.number, trial, epoch + 1, pace, best))


@pytest.mark.parametrize(
    ("overrides", "inside_share"),
    [([], 0.8), (["early_stopping.asha.type=stopping"], 0.75), (["early_stopping.asha=off"], 0.95)],
    ids=["promotion", "stopping", "off"],
)
def test_the_time_left_is_told_within_a_factor_of_two(overrides, inside_share):
    """Of simulated studies that the estimate was not made on, while more than 5 s are left."""
    plan = make_plan("budget.trials=40", "budget.epochs=27", "search.sampler=random", *overrides)
    ratios = []
    for seed in range(1, 7):
        told = simulate(plan, seed)
        end, pace = told[-1][0], Pace()
        furthest: dict[int, int] = {}
        ended: set[int] = set()
        for now, number, epoch, state in told:
            pace.count(now)
            furthest[number] = epoch
            if state not in (TrialState.RUNNING, TrialState.WAITING):
                ended.add(number)
            said = pace.seconds(epochs_left(plan, furthest, ended), now, plan.concurrency)
            if said is not None and end - now > 5:
                ratios.append(said / (end - now))
    assert len(ratios) > 1000
    assert sum(0.5 <= ratio <= 2 for ratio in ratios) >= inside_share * len(ratios)


def test_what_is_left_of_a_study_that_has_not_begun_is_what_its_plan_says():
    plan = make_plan("budget.trials=81", "budget.epochs=27")
    assert plan.likely_epochs <= epochs_left(plan, {}, set()) <= 2 * plan.likely_epochs


def test_nothing_is_left_when_all_has_ended():
    plan = make_plan("budget.trials=3")
    assert epochs_left(plan, {0: 9, 1: 3, 2: 1}, {0, 1, 2}) == 0


def test_a_paused_trial_is_expected_to_go_on_only_as_one_of_the_best():
    plan = make_plan("budget.trials=9", "budget.epochs=9")
    at_the_first_rung = dict.fromkeys(range(9), 1)
    assert 3 * 2 + 1 * 6 <= epochs_left(plan, at_the_first_rung, set()) < 9 * 8 / 2


def test_more_trials_than_the_budget_has_are_no_negative_rest():
    plan = make_plan("budget.trials=2", "early_stopping.asha=off")
    assert epochs_left(plan, {0: 9, 1: 9, 2: 9, 3: 4}, {0, 1, 2}) == 5


def test_no_pace_before_there_is_something_to_measure():
    pace = Pace()
    assert pace.seconds(10, 1.0, 2) is None
    for _ in range(9):
        pace.count(3.0)  # reported together: they took their time before
    assert pace.seconds(10, 60.0, 2) is None
    for now in (4.0, 5.0, 6.0, 7.0):
        pace.count(now)
    assert pace.seconds(10, 7.0, 2) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.0, "a few seconds"),
        (23.0, "about 25 s"),
        (99.0, "about 100 s"),
        (130.0, "about 2 min"),
        (7000.0, "about 2 h"),
    ],
)
def test_an_estimate_has_no_more_digits_than_it_deserves(seconds, text):
    assert duration_text(seconds) == text
