"""The Pareto plots, as what they say and where they put it."""

from __future__ import annotations

import itertools
import random
import xml.etree.ElementTree as ET

import pytest

from dialin.charts.frame import BOTTOM, LEFT, RIGHT, TOP
from dialin.charts.pareto import (
    MOST_DOTS,
    Mark,
    MetricAxis,
    draw_pareto,
    legend,
    pairs,
    pareto_charts,
    write_pareto_chart,
)

ERROR, SIZE = MetricAxis("error", "min"), MetricAxis("parameters", "min")
ACCURACY, SECONDS = MetricAxis("accuracy", "max"), MetricAxis("epoch_seconds", "min", "s")
MARKS = [
    Mark(0, "complete", {"error": 0.10, "parameters": 300.0}, "front"),
    Mark(1, "complete", {"error": 0.20, "parameters": 100.0}, "front"),
    Mark(2, "stopped", {"error": 0.30, "parameters": 400.0}, "dominated"),
    Mark(3, "complete", {"error": 0.05, "parameters": 900.0}, "infeasible"),
]


def read(markup):
    return ET.fromstring(str(markup))


def of_class(tree, name):
    return [element for element in tree.iter() if element.get("class") == name]


def corners(element):
    return [tuple(map(float, pair.split(","))) for pair in element.get("points").split()]


def middle(element):
    found = corners(element)
    return sum(x for x, _ in found) / len(found), sum(y for _, y in found) / len(found)


def test_each_kind_of_trial_has_a_shape_of_its_own_and_says_what_it_is():
    (tree,) = map(read, pareto_charts(MARKS, [ERROR, SIZE]))
    shapes = {kind: [element.tag for element in of_class(tree, kind)] for kind in ("front", "dominated", "infeasible")}
    assert shapes == {"front": ["polygon", "polygon"], "dominated": ["circle"], "infeasible": ["path"]}
    (cross,) = of_class(tree, "infeasible")
    assert cross.find("title").text == "trial 3: complete, error 0.0500, parameters 900, violates a constraint"
    assert tree.get("role") == "img"
    about = tree.find("desc").text
    assert "2 on the Pareto front, 1 not on the front, 1 violates a constraint" in about
    assert "error 0.1000 (trial 0) and parameters 100 (trial 1)" in about
    assert {element.text for element in of_class(tree, "axis-title")} == {
        "error, lower is better",
        "parameters, lower is better",
    }


@pytest.mark.parametrize(("up", "across"), [("max", "min"), ("max", "max"), ("min", "min"), ("min", "max")])
def test_the_staircase_goes_through_the_front_and_bounds_what_it_dominates(up, across):
    signs = {"max": -1, "min": 1}
    points = [(1.0, 9.0), (2.0, 5.0), (4.0, 2.0), (8.0, 1.0)]  # a front of two losses
    marks = [
        Mark(number, "complete", {"a": signs[up] * a, "b": signs[across] * b}, "front")
        for number, (a, b) in enumerate(points)
    ]
    (tree,) = map(read, pareto_charts(marks, [MetricAxis("a", up), MetricAxis("b", across)]))
    (line,) = of_class(tree, "staircase")
    path = corners(line)
    assert {tuple(round(each, 1) for each in middle(mark)) for mark in of_class(tree, "front")} <= {
        tuple(round(each, 1) for each in corner) for corner in path
    }
    for before, after in itertools.pairwise(path):  # it turns at right angles only
        assert before[0] == after[0] or before[1] == after[1]
    worst_x = RIGHT if across == "min" else LEFT + 4
    worst_y = TOP if up == "min" else BOTTOM
    assert path[0][1] == worst_y
    assert path[-1][0] == worst_x
    # A point of the front lies at the corner of the area that is nearest to the ideal: no corner of the line is better
    # than every point of the front in both directions.
    to_better = (-1 if across == "min" else 1, 1 if up == "min" else -1)
    for x, y in path:
        assert any(
            (mx - x) * to_better[0] >= -0.05 and (my - y) * to_better[1] >= -0.05
            for mx, my in map(middle, of_class(tree, "front"))
        )


def test_three_metrics_have_a_plot_for_each_pair_and_the_line_is_the_pairs_own_front():
    marks = [
        Mark(0, "complete", {"accuracy": 0.9, "epoch_seconds": 2.0, "parameters": 50.0}, "front"),
        Mark(1, "complete", {"accuracy": 0.8, "epoch_seconds": 3.0, "parameters": 10.0}, "front"),
    ]
    axes = [ACCURACY, SECONDS, SIZE]
    trees = [read(drawn) for drawn in pareto_charts(marks, axes)]
    assert [tree.find("title").text for tree in trees] == [
        "accuracy against epoch_seconds",
        "accuracy against parameters",
        "epoch_seconds against parameters",
    ]
    assert len({element.get("id") for tree in trees for element in tree.iter() if element.get("id")}) == 6
    assert [len(of_class(tree, "front")) for tree in trees] == [2, 2, 2]
    # In accuracy and seconds trial 0 dominates trial 1, which is on the front for its size alone.
    assert [len(corners(of_class(tree, "staircase")[0])) for tree in trees] == [3, 5, 5]
    assert "epoch_seconds (s), lower is better" in {element.text for element in of_class(trees[0], "axis-title")}
    assert len(pairs([MetricAxis(str(number), "min") for number in range(6)])) == 5


def test_of_thousands_of_trials_some_are_drawn_and_the_front_always():
    draw = random.Random(0)
    marks = [
        Mark(number, "complete", {"error": 0.2 + draw.random(), "parameters": 1000 + draw.random()}, "dominated")
        for number in range(5000)
    ]
    for place in range(7, 5000, 500):
        marks[place] = Mark(place, "complete", {"error": 0.1 - place / 1e6, "parameters": 1.0 + place}, "front")
    (tree,) = map(read, pareto_charts(marks, [ERROR, SIZE]))
    assert len(of_class(tree, "front")) == 10
    assert MOST_DOTS * 0.8 < len(of_class(tree, "dominated")) <= MOST_DOTS
    assert "of 5000 trials are drawn" in tree.find("desc").text
    for mark in of_class(tree, "front"):  # the front is never clamped to the end of an axis
        x, y = middle(mark)
        assert LEFT + 4 < x < RIGHT
        assert TOP < y < BOTTOM


def test_without_values_the_plot_says_so():
    (tree,) = map(read, pareto_charts([Mark(0, "failed", {"error": float("nan")}, "dominated")], [ERROR, SIZE]))
    assert "no trial has values of both metrics yet" in "".join(tree.itertext())


def test_what_is_shown_is_text_and_never_markup():
    evil = "<script>alert(1)</script>"
    marks = [Mark(0, evil, {evil: 1.0, "parameters": 2.0}, "front")]
    (tree,) = map(read, pareto_charts(marks, [MetricAxis(evil, "min"), SIZE]))
    assert "script" not in {element.tag for element in tree.iter()}


def test_the_file_has_its_own_colours_for_light_and_dark_and_a_legend(tmp_path):
    path = tmp_path / "charts" / "pareto.svg"
    write_pareto_chart(MARKS, [ERROR, SIZE], path)
    tree = ET.parse(path).getroot()
    text = "".join(tree.itertext())
    assert "prefers-color-scheme: dark" in text
    assert "not on the front" in text
    assert "Pareto front of error and parameters" in text
    assert len(read(draw_pareto(MARKS, [ERROR, SIZE, ACCURACY])).findall("{http://www.w3.org/2000/svg}svg")) == 3
    assert len(read(legend()).findall("li")) == 3
