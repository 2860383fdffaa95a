"""What a model is shown of the learning curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dialin.lifecycle import TrialState
from dialin.search.models.embedding import Embedding
from dialin.search.models.encoding import Encoding
from dialin.search.models.learning_curves import LearningCurves, subsample_observations, warp_targets
from dialin.search.records import Observation
from dialin.specification import active_params
from tests.factories import make_plan

SPACE = "\n  lr: {min: 1e-4, max: 1, log: true}\n"


def make(*overrides, others=()):
    plan = make_plan("budget.epochs=27", *overrides, space=SPACE)
    return plan, LearningCurves(plan, Embedding(plan.spec, Encoding(plan.spec)), others)


def seen_of(plan, lr, values, state=TrialState.RUNNING):
    return Observation(active_params(plan.spec, {"lr": lr}), dict(enumerate(values, 1)), state)


def test_a_trial_is_seen_at_powers_of_two_at_rungs_and_at_its_last_epoch():
    plan, curves = make()
    assert plan.rungs == (2, 6, 18)
    curves.update({0: seen_of(plan, 0.01, [0.1] * 7)})
    observed = curves.training_set([0], 100, np.random.default_rng(0))
    assert observed is None  # all the same: nothing to learn
    curves.update({0: seen_of(plan, 0.01, [epoch / 100 for epoch in range(1, 12)])})
    observed = curves.training_set([0], 100, np.random.default_rng(0))
    assert np.round(np.exp(observed.x[:, -2] * math.log(27))).tolist() == [1, 2, 4, 6, 8, 11]
    assert observed.x[:, 0] == pytest.approx(0.5)
    assert (np.diff(observed.y) > 0).all()


def test_the_best_so_far_counts_and_a_loss_is_turned_round():
    plan, curves = make("objective.metric=val_loss", "objective.mode=min")
    known = curves.update({0: seen_of(plan, 0.1, [0.9, 0.5, 0.7, 0.8]), 1: seen_of(plan, 0.01, [0.9, 0.8, 0.6, 0.6])})
    assert curves.best(known, 5) == [0, 1]


def test_a_diverged_trial_counts_as_the_worst():
    plan, curves = make()
    seen = {0: seen_of(plan, 0.01, [0.5, 0.6]), 1: seen_of(plan, 0.9, [0.7, math.nan], TrialState.DIVERGED)}
    known = curves.update(seen)
    observed = curves.training_set(known, 100, np.random.default_rng(0))
    assert observed.y[3] == observed.y.min()
    assert observed.y[2] == observed.y.max()
    assert curves.best(known, 1) == [0]


def test_failed_trials_and_those_without_a_report_teach_nothing():
    plan, curves = make()
    seen = {0: seen_of(plan, 0.01, []), 1: seen_of(plan, 0.01, [0.3], TrialState.FAILED), 2: seen_of(plan, 0.1, [0.3])}
    assert curves.update(seen) == [2]


def test_other_studies_are_told_apart():
    plan, _ = make()
    _, curves = make(others=[seen_of(plan, 0.1, [0.1, 0.9], TrialState.COMPLETE)])
    curves.update({0: seen_of(plan, 0.01, [0.4, 0.5])})
    observed = curves.training_set([0], 100, np.random.default_rng(0))
    assert observed.x[:, -1].tolist() == [0, 0, 1, 1]
    assert observed.y[:2] == pytest.approx([-1, 1])
    assert observed.y[2:] == pytest.approx([-1, 1])  # each study on its own scale


def test_what_is_near_the_best_is_drawn_apart():
    drawn = warp_targets([np.array([0.1, 0.5, 0.8, 0.9, 0.95])])
    assert drawn.mean() == pytest.approx(0)
    assert drawn.std() == pytest.approx(1)
    assert drawn[4] - drawn[3] > drawn[1] - drawn[0]


def test_of_many_observations_the_best_the_late_and_some_others_are_kept():
    generator = np.random.default_rng(0)
    y, late = generator.random(2000), generator.random(2000) > 0.5
    chosen = subsample_observations(y, late, np.arange(2000), 250, generator)
    assert len(chosen) == len(set(chosen.tolist())) == 250
    assert set(np.argsort(-(y + 2 * late))[:125].tolist()) <= set(chosen.tolist())
    in_five_cells = subsample_observations(y, late, np.arange(2000) % 5, 250, generator)
    assert len(in_five_cells) == 5


def test_huge_values_are_told_apart_and_stay_finite():
    found = warp_targets([np.array([1e308, -1e308, 9e307]), np.array([0.0, np.nan])])
    assert np.isfinite(found).all()
    assert list(np.argsort(found)[::-1][:3]) == [0, 2, 3]
