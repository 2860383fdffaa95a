"""The points, the bounds and the doubts that are read off curves of a range test, on curves made by hand."""

from __future__ import annotations

import math

import pytest

from dialin.planning.range_test_reading import read_curves
from dialin.specification.range_tests import Curve, Sweep

RATES = tuple(Sweep(1e-6, 10.0, 141).rates())  # twenty steps a decade


def made(rises=-3.0, peak=-1.0, falls=0.0, height=0.8, diverges=None, noise=0.0):
    """Accuracy 0.1, a climb from 10^rises to 10^peak, a plateau to 10^falls, then a fall over a decade."""
    rates, accuracies = [], []
    for index, rate in enumerate(RATES):
        if diverges is not None and math.log10(rate) >= diverges:
            break
        at = math.log10(rate)
        up = min(1.0, max(0.0, (at - rises) / (peak - rises)))
        down = min(1.0, max(0.0, at - falls))
        accuracies.append(0.1 + height * up * (1 - down) + noise * (-1) ** index)
        rates.append(rate)
    end = None if diverges is None else 10**diverges
    return Curve(tuple(rates), tuple(2.3 - 2 * a for a in accuracies), tuple(accuracies), end)


def test_the_points_of_a_clean_curve():
    reading = read_curves([made()], "knees")
    assert math.log10(reading.rises) == pytest.approx(-2.8, abs=0.06)  # a tenth of the climb
    assert math.log10(reading.peak) == pytest.approx(-1.0, abs=0.06)
    assert math.log10(reading.falls) == pytest.approx(0.1, abs=0.06)
    assert -3 < math.log10(reading.steepest) < -1
    assert reading.loss_minimum == reading.peak
    assert (reading.low, reading.high) == (reading.rises, reading.falls)
    assert reading.confident


def test_the_third_method():
    reading = read_curves([made()], "third")
    assert (reading.low, reading.high) == (pytest.approx(reading.peak / 3), reading.peak)


def test_divergence_bounds_what_never_falls():
    reading = read_curves([made(falls=2.0, diverges=0.2)], "knees")
    assert reading.falls is None
    assert reading.diverges == reading.high == pytest.approx(10**0.2)
    assert reading.confident


def test_seeds_are_averaged_on_the_log_scale():
    reading = read_curves([made(peak=-1.5), made(peak=-0.5)], "knees")
    assert math.log10(reading.peak) == pytest.approx(-1.0, abs=0.06)


def test_noise_before_the_climb_is_no_rise():
    assert math.log10(read_curves([made(noise=0.06)], "knees").rises) > -3.1


@pytest.mark.parametrize(
    ("curves", "doubt"),
    [
        ([made(height=0.03)], "the curve is flat: accuracy rose by 0.030 only"),
        ([made(falls=2.0)], "up to the highest rate accuracy did not fall and training did not diverge"),
        ([made(rises=-5.0), made(rises=-2.0)], "seeds disagree by 2."),
    ],
)
def test_doubts(curves, doubt):
    reading = read_curves(curves, "knees")
    assert not reading.confident
    assert any(text.startswith(doubt) for text in reading.doubts)


def test_without_a_curve_nothing_is_read():
    with pytest.raises(ValueError, match="training diverged within the first three steps for every seed"):
        read_curves([Curve((0.1,), (1.0,), (0.1,), 0.2)], "knees")
