"""ASHA's arithmetic: a table by hand, numpy for the quantile, and Ray's own scheduler for the decisions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dialin.planning.plan import rungs_of
from dialin.search.asha import Asha, percentile

VALUES = st.one_of(st.floats(-1e6, 1e6), st.sampled_from([0.0, 0.5, 1.0]))  # the latter make ties


@pytest.mark.parametrize(
    ("recorded", "value", "stop"),
    [
        ([], 0.1, False),  # the first at a rung always goes on
        ([0.5], 0.5, False),  # a tie with the cutoff goes on
        ([0.5], 0.4, True),
        ([0.1, 0.2, 0.3, 0.4], 0.29, True),  # cutoff 0.3
        ([0.1, 0.2, 0.3, 0.4], 0.31, False),
    ],
)
def test_judges_against_the_top_third(recorded, value, stop):
    asha = Asha([2], reduction_factor=3, maximize=True)
    for other in recorded:
        asha.record(2, other)
    assert asha.judge(2, value).stop is stop


def test_minimizing_is_the_mirror_image():
    asha = Asha([1], reduction_factor=2, maximize=False)
    for other in (1.0, 2.0, 3.0):
        asha.record(1, other)
    assert asha.judge(1, 2.5).stop
    assert not asha.judge(1, 1.5).stop
    assert asha.judge(1, 2.5).cutoff == 2.0
    assert asha.values_at(1) == (3.0, 2.0, 1.0)


@pytest.mark.parametrize(
    ("before", "epoch", "rung"), [(0, 1, 1), (1, 2, None), (0, 2, 1), (2, 9, 9), (0, 100, 9), (9, 10, None)]
)
def test_reached(before, epoch, rung):
    assert Asha([1, 3, 9], 3, True).reached(before, epoch) == rung


def test_a_recorded_value_is_not_compared_with_itself():
    asha = Asha([1], 2, True)
    asha.record(1, 0.5)
    assert asha.judge(1, 0.5, recorded=True).cutoff is None
    asha.record(1, 0.9)
    assert asha.judge(1, 0.5, recorded=True).stop


def test_replay_leaves_out_what_diverged():
    asha = Asha([1, 3], 2, True)
    asha.replay({1: 0.4, 2: 0.5, 3: math.nan})
    assert asha.values_at(1) == (0.4,)
    assert asha.values_at(3) == ()


@given(st.lists(VALUES, min_size=1), st.floats(0, 1))
def test_percentile_is_numpys(values, fraction):
    ours = percentile(sorted(values), fraction)
    assert ours == pytest.approx(np.percentile(values, fraction * 100), rel=1e-9, abs=1e-9)


@st.composite
def report_streams(draw):
    """Interleaved reports of some trials, each epoch by epoch from 1."""
    epochs = draw(st.integers(2, 30))
    grace = draw(st.integers(1, epochs))
    factor = draw(st.sampled_from([2, 3, 4]))
    lengths = draw(st.lists(st.integers(1, epochs), min_size=1, max_size=12))
    order = draw(st.permutations([trial for trial, length in enumerate(lengths) for _ in range(length)]))
    values = draw(st.lists(VALUES, min_size=len(order), max_size=len(order)))
    return epochs, grace, factor, draw(st.sampled_from(["max", "min"])), list(zip(order, values, strict=True))


class _RayTrial:
    def __init__(self, number):
        self.trial_id = str(number)


@pytest.fixture(scope="module")
def ray_asha():
    from ray.tune.schedulers import AsyncHyperBandScheduler

    return AsyncHyperBandScheduler


@settings(max_examples=300, deadline=None)
@given(report_streams())
def test_decides_as_rays_own_scheduler(ray_asha, stream):
    """Same streams, same stops. A stopped trial reports no more; neither compares at the full length."""
    epochs, grace, factor, mode, reports = stream
    theirs = ray_asha(
        time_attr="epoch", metric="value", mode=mode, max_t=epochs, grace_period=grace, reduction_factor=factor
    )
    ours = Asha(rungs_of(epochs, grace, factor), factor, mode == "max")
    trials, seen, stopped = {}, {}, set()
    for number, value in reports:
        if number in stopped:
            continue
        if number not in trials:
            trials[number] = _RayTrial(number)
            theirs.on_trial_add(None, trials[number])
        seen[number] = epoch = seen.get(number, 0) + 1
        expected = theirs.on_trial_result(None, trials[number], {"epoch": epoch, "value": value}) == "STOP"
        assert _step(ours, epoch, epochs, value) is expected
        if expected:
            stopped.add(number)


def _step(asha, epoch, epochs, value):
    if epoch >= epochs:
        return True
    rung = asha.reached(epoch - 1, epoch)
    if rung is None:
        return False
    stop = asha.judge(rung, value).stop
    asha.record(rung, value)
    return stop
