"""What the model is shown, and what it proposes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dialin.lifecycle import TrialState
from dialin.search.models.encoding import Encoding
from dialin.search.records import Observation
from dialin.search.samplers.learning_curve_gp import LearningCurveGPSampler
from dialin.specification import active_params
from tests.factories import make_plan

SPACE = "\n  lr: {min: 1e-4, max: 1, log: true}\n  dropout: {min: 0, max: 0.5}\n"
PLAN = make_plan("budget.epochs=27", "search.seed=5", space=SPACE)


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
