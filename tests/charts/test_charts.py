"""The charts, as what they say and where they put it."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET

import pytest

from dialin.charts import charts
from dialin.charts.svg import Scale, scale_over, tag, tick_text
from dialin.charts.words import ago, duration, why_ended
from dialin.search.decision import Decision
from dialin.specification import parse_spec
from dialin.specification.domains import FloatRange
from dialin.texts import metric_text

SPEC = parse_spec("""
name: s
objective: {dataset: synthetic}
space: {lr: {min: 1e-4, max: 1e-1, log: true}, optimizer: [sgd, adam]}
""")


def trial(number, values, state="complete", **params):
    best = max((value for value in values if value is not None), default=None)
    return {
        "trial": number,
        "state": state,
        "reason": "r",
        "decision": Decision("complete", "all_epochs", len(values)).to_data(),
        "value": best,
        "epochs": len(values),
        "values": {str(epoch): value for epoch, value in enumerate(values, 1)},
        "params": {"lr": 0.01, "optimizer": "sgd", **params},
    }


def read(markup):
    """The chart as a tree: it is well-formed, whatever is in it."""
    return ET.fromstring(str(markup).replace("&nbsp;", " "))


def classes(tree):
    return [element.get("class") or "" for element in tree.iter()]


def test_learning_curves_show_stopped_trials_and_rungs():
    trials = [trial(0, [0.1, 0.2, 0.3]), trial(1, [0.05], "stopped"), trial(2, [0.2, None], "running")]
    tree = read(charts.learning_curves(trials, "accuracy", rungs=[1, 3], epochs=9, best=0, mode="max"))
    found = classes(tree)
    assert found.count("rung") == 2
    assert "trial complete is-best" in found
    assert "trial stopped" in found
    titles = [element.text for element in tree.iter() if element.tag == "title"]
    assert any("trial 1" in title for title in titles)


def test_the_best_curve_only_rises():
    points = [
        {"trial": n, "epoch": 1, "epochs_total": n + 1, "trials_total": n + 1, "seconds": 1.0, "value": v, "best": v}
        for n, v in enumerate([0.1, 0.4, 0.9])
    ]
    tree = read(charts.best_curve({"metric": "accuracy", "mode": "max", "points": points}))
    (line,) = [element for element in tree.iter() if element.get("class") == "best"]
    heights = [float(pair.split(",")[1]) for pair in line.get("points").split()]
    assert heights == sorted(heights, reverse=True)  # SVG counts downwards
    assert "improved 2 times to 0.9" in "".join(tree.itertext())


@pytest.mark.parametrize("name", ["lr", "optimizer"])
def test_a_knob_against_the_value(name):
    knob = charts.Knob(name, SPEC.space[name])
    trials = [trial(n, [0.1 * n], lr=10.0 ** -(n + 1), optimizer=("sgd", "adam")[n % 2]) for n in range(3)]
    tree = read(charts.knob_values(trials, knob, "accuracy", best=2))
    dots = [element for element in tree.iter() if element.tag == "circle"]
    assert len(dots) == 3


def test_nothing_reported_says_so():
    for chart in (
        charts.best_curve({"metric": "m", "mode": "max", "points": []}),
        charts.learning_curves([], "m", rungs=[], epochs=3, best=None, mode="max"),
    ):
        assert "yet" in "".join(read(chart).itertext())


def test_what_is_shown_is_text_and_never_markup():
    evil = "<script>alert(1)</script>"
    tree = read(charts.learning_curves([trial(0, [0.1, 0.2])], evil, rungs=[], epochs=3, best=0, mode="max"))
    assert "script" not in {element.tag for element in tree.iter()}
    assert str(tag("text", evil, title=evil)).count("<") == 2


def test_many_trials_are_thinned_to_the_telling_ones():
    trials = [trial(n, [n / 1000, n / 999]) for n in range(1000)]
    markup = charts.learning_curves(trials, "m", rungs=[], epochs=3, best=999, mode="max")
    assert f"{charts.MOST_CURVES} of 1000 trials" in markup
    assert "trial complete is-best" in classes(read(markup))


@pytest.mark.parametrize("values", [[0.0], [1e-9, 1e9], [5.0, 5.0], [-3.0, 7.0]])
def test_a_scale_puts_its_values_inside(values):
    scale = scale_over(values, 200, 0, log=None)
    assert all(-1e-6 <= scale(value) <= 200 + 1e-6 for value in values)


def test_words():
    assert duration(None) == ""
    assert duration(61) == "1 min 1 s"
    assert metric_text(None) == ""
    assert re.match("just now|0 s ago", ago(100.0, 100.5))
    assert tick_text(0.001) == "0.001"


def test_trials_that_ended_alike_are_counted_together():
    decisions = [
        Decision("stop", "rung_rank", 3, "m", 0.1, rung=3, rank=4, of=6, quota=2),
        Decision("stop", "rung_rank", 3, "m", 0.2, rung=3, rank=5, of=9, quota=3),
        Decision("fail", "exception", detail="ValueError: 3 is odd"),
        Decision("fail", "exception", detail="ValueError: 5 is odd"),
        Decision("diverge", "not_finite", 2, "m", math.nan),
    ]
    ended = [{"state": decision.state, "decision": decision.to_data()} for decision in decisions]
    assert why_ended([*ended, {"state": "running", "decision": None}]) == [
        ("stopped", "not among the best at rung 3", 2),
        ("failed", "ValueError: # is odd", 2),
        ("diverged", "m was nan", 1),
    ]


def test_outliers_on_a_logarithmic_axis_have_places_of_their_own():
    """They were measured on a linear axis, where the better part of the powers of ten is far away."""
    rates = [0.001 * 1.05**n for n in range(90)]
    trials = [trial(n, [0.5], lr=rate) for n, rate in enumerate([*rates, 0.0557, 0.1627, 0.2014, 2.734])]
    knob = charts.Knob("lr", FloatRange(1e-4, 10.0, log=True))
    tree = read(charts.knob_values(trials, knob, "accuracy", None))
    across = [float(element.get("cx")) for element in tree.iter() if (element.get("class") or "").startswith("dot")]
    assert len(set(across)) == len(trials)
    assert scale_over([*rates, 0.2014, 2.734], 0, 100, log=True)(0.2014) < 100


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (9e-5, 5.0, [1e-4, 1e-3, 1e-2, 0.1, 1.0]),  # not each 1, 2 and 5, which stand on top of one another
        (1e-9, 1.5, [1e-9, 1e-7, 1e-5, 1e-3, 0.1]),
        (2.0, 60.0, [2.0, 5.0, 10.0, 20.0, 50.0]),
    ],
)
def test_a_logarithmic_axis_has_about_as_many_labels_as_are_wanted(low, high, ticks):
    assert Scale(low, high, 0, 100, log=True).ticks(5) == pytest.approx(ticks)


@pytest.mark.parametrize(("mode", "values"), [("max", [0.1, 0.5, 0.96, 0.99]), ("min", [0.9, 0.5, 0.04, 0.01])])
def test_a_zoomed_axis_tells_the_best_values_apart(mode, values):
    trials = [trial(n, [values[0], value]) for n, value in enumerate(values * 4)]
    for one in trials:
        one["value"] = (max if mode == "max" else min)(one["values"].values())

    def apart(zoom):
        tree = read(charts.knob_values(trials, charts.Knob("lr", FloatRange(1e-4, 0.1)), "m", 3, mode=mode, zoom=zoom))
        up = {e.get("data-key"): float(e.get("cy")) for e in tree.iter() if (e.get("class") or "").startswith("dot")}
        return abs(up["t2"] - up["t3"])

    height = charts.BOTTOM - charts.TOP
    assert apart(False) < height / 10
    assert apart(True) > height / 2
    curves = charts.learning_curves(trials, "m", rungs=(), epochs=2, best=3, mode=mode, zoom=True)
    assert "the value axis covers the best quarter of the values" in curves


def test_many_rungs_are_thinned():
    tree = read(charts.learning_curves([trial(0, [0.1])], "m", rungs=range(1, 1001), epochs=1001, best=0, mode="max"))
    assert classes(tree).count("rung") == charts.MOST_RUNGS
    about = next(element.text for element in tree.iter() if element.tag == "desc")
    assert f"({charts.MOST_RUNGS} of 1000 rungs)" in about
