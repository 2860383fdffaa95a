"""The logic of the benchmark of learning-rate rules: the peers' rules on curves made by hand, and the verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.benchmarks import peer_lr_rules as peers
from tests.benchmarks.lr_rules import as_good_as_the_best, first, judge, second, verdict

ACCURACIES = {"0.01": [0.80, 0.82], "0.022": [0.90, 0.90], "0.0484": [0.899, 0.899], "0.10648": [0.5, 0.5]}


def falling(rates, start=-4.0, end=-1.0):
    """2.3, then a straight fall by 1 over the logarithm of the rate, then a fast rise."""
    at = [math.log10(rate) for rate in rates]
    return [2.3 - min(1.0, max(0.0, (x - start) / (end - start))) + 200 * max(0.0, x - end) for x in at]


def test_the_rates_of_the_peers_tests():
    assert peers.fastai_rates()[0] == 1e-7
    assert peers.fastai_rates()[50] == pytest.approx(1e-3)
    assert peers.lightning_rates()[:2] == [1e-8, pytest.approx(1e-8 * 10**0.16)]


def test_the_rules_of_fastai():
    rates = peers.fastai_rates()
    found = peers.fastai_rules(falling(rates))
    smooth = np.array(peers._smoothed(falling(rates), 0.98, 0))
    lowest = rates[int(smooth.argmin())]
    assert 0.05 < lowest < 0.3
    assert found["fastai minimum/10"] == pytest.approx(lowest / 10)
    assert 1e-3 < found["fastai steep"] <= lowest
    assert 1e-4 < found["fastai valley"] < lowest
    assert 1e-7 < found["fastai slide"] < 10


def test_the_middle_of_the_longest_valley():
    # Nine falling values end at index 8; the start is one before the first of them, as fastai counts.
    losses = np.array([2.5, 2.6, 2.4, 2.3, 2.2, 2.1, 2.0, 1.9, 1.8, 5.0])
    assert peers._valley(np.arange(10.0), losses) == 0 + int(8 / 3) + int(8 / 6)


def test_the_rule_of_lightning_takes_the_slope_against_the_rate_itself():
    found = peers.lightning_rule(falling(peers.lightning_rates(), start=-6.0))
    assert 1e-7 < found < 1e-5  # the same fall is steeper where the rates lie closer


def test_a_test_that_ends_at_once_gives_no_suggestion():
    assert set(peers.fastai_rules([2.3, math.nan]).values()) == {None}
    assert peers.lightning_rule([2.3, math.nan]) is None


def test_the_rates_as_good_as_the_best():
    accuracies = {float(rate): values for rate, values in ACCURACIES.items()}
    assert as_good_as_the_best(accuracies) == [0.022, 0.0484]


@pytest.mark.parametrize(
    ("answer", "right", "lost"),
    [
        (0.022, True, 0.0),
        (0.14, True, 0.4),
        (0.15, False, 0.4),
        (0.0074, True, 0.09),
        (0.007, False, 0.09),
        (None, False, 0.4),
    ],
)
def test_an_answer_is_right_within_a_factor_of_three(answer, right, lost):
    found = verdict({"accuracies": ACCURACIES}, answer)
    assert found == (right, pytest.approx(lost))


def test_no_combination_is_both_developed_and_judged_on():
    made_on = [(dataset, dict(params)) for dataset, params in first() + second()]
    judged_on = [(dataset, dict(params)) for dataset, params in judge()]
    assert not [one for one in judged_on if one in made_on]
    assert len({str(one) for one in judged_on}) == 33
