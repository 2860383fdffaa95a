"""What the model is shown, and what it proposes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dialin.lifecycle import TrialState
from dialin.planning.prior import first_trials, prior_of
from dialin.search.models.encoding import Encoding
from dialin.search.records import Observation
from dialin.search.samplers.learning_curve_gp import LearningCurveGPSampler
from dialin.specification import active_params
from tests.factories import make_plan

SPACE = "\n  lr: {min: 1e-4, max: 1, log: true}\n  dropout: {min: 0, max: 0.5}\n"
PLAN = make_plan("budget.epochs=27", "search.seed=5", "budget.trials=40", "prior=off", space=SPACE)
WITH_PRIOR = make_plan(
    "budget.epochs=27", "search.seed=5", "budget.trials=40", "prior.lr={around: 0.01, spread: 2x}", space=SPACE
)


@pytest.fixture
def sampler():
    return LearningCurveGPSampler(PLAN, Encoding(PLAN.spec))


def seen_of(lr, values, state=TrialState.COMPLETE):
    return Observation(active_params(PLAN.spec, {"lr": lr, "dropout": 0.1}), values, state)


def quality(lr):
    return 0.9 - 0.1 * abs(math.log10(lr) + 2)


def history(count, epochs=27):
    generator = np.random.default_rng(0)
    rates = 10 ** generator.uniform(-4, 0, count)
    return {
        number: seen_of(lr, {epoch: quality(lr) * (1 - 0.5 ** (epoch / 2)) for epoch in range(1, epochs + 1)})
        for number, lr in enumerate(rates)
    }


def test_it_begins_with_a_sequence_that_fills_the_space(sampler):
    chosen = [sampler.suggest(number, {}, set(), 0) for number in range(8)]
    rates = sorted((math.log10(one["lr"]) + 4) / 4 for one in chosen)
    assert all(int(rate * 8) == place for place, rate in enumerate(rates))  # one in each eighth: Sobol's property


def test_it_goes_where_the_model_expects_the_most(sampler):
    chosen = [sampler.suggest(number, history(12), set(), 0) for number in range(20, 50)]
    near = sum(abs(math.log10(one["lr"]) + 2) < 0.5 for one in chosen)
    assert near >= 20  # of 30; some are drawn blindly


def test_trials_that_were_stopped_early_teach_too(sampler):
    chosen = [sampler.suggest(number, history(20, epochs=3), set(), 0) for number in range(20, 40)]
    assert sum(abs(math.log10(one["lr"]) + 2) < 0.5 for one in chosen) >= 12


def test_a_diverged_trial_keeps_it_away(sampler):
    seen = {
        **history(6),
        **{100 + i: seen_of(lr, {1: math.nan}, TrialState.DIVERGED) for i, lr in enumerate((0.2, 0.5, 1.0))},
    }
    chosen = [sampler.suggest(number, seen, set(), 0) for number in range(20, 40)]
    assert sum(one["lr"] > 0.2 for one in chosen) <= 5


def test_what_was_tried_is_not_proposed_again(sampler):
    seen, key_of = history(12), Encoding(PLAN.spec).key_of
    tried = {key_of(sampler.suggest(number, seen, set(), 0)) for number in range(30, 40)}
    again = {key_of(sampler.suggest(number, seen, tried, 1)) for number in range(30, 40)}
    assert len(tried) == 10
    assert not tried & again


def test_a_proposal_depends_on_nothing_but_seed_number_and_history():
    def suggest():
        return LearningCurveGPSampler(PLAN, Encoding(PLAN.spec)).suggest(30, history(12), set(), 0)

    assert suggest() == suggest()


def decades_from_the_centre(chosen):
    return [abs(math.log10(one["lr"]) + 2) for one in chosen]


def test_the_first_trial_is_the_default_and_half_of_the_next_ones_come_from_the_prior():
    sampler = LearningCurveGPSampler(WITH_PRIOR, Encoding(WITH_PRIOR.spec))
    chosen = [sampler.suggest(number, {}, set(), 0) for number in range(20)]
    assert chosen[0]["lr"] == pytest.approx(0.01)
    away = decades_from_the_centre(chosen[1:])
    near = [distance for distance in away if distance < 1]  # more than three deviations of the prior
    assert len(near) >= 10
    assert max(away) > 1.2


@pytest.mark.parametrize("enqueued", [(), ("search.enqueue=[{lr: 0.2}]",)])
def test_the_first_trials_are_those_that_a_plan_shows(enqueued):
    space = "\n  optimizer: [sgd, adam, rmsprop]\n  lr: {min: 1e-4, max: 1, log: true}\n"
    plan = make_plan("budget.trials=40", *enqueued, space=space)
    sampler = LearningCurveGPSampler(plan, Encoding(plan.spec))
    shown = {one.trial: one.params for one in first_trials(plan.spec, prior_of(plan.spec))}
    assert len(shown) == 3
    for number in range(len(enqueued), 8):
        is_default = sampler.suggest(number, {}, set(), 0) in shown.values()
        assert is_default == (number in shown)
        assert not is_default or sampler.suggest(number, {}, set(), 0) == shown[number]


def test_a_default_that_was_tried_before_is_not_tried_again():
    sampler = LearningCurveGPSampler(WITH_PRIOR, Encoding(WITH_PRIOR.spec))
    assert sampler.suggest(0, {}, set(), 0) != sampler.suggest(0, {}, set(), 1)


def contradicting(count):
    """Trials of which those near the prior's centre are the worst."""
    rates = 10 ** np.linspace(-4, 0, count)
    return {
        number: seen_of(lr, {epoch: 0.5 + 0.1 * abs(math.log10(lr) + 2) for epoch in range(1, 28)})
        for number, lr in enumerate(rates)
    }


def test_a_prior_that_the_results_contradict_is_not_used_any_more():
    sampler = LearningCurveGPSampler(WITH_PRIOR, Encoding(WITH_PRIOR.spec))
    without = LearningCurveGPSampler(PLAN, Encoding(PLAN.spec))
    seen = contradicting(12)
    chosen = [sampler.suggest(number, seen, set(), 0) for number in range(30, 60)]
    assert chosen == [without.suggest(number, seen, set(), 0) for number in range(30, 60)]
    agreeing = [sampler.suggest(number, history(12), set(), 0) for number in range(30, 60)]
    assert agreeing != [without.suggest(number, history(12), set(), 0) for number in range(30, 60)]


def test_the_best_trials_of_earlier_studies_are_the_centre():
    others = [seen_of(lr, {27: quality(lr)}) for lr in (0.011, 0.01, 0.009, 0.5, 0.9, 0.0002)]
    plan = make_plan("budget.epochs=27", "budget.trials=40", space=SPACE)
    sampler = LearningCurveGPSampler(plan, Encoding(plan.spec), others)
    assert sampler.suggest(0, {}, set(), 0)["lr"] == pytest.approx(0.01, rel=0.2)


def test_failures_are_avoided_before_there_is_a_model_and_after():
    failed = {
        number: seen_of(lr, {}, TrialState.FAILED) for number, lr in enumerate(10 ** np.linspace(-0.9, 0, 8), start=100)
    }
    ok = {number: seen_of(lr, {1: 0.5, 2: 0.6}, TrialState.WAITING) for number, lr in enumerate(np.full(3, 0.01), 200)}
    sampler = LearningCurveGPSampler(PLAN, Encoding(PLAN.spec))
    first = [sampler.suggest(number, {**failed, **ok}, set(), 0) for number in range(40)]
    later = [sampler.suggest(number, {**failed, **history(12)}, set(), 0) for number in range(40, 80)]
    for chosen in (first, later):
        assert sum(one["lr"] > 0.13 for one in chosen) <= 4  # 9 would be at random
