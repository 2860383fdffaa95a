"""How the best value, and the hypervolume of several metrics, grow by the event log."""

from __future__ import annotations

import math
import random

import pytest

from dialin.events.best_value_curve import (
    MOST_POINTS,
    MOST_VOLUMES,
    BestValueCurve,
    HypervolumeCurve,
    curve_of,
)
from dialin.events.log import EventLog
from dialin.events.types import EpochReported
from dialin.search.goals import Goals
from dialin.specification.metrics import BoundSpec, Metric

TWO = (Metric("accuracy", "max"), Metric("size", "min"))
LIMIT = {"size": BoundSpec(max=100.0)}


def report(trial, epoch, accuracy, size=1.0, time=0):
    metrics = {"accuracy": accuracy, "size": size, "other": 3.0}
    value = accuracy if all(map(math.isfinite, (accuracy, size))) else None
    return EpochReported(trial, epoch, metrics, value, time)


def shown(tmp_path, goals, *events):
    with EventLog(tmp_path) as log:
        log.append(*events)
    return curve_of(goals).read_on(tmp_path).shown()


@pytest.mark.parametrize(
    ("count", "kind"), [(1, BestValueCurve), (2, HypervolumeCurve), (3, HypervolumeCurve), (4, BestValueCurve)]
)
def test_the_number_of_metrics_decides_what_the_curve_shows(count, kind):
    assert type(curve_of(Goals(tuple(Metric(str(n), "max") for n in range(count)), {}))) is kind


def test_a_report_that_violates_a_constraint_is_never_the_best(tmp_path):
    curve = shown(
        tmp_path,
        Goals(TWO[:1], LIMIT),
        report(0, 1, 0.9, size=101.0),
        report(1, 1, 0.5, size=99.0),
        report(2, 1, 0.7, size=math.nan),
        report(3, 1, 0.6, size=100.0),
    )
    assert (curve.metric, curve.mode, curve.reference) == ("accuracy", "max", None)
    assert [(point.trial, point.best, point.epochs_total) for point in curve.points] == [(1, 0.5, 2), (3, 0.6, 4)]


def test_the_hypervolume_is_the_dominated_share_of_the_box_up_to_the_reference(tmp_path):
    curve = shown(
        tmp_path,
        Goals(TWO, LIMIT),
        report(0, 1, 0.50, size=20.0),
        report(1, 1, 0.40, size=30.0),  # dominated
        report(2, 1, 0.90, size=200.0),  # violates the constraint
        report(3, 1, 0.60, size=70.0),
        report(3, 2, 0.55, size=10.0),  # worse than its trial's own best epoch: not the trial's point
        report(4, 1, 0.20, size=5.0, time=9000),
    )
    assert (curve.metric, curve.mode) == ("hypervolume", "max")
    # The front is (0.5, 20), (0.6, 70), (0.2, 5): its worst ends, and a tenth of its range beyond.
    reference = {"accuracy": 0.2 - 0.04, "size": 70 + 6.5}
    assert curve.reference == pytest.approx(reference)
    box = (0.6 - reference["accuracy"]) * (reference["size"] - 5)

    def volume(*points):  # from the best accuracy to the worst
        edges = [*(accuracy for accuracy, _ in points[1:]), reference["accuracy"]]
        return sum((a - edge) * (reference["size"] - s) for (a, s), edge in zip(points, edges, strict=True)) / box

    expected = [
        (0, volume((0.5, 20))),
        (3, volume((0.6, 70), (0.5, 20))),
        (4, volume((0.6, 70), (0.5, 20), (0.2, 5))),
    ]
    assert [(point.trial, point.best) for point in curve.points] == [
        (trial, pytest.approx(share, abs=1e-5)) for trial, share in expected
    ]
    assert curve.points[-1].seconds == 9.0


def test_the_volume_never_shrinks_and_of_thousands_of_improvements_some_are_shown(tmp_path):
    draw = random.Random(0)
    # Each report lies on a front of its own, beyond those before.
    events = [
        report(number, 1, share + number / 1e5, 100 * share - number / 1e5)
        for number in range(MOST_POINTS + 300)
        for share in [draw.random()]
    ]
    curve = shown(tmp_path, Goals(TWO, {}), *events)
    volumes = [point.best for point in curve.points]
    assert volumes == sorted(volumes)
    assert 0 < volumes[0] < volumes[-1] <= 1
    assert MOST_VOLUMES / 2 < len(volumes) <= MOST_VOLUMES + 2
    assert curve.left_out > 0


def test_without_a_report_that_counts_there_are_no_points(tmp_path):
    assert shown(tmp_path, Goals(TWO, LIMIT), report(0, 1, 0.9, size=1e6)).points == ()


def test_reading_on_is_the_same_as_reading_at_once(tmp_path):
    events = [report(n, 1, (n * 37 % 101) / 101, float(n * 53 % 89)) for n in range(100)]
    goals, curve = Goals(TWO, {}), curve_of(Goals(TWO, {}))
    with EventLog(tmp_path) as log:
        for event in events:
            log.append(event)
            curve.read_on(tmp_path)
    assert curve.shown() == curve_of(goals).read_on(tmp_path).shown()
