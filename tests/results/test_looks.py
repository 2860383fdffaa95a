from __future__ import annotations

import pytest

from dialin.results.looks import Look, count_text, look_at, looks_of

FIRST, SECOND = Look(11, {"accuracy": 0.967, "loss": 0.2}), Look(30, {"accuracy": 0.97, "loss": 0.1})


@pytest.mark.parametrize(
    ("summary", "looks"),
    [
        ({}, ()),
        ({"test": None, "best": {"trial": 3}}, ()),
        ({"test": {"accuracy": 0.9}, "best": {"trial": 3}}, (Look(3, {"accuracy": 0.9}),)),
        ({"test": {"accuracy": 0.9}, "best": None}, ()),
        ({"test": {"accuracy": 0.9}, "test_looks": [FIRST.to_data(), SECOND.to_data()]}, (FIRST, SECOND)),
        ({"test": None, "best": {"trial": 3}, "test_looks": []}, ()),
    ],
    ids=["none", "not tested", "older", "older, of an unknown trial", "two", "not tested yet"],
)
def test_the_looks_of_a_summary(summary, looks):
    assert looks_of(summary) == looks


def test_the_look_at_a_trial():
    assert look_at([FIRST, SECOND], 30) is SECOND
    assert look_at([FIRST], 30) is None
    assert look_at([FIRST], None) is None


def test_the_count_in_words():
    assert count_text([FIRST], 11) == "the only look"
    assert count_text([FIRST, SECOND], 30) == "look 2; look 1 was 0.967 for trial 11"
    assert count_text([FIRST, SECOND], 11) == "look 1; look 2 was 0.97 for trial 30"
    assert count_text([Look(1, {"score": 2.0}), SECOND], 30) == "look 2; look 1 was 2 (score) for trial 1"
