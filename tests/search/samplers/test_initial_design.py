"""Which configurations a study tries before its model is of use."""

from __future__ import annotations

import numpy as np
import pytest

from dialin.lifecycle import TrialState
from dialin.planning.prior import default_configuration, first_trials, prior_of
from dialin.search.models.encoding import Encoding
from dialin.search.records import Observation
from dialin.search.samplers.initial_design import LEAST_KNOWN, InitialDesign
from dialin.specification import active_params
from tests.factories import make_plan


def design_of(*overrides, others=()):
    plan = make_plan("search.seed=2", "budget.trials=40", *overrides)
    return plan, InitialDesign(plan, Encoding(plan.spec), others)


def seen(plan, chosen, value, state=TrialState.WAITING):
    return Observation(active_params(plan.spec, chosen), {1: value}, state)


def test_the_defaults_are_those_that_the_plan_names():
    plan, design = design_of()
    planned = {one.trial: dict(one.params) for one in first_trials(plan.spec, prior_of(plan.spec))}
    assert planned[0] == default_configuration(plan.spec, prior_of(plan.spec))
    assert {number: design.default(number, 0) for number in range(40) if design.default(number, 0)} == planned
    assert {one["optimizer"] for one in planned.values()} == {"sgd", "adam"}


def test_enqueued_configurations_come_before_them():
    _, design = design_of("search.enqueue=[{lr: 0.3}, {lr: 0.2}]")
    assert design.default(0, 0) is None
    assert design.default(2, 0) is not None


def test_a_small_budget_is_not_spent_on_defaults():
    plan, design = design_of("budget.trials=4")
    assert [number for number in range(4) if design.default(number, 0)] == [0]
    assert design.has(LEAST_KNOWN - 1, 0)
    assert not design.has(LEAST_KNOWN, LEAST_KNOWN)
    assert len(first_trials(plan.spec, prior_of(plan.spec))) == 1


def test_every_second_trial_after_them_comes_from_the_prior_while_it_is_trusted():
    _, design = design_of("prior.lr={around: 0.01, spread: 1.2x}")
    index = Encoding(design_of()[0].spec).names.index("lr")

    def rate(number, trusts):
        return design.point(number, 0, trusts, np.random.default_rng(number))[index]

    odd, even = range(9, 39, 2), range(10, 40, 2)
    assert all(abs(rate(number, True) - 0.5) < 0.1 for number in odd)
    assert sum(abs(rate(number, True) - 0.5) < 0.1 for number in even) <= 6
    assert sum(abs(rate(number, False) - 0.5) < 0.1 for number in odd) <= 6


def test_with_trials_of_finished_studies_the_model_begins_after_the_default():
    plan, _ = design_of()
    others = [seen(plan, {"optimizer": "adam", "lr": 0.02, "batch_size": 32}, 0.9, TrialState.COMPLETE)]
    _, design = design_of("search.warm_start=[earlier]", others=others)
    default = design.default(0, 0)
    assert default is not None
    assert default["optimizer"] == "adam"
    assert not design.has(1, 0)


@pytest.mark.parametrize(("sign", "trusted"), [(1, True), (-1, False)])
def test_the_prior_is_trusted_while_trials_near_its_centre_are_better(sign, trusted):
    plan, design = design_of("prior.lr={around: 0.01, spread: 2x}")
    rates = 10 ** np.linspace(-4, 0, 9)
    trials = {
        number: seen(plan, {"optimizer": "adam", "lr": float(lr), "batch_size": 32}, sign * -abs(np.log10(lr) + 2))
        for number, lr in enumerate(rates)
    }
    assert design.trusts_prior(trials) is trusted


def test_trials_before_the_first_rung_and_failed_ones_say_nothing_of_the_prior():
    plan, design = design_of("budget.epochs=27", "prior.lr={around: 0.01, spread: 2x}")
    assert plan.rungs[0] > 1
    trials = {
        number: seen(plan, {"optimizer": "adam", "lr": float(lr), "batch_size": 32}, abs(np.log10(lr) + 2))
        for number, lr in enumerate(10 ** np.linspace(-4, 0, 9))
    }
    assert design.trusts_prior(trials)
    failed = {number: Observation(one.params, one.values, TrialState.FAILED) for number, one in trials.items()}
    assert design.trusts_prior(failed)
