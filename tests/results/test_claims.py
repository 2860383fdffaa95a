"""Verdicts on claims, by table."""

from __future__ import annotations

import pytest

from service.results.claims import judge
from service.search.records import State, TrialRecord
from service.spec.study_spec import ClaimSpec
from tests.factories import make_spec


def records(good, bad, state=State.COMPLETE):
    made = [("cosine", value) for value in good] + [("fixed", value) for value in bad]
    return [
        TrialRecord(n, state, {"schedule": name}, 1, {1: value}, metrics={"zeros": value})
        for n, (name, value) in enumerate(made)
    ]


def claim(**changes):
    return ClaimSpec(says="x", better={"schedule": ["cosine"]}, than={"schedule": ["fixed"]}, **changes)


@pytest.mark.parametrize(
    ("good", "bad", "verdict"),
    [
        ([0.90, 0.91, 0.92], [0.80, 0.81, 0.82], "held"),
        ([0.80, 0.81, 0.82], [0.90, 0.91, 0.92], "did not hold"),
        ([0.80, 0.85, 0.90], [0.79, 0.84, 0.89], "is not clear"),
        ([0.9], [], "is not clear"),
    ],
)
def test_verdicts(good, bad, verdict):
    assert judge(make_spec(), claim(), records(good, bad)).verdict == verdict


def test_where_lower_is_better():
    spec = make_spec("objective.metric=val_loss", "objective.mode=min")
    assert judge(spec, claim(), records([0.1, 0.2], [0.8, 0.9])).verdict == "held"
    lower = claim(metric="zeros", direction="lower")
    assert judge(make_spec(), lower, records([0.1, 0.2], [0.8, 0.9])).verdict == "held"


def test_failed_trials_say_nothing():
    assert judge(make_spec(), claim(), records([0.9], [0.1], State.FAILED)).better == ()


def test_the_line():
    text = judge(make_spec(), claim(), records([0.9, 0.92], [0.8])).text()
    assert text == (
        "the claim held here: val_accuracy 0.9100 (0.9000 to 0.9200, n = 2) against 0.8000 (0.8000 to 0.8000, n = 1)"
    )
