"""The points, the rate, the bounds and the doubts that are read off curves of a range test, on curves made by hand."""

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
    assert reading.rate == pytest.approx(math.sqrt(reading.rises * reading.falls))
    assert reading.confident


def of_losses(losses, diverged_at=None):
    rates = RATES[: len(losses)]
    return Curve(rates, tuple(losses), (0.1,) * len(losses), diverged_at)


@pytest.mark.parametrize(
    ("curves", "rate"),
    [
        ([made()], 1e-1 / 3),
        ([made(noise=0.02)], 1e-1 / 3),
        ([made(rises=-5.0, peak=-2.0, falls=-1.0)], 1e-2 / 3),
        ([made(peak=-1.2), made(peak=-0.8)], 1e-1 / 3),
        ([made(falls=2.0, diverges=0.2)], 1e-1 / 3),
        # The loss still falls where training diverges: the highest rate that was trained is the lowest loss.
        ([made(peak=0.5, falls=2.0, diverges=-0.5)], 10**-0.55 / 3),
        # A seed whose loss did not fall has no say.
        ([made(), of_losses([2.3] * 141)], 1e-1 / 3),
    ],
)
def test_the_rate_is_a_third_of_that_of_the_lowest_loss(curves, rate):
    reading = read_curves(curves, "third")
    assert math.log10(reading.rate) == pytest.approx(math.log10(rate), abs=0.11)
    assert reading.rate == pytest.approx(reading.loss_minimum / 3)
    assert (reading.low, reading.high) == (pytest.approx(reading.rate / 10), pytest.approx(reading.rate * 10))
    assert reading.confident, reading.doubts


@pytest.mark.parametrize(
    ("minimum", "default", "rate"), [(-1.0, 0.1, 0.1), (-1.0, 1e-3, 10**-1.8), (-3.0, 0.1, 10**-2.2)]
)
def test_the_method_minimum_weighs_the_lowest_loss_and_the_default(minimum, default, rate):
    curve = made(rises=minimum - 2, peak=minimum, falls=minimum + 1)
    reading = read_curves([curve], "minimum", default)
    assert math.log10(reading.rate) == pytest.approx(math.log10(rate), abs=0.04)
    assert math.sqrt(reading.low * reading.high) == pytest.approx(reading.rate)
    assert reading.high == pytest.approx(reading.rate * 10)
    assert reading.confident


@pytest.mark.parametrize("method", ["third", "minimum"])
@pytest.mark.parametrize(
    ("curves", "doubt"),
    [
        ([of_losses([2.3] * 141)], "the loss did not fall: it is lowest within the first quarter of the rates"),
        ([of_losses([2.3 + index / 1e3 for index in range(141)])], "the loss did not fall: it is lowest within the"),
        ([made(peak=2.0, falls=3.0)], "the loss still fell at the highest rate"),
        ([made(), made(peak=-2.2)], "seeds disagree by 1.2 decades on where the loss is lowest"),
    ],
)
def test_doubts_about_the_lowest_loss(curves, doubt, method):
    reading = read_curves(curves, method, 0.1)
    assert not reading.confident
    assert any(text.startswith(doubt) for text in reading.doubts), reading.doubts


def test_without_a_fall_of_the_loss_there_is_no_rate():
    reading = read_curves([of_losses([2.3] * 141), of_losses([2.3] * 30, 1e-4)], "minimum", 0.1)
    assert (reading.rate, reading.low, reading.high, reading.loss_minimum) == (None, None, None, None)
    assert reading.diverges == pytest.approx(1e-4)


def test_three_points_are_enough():
    reading = read_curves([of_losses([2.3, 2.2, 2.1], 1e-5), of_losses([2.3], 2e-6)], "third")
    assert reading.rate == pytest.approx(RATES[2] / 3)
    assert reading.confident


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
