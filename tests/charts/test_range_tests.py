"""The chart of the range tests: a file by itself, with a curve a run and the bounds where they belong."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from dialin.charts.range_tests import draw_range_tests, write_range_tests
from dialin.specification.range_tests import Calibration, Curve, RateBounds, Reading

SVG = "{http://www.w3.org/2000/svg}"


def rate_bounds(combination, doubts=(), low=1e-3, high=0.1):
    rates = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    curves = (
        Curve(rates, (2.0,) * 5, (0.1, 0.2, 0.6, 0.9, 0.5)),
        Curve(rates[:4], (2.0,) * 4, (0.1, 0.2, 0.7, 0.8), diverged_at=0.2),
    )
    return RateBounds(combination, low, high, Reading(low, high, high, None, None, None, low, high, doubts), curves)


def rate_about(rate, doubts=()):
    old = rate_bounds({"optimizer": "sgd"}, doubts, rate / 10, rate * 10)
    return replace(old, rate=rate, reading=replace(old.reading, rate=rate))


def of_class(tree, name):
    return [element for element in tree.iter() if name in (element.get("class") or "").split()]


def test_each_combination_has_a_chart_with_a_curve_a_run_and_its_bounds():
    calibration = Calibration(
        (rate_bounds({"optimizer": "sgd"}), rate_bounds({"optimizer": "<b>"}, doubts=("noisy",))), 3.0
    )
    tree = ET.fromstring(str(draw_range_tests(calibration)))
    assert tree.tag == f"{SVG}svg"
    assert (tree.get("width"), tree.get("height")) == ("920", "324")
    assert [name.text for name in of_class(tree, "name")] == ["optimizer sgd", "optimizer <b>"]
    assert [len(of_class(tree, kind)) for kind in ("curve", "diverged", "bounds", "unsure")] == [4, 2, 2, 1]
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert "bounds: 0.001 to 0.1" in texts
    assert "bounds: 0.001 to 0.1 (low confidence)" in texts


def test_the_bounds_lie_on_the_axis_where_the_curve_has_them():
    tree = ET.fromstring(str(draw_range_tests(Calibration((rate_bounds({}),), 3.0))))
    (band,) = of_class(tree, "bounds")
    rates = [float(pair.partition(",")[0]) for pair in of_class(tree, "seed0")[0].get("points").split()]
    assert float(band.get("x")) == pytest.approx(rates[1])
    assert float(band.get("x")) + float(band.get("width")) == pytest.approx(rates[3])


def test_a_line_marks_the_rate_in_the_middle_of_its_band():
    tree = ET.fromstring(str(draw_range_tests(Calibration((rate_about(0.01), rate_about(0.02, ("noisy",))), 3.0))))
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert "rate: 0.01 (searched from 0.001 to 0.1)" in texts
    assert "rate: 0.02 (searched from 0.002 to 0.2) (low confidence)" in texts
    for line, band, is_unsure in zip(of_class(tree, "rate"), of_class(tree, "bounds"), (False, True), strict=True):
        assert float(line.get("x1")) == pytest.approx(float(band.get("x")) + float(band.get("width")) / 2, abs=0.02)
        assert ("unsure" in line.get("class")) is is_unsure


def test_what_an_older_version_stored_has_no_such_line():
    tree = ET.fromstring(str(draw_range_tests(Calibration((rate_bounds({}),), 3.0))))
    assert not of_class(tree, "rate")


def test_many_combinations_stand_in_rows(tmp_path):
    file = tmp_path / "new" / "range_tests.svg"
    write_range_tests(Calibration(tuple(rate_bounds({"width": width}) for width in range(1, 8)), 3.0), file)
    tree = ET.parse(file).getroot()
    assert (tree.get("width"), tree.get("height")) == ("1380", "972")
