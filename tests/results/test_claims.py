"""Verdicts on claims, by table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dialin.lifecycle import TrialState
from dialin.results.claims import judge
from dialin.search.records import TrialRecord
from dialin.specification.study_spec import ClaimSpec
from tests.factories import make_spec

HIGH, LOW = [0.90, 0.91, 0.92, 0.93, 0.94], [0.80, 0.81, 0.82, 0.83, 0.84]


def records(good, bad, state=TrialState.COMPLETE):
    made = [("cosine", value) for value in good] + [("fixed", value) for value in bad]
    return [
        TrialRecord(n, state, {"schedule": name}, n, {1: value}, metrics={"zeros": value})
        for n, (name, value) in enumerate(made)
    ]


def claim(**changes):
    return ClaimSpec(says="x", better={"schedule": ["cosine"]}, than={"schedule": ["fixed"]}, **changes)


@pytest.mark.parametrize(
    ("good", "bad", "verdict"),
    [
        (HIGH, LOW, "held"),
        (LOW, HIGH, "did not hold"),
        ([0.80, 0.85, 0.90, 0.81, 0.86], [0.79, 0.84, 0.89, 0.82, 0.87], "is not clear"),
        ([0.5] * 5, [0.5] * 6, "is not clear"),
        ([0.9001], [0.9], "cannot be judged"),
        ([0.9, 0.92], LOW, "cannot be judged"),
        (HIGH, LOW[:4], "cannot be judged"),
        ([0.9], [], "cannot be judged"),
    ],
)
def test_verdicts(good, bad, verdict):
    assert judge(make_spec(), claim(), records(good, bad)).verdict == verdict


def test_where_lower_is_better():
    spec = make_spec("objective.metric=val_loss", "objective.mode=min")
    assert judge(spec, claim(), records(LOW, HIGH)).verdict == "held"
    lower = claim(metric="zeros", direction="lower")
    assert judge(make_spec(), lower, records(LOW, HIGH)).verdict == "held"


def test_p_is_that_of_the_exact_test():
    # Of the 252 ways to deal ten ranks to two groups of five, the two perfect orders are as extreme as this.
    assert judge(make_spec(), claim(), records(HIGH, LOW)).p == pytest.approx(2 / 252)


@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.RUNNING, TrialState.WAITING])
def test_trials_that_failed_or_have_not_ended_say_nothing(state):
    assert judge(make_spec(), claim(), records(HIGH, LOW, state)).better == ()


def test_each_training_counts_once():
    repeated = [replace(record, seed=3) for record in records(HIGH, LOW)]
    assert len(judge(make_spec(), claim(), repeated).better) == 1
    found = records(HIGH, LOW)
    longer = replace(found[0], number=10, values={2: 0.95}, continues=0, began=1)
    assert judge(make_spec(), claim(), [*found, longer]).better == (0.91, 0.92, 0.93, 0.94, 0.95)


def test_the_line():
    text = judge(make_spec(), claim(), records(HIGH, LOW)).text()
    assert text == (
        "the claim held here: val_accuracy 0.9200 (0.9000 to 0.9400, n = 5) against 0.8200 (0.8000 to 0.8400, n = 5); "
        "p = 0.008, below 0.05 (Mann-Whitney, two-sided)"
    )


def test_the_line_where_there_are_too_few():
    text = judge(make_spec(), claim(), records([0.9, 0.92], [0.8, 0.8, 0.8, 0.8])).text()
    assert text == "the claim cannot be judged: n = 2 against 4; at least 5 a side are needed"
