"""The order of trials, by table."""

from __future__ import annotations

import math
from itertools import permutations

import pytest

from dialin.lifecycle import TrialState
from dialin.search.ranking import best_of, peak_of, ranked
from dialin.search.records import TrialRecord


def trial(number, state=TrialState.COMPLETE, values=None, loss=None):
    metrics = {} if loss is None else {"val_loss": loss}
    return TrialRecord(number, state, {}, number, values or {1: 0.5, 2: 0.9}, metrics=metrics)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (trial(1), trial(0, TrialState.STOPPED, {1: 0.99})),
        (trial(1, TrialState.WAITING), trial(0, TrialState.DIVERGED, {1: 0.99, 2: math.nan})),
        (trial(1, TrialState.DIVERGED, {1: 0.2}), trial(0, TrialState.FAILED, {1: 0.99})),
        (trial(1, TrialState.RUNNING), trial(0, TrialState.STOPPED, {1: 0.4})),
        (trial(1, values={1: 0.91}), trial(0, values={1: 0.9})),
        (trial(1, loss=0.2), trial(0, loss=0.3)),
        (trial(1, loss=0.2), trial(0)),
        (trial(1, loss=0.3), trial(0, loss=math.nan)),
        (trial(1, values={1: 0.9, 2: 0.9}), trial(0, values={1: 0.5, 2: 0.9})),
        (trial(0), trial(1)),
    ],
    ids=["complete", "not-diverged", "not-failed", "value", "value-2", "loss", "measured", "finite", "epoch", "number"],
)
def test_the_order(first, second):
    for records in permutations([first, second]):
        assert [record for record, _ in ranked(records, "max")] == [first, second]
        assert best_of(records, "max") is first


def test_a_failed_trial_is_never_the_best():
    assert best_of([trial(0, TrialState.FAILED)], "max") is None
    assert best_of([trial(0, TrialState.STOPPED)], "max", complete_only=True) is None


def test_the_peak_is_the_first_epoch_with_the_best_finite_value():
    values = {1: 0.5, 2: math.inf, 3: 0.7, 4: 0.7, 5: math.nan}
    assert peak_of(values, maximize=True) == (0.7, 3)
    assert peak_of(values, maximize=False) == (0.5, 1)
    assert peak_of({1: math.nan}, maximize=True) is None
