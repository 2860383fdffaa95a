"""The curves of the learning-rate range tests as a standalone SVG file, which has its own colours and size."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup

from dialin.charts.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, x_axis, y_axis
from dialin.charts.svg import Scale, points, scale_over, tag
from dialin.specification.range_tests import Calibration, Curve, RateBounds

COLUMNS = 3
HEAD = 44  # height above each chart, for the combination, its rate and its bounds
SEED_COLOURS = ("#2f6fde", "#d9730d", "#2e8b57", "#8a4fc7", "#c2385a", "#0f8b8d")
# MLflow and image viewers show the file without the page's style sheet.
STYLE = f"""
svg {{ background: #fff; }}
text {{ font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: #5b6270; }}
.name {{ font-size: 13px; font-weight: 600; fill: #1d2330; }}
.axis-title {{ font-weight: 600; }}
.grid {{ stroke: #e4e7ec; }} .baseline {{ stroke: #9aa3b2; }}
.bounds {{ fill: #2e8b57; opacity: 0.14; }} .bounds.unsure {{ fill: #d9730d; }}
.curve {{ fill: none; stroke-width: 1.5; stroke-linejoin: round; }}
.diverged {{ stroke: #9aa3b2; stroke-dasharray: 2 4; }}
.rate {{ stroke: #1f6b41; stroke-width: 1.5; }} .rate.unsure {{ stroke: #a34f00; }}
{"".join(f".seed{index} {{ stroke: {colour}; }} " for index, colour in enumerate(SEED_COLOURS))}
"""


def write_range_tests(calibration: Calibration, path: Path) -> None:
    """Write the chart of `draw_range_tests` to a file, and create the file's folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{draw_range_tests(calibration)}\n", encoding="utf-8")


def draw_range_tests(calibration: Calibration) -> Markup:
    """Return charts of accuracy over the learning rate: one for each combination of knobs, with a curve for each seed.

    The band is the range of learning rates that is searched, and the line in its middle the rate that the search starts
    from; both are orange where the test gave no reading with high confidence. A dotted line marks the rate at which the
    training diverged.
    """
    columns = min(COLUMNS, len(calibration.bounds))
    rows = -(-len(calibration.bounds) // COLUMNS)
    charts = [_chart(tested, index) for index, tested in enumerate(calibration.bounds)]
    width, height = columns * WIDTH, rows * (HEIGHT + HEAD)
    return tag(
        "svg",
        tag("title", "Range tests of the learning rate"),
        tag("style", Markup(STYLE)),
        *charts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
    )


def _chart(tested: RateBounds, index: int) -> Markup:
    rates = [rate for curve in tested.curves for rate in curve.rates]
    across = scale_over([*rates, tested.low, tested.high], LEFT, RIGHT, log=True, room=0.01, whole=True)
    up = Scale(0.0, 1.0, BOTTOM, TOP)
    name = ", ".join(f"{knob} {value}" for knob, value in tested.combination.items()) or "all configurations"
    found, unsure = _found_text(tested), "" if _is_confident(tested) else " unsure"
    left, right = across(tested.low), across(tested.high)
    return tag(
        "g",
        tag("text", name, class_="name", x=6, y=20),
        tag("text", found, x=6, y=36),
        tag(
            "g",
            tag("rect", tag("title", found), class_=f"bounds{unsure}", x=left, y=TOP, width=right - left,
                height=BOTTOM - TOP),
            y_axis(up, "accuracy on held-out images"),
            x_axis(across, "learning rate"),
            *_rate(tested, f"rate{unsure}", across),
            *(mark for seed, curve in enumerate(tested.curves) for mark in _curve(curve, seed, across, up)),
            transform=f"translate(0 {HEAD})",
        ),
        transform=f"translate({index % COLUMNS * WIDTH} {index // COLUMNS * (HEIGHT + HEAD)})",
    )  # fmt: skip


def _found_text(tested: RateBounds) -> str:
    """What the test found: the rate, or only bounds, and how far it is to be trusted."""
    label = "bounds" if tested.rate is None else "rate"
    return f"{label}: {tested.text()}{'' if _is_confident(tested) else ' (low confidence)'}"


def _is_confident(tested: RateBounds) -> bool:
    return tested.reading is not None and tested.reading.confident


def _rate(tested: RateBounds, kind: str, across: Scale) -> list[Markup]:
    if tested.rate is None:
        return []
    x = across(tested.rate)
    return [tag("line", tag("title", f"rate: {tested.text()}"), class_=kind, x1=x, x2=x, y1=TOP, y2=BOTTOM)]


def _curve(curve: Curve, seed: int, across: Scale, up: Scale) -> list[Markup]:
    path = [(across(rate), up(accuracy)) for rate, accuracy in zip(curve.rates, curve.accuracies, strict=True)]
    about = tag("title", f"run {seed + 1} of this combination")
    marks = [tag("polyline", about, class_=f"curve seed{seed % len(SEED_COLOURS)}", points=points(path))]
    if curve.diverged_at is not None:
        x = across(curve.diverged_at)
        about = tag("title", f"run {seed + 1} diverged at {curve.diverged_at:.2g}")
        marks.append(tag("line", about, class_="diverged", x1=x, x2=x, y1=TOP, y2=BOTTOM))
    return marks
