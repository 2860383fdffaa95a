"""The trials of a study of several metrics as scatter plots of two metrics each, with the Pareto front as a staircase.

Pure functions. A trial's kind is told by the shape of its mark as well as by its colour: a diamond lies on the front, a
circle does not, a cross violates a constraint. For three metrics and more there is a plot for each pair of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dialin.charts.frame import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, chart, empty_chart, x_axis, y_axis
from dialin.charts.svg import Scale, points, scale_over, tag
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.texts import measure_text

MOST_DOTS = 400  # trials that are drawn apart from the front, which is drawn whole; a browser draws more too slowly
MOST_PAIRED = 4  # of more metrics, each is drawn against the first alone: every pair would be too many plots
LOG_RATIO = 30  # between the ends of an axis that is logarithmic: sizes and times are compared by factors
ROOM = 0.06  # of an axis beyond its outermost marks
KINDS = {"front": "on the Pareto front", "dominated": "not on the front", "infeasible": "violates a constraint"}
UNITS = {"epoch_seconds": "s", "memory": "MiB"}  # of what trials over a data set measure
COLUMNS, HEAD = 3, 30  # of the file: plots in a row, height above them for the legend
# MLflow and image viewers show the file without the page's style sheet.
STYLE = """
svg { --paper: #fff; --ink: #16202c; --soft: #566475; --line: #dde2e9; --base: #9aa6b4; --thin: #96a2b0;
  --front: #0b7d74; --broken: #a2560a; background: var(--paper); }
@media (prefers-color-scheme: dark) { svg { --paper: #182029; --ink: #e6ebf1; --soft: #9dabbb; --line: #2c3744;
  --base: #637284; --thin: #8593a3; --front: #45c9bc; --broken: #eda65a; } }
text { font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: var(--soft); }
.axis-title { font-weight: 600; } .grid { stroke: var(--line); } .baseline { stroke: var(--base); }
.staircase { fill: none; stroke: var(--front); stroke-width: 1.8; stroke-linejoin: round; }
.beyond { fill: var(--front); opacity: 0.07; }
.front { fill: var(--front); stroke: var(--paper); } .dominated { fill: var(--thin); stroke: var(--paper); }
.infeasible { fill: none; stroke: var(--broken); stroke-width: 1.6; }
"""


@dataclass(frozen=True)
class MetricAxis:
    """One of the metrics, as an axis."""

    name: str
    mode: str
    """"max" or "min"."""
    unit: str = ""
    """Such as s; empty for a plain number."""

    @property
    def title(self) -> str:
        """The title of the axis, which says which end is the better one."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.name}{unit}, {'higher' if self.mode == 'max' else 'lower'} is better"

    @property
    def sign(self) -> float:
        """What a value is multiplied by, so that a lower product is better."""
        return -1.0 if self.mode == "max" else 1.0


@dataclass(frozen=True)
class Mark:
    """A trial in the plot."""

    trial: int
    state: str
    values: Mapping[str, float]
    """The value of each metric, by name."""
    kind: str
    """One of KINDS."""


def axes_of(spec: StudySpec) -> list[MetricAxis]:
    """Return the metrics of a study as axes. The unit of a value that a person's own function reports is unknown."""
    units = {} if isinstance(spec.objective, PythonSpec) else UNITS
    return [MetricAxis(metric.name, metric.mode, units.get(metric.name, "")) for metric in spec.metrics]


def marks_of(trials: Iterable[Mapping[str, Any]], front: Collection[int]) -> list[Mark]:
    """Return the marks of the trials that have a value. `trials`: mappings with the fields of `schemas.Trial`; `front`:
    the numbers of those on the Pareto front."""
    return [
        Mark(trial["trial"], trial["state"], trial["metrics"], _kind(trial, front))
        for trial in trials
        if trial["metrics"] is not None
    ]


def _kind(trial: Mapping[str, Any], front: Collection[int]) -> str:
    return "front" if trial["trial"] in front else "infeasible" if trial["violated"] else "dominated"


def pareto_charts(marks: Sequence[Mark], axes: Sequence[MetricAxis]) -> list[Markup]:
    """Return a plot for each pair of metrics: the first of the pair up, the second across.

    A trial that lacks one of the two values is left out. Of more than MOST_DOTS trials beside the front, a part is
    drawn, spread evenly over the trials; the description says how many.
    """
    return [_chart(marks, up, across, f"pareto-{index}") for index, (up, across) in enumerate(pairs(axes))]


def pairs(axes: Sequence[MetricAxis]) -> list[tuple[MetricAxis, MetricAxis]]:
    """Return the pairs of metrics that are drawn: every pair, or of many metrics the first with each other one."""
    if len(axes) <= MOST_PAIRED:
        return list(itertools.combinations(axes, 2))
    return [(axes[0], other) for other in axes[1:]]


def legend() -> Markup:
    """Return the kinds of marks that the plots of a page have, as a list with the shapes."""
    items = [
        tag("li", tag("svg", _shape(kind, 7.0, 7.0), viewBox="0 0 14 14", class_="chart"), words)
        for kind, words in KINDS.items()
    ]
    return tag("ul", *items, class_="legend shapes", aria_hidden="true")


def write_pareto_chart(marks: Sequence[Mark], axes: Sequence[MetricAxis], path: Path) -> None:
    """Write the plots to one SVG file, which has its own colours and size, and create its folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{draw_pareto(marks, axes)}\n", encoding="utf-8")


def draw_pareto(marks: Sequence[Mark], axes: Sequence[MetricAxis]) -> Markup:
    """Return the plots of `pareto_charts` side by side with a legend, as one drawing without the page's style sheet."""
    drawn = pareto_charts(marks, axes)
    columns, rows = min(COLUMNS, len(drawn)), -(-len(drawn) // COLUMNS)
    width, height = columns * WIDTH, HEAD + rows * HEIGHT
    placed = [
        tag("svg", plot, x=index % COLUMNS * WIDTH, y=HEAD + index // COLUMNS * HEIGHT, width=WIDTH, height=HEIGHT)
        for index, plot in enumerate(drawn)
    ]
    return tag(
        "svg",
        tag("title", f"Pareto front of {' and '.join(axis.name for axis in axes)}"),
        tag("style", Markup(STYLE)),
        *_legend_row(),
        *placed,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
    )


def _legend_row() -> list[Markup]:
    drawn = []
    for index, (kind, words) in enumerate(KINDS.items()):
        x = 14.0 + 150 * index
        drawn += [_shape(kind, x, 16.0), tag("text", words, x=x + 10, y=20)]
    return drawn


def _chart(marks: Sequence[Mark], up: MetricAxis, across: MetricAxis, name: str) -> Markup:
    title = f"{up.name} against {across.name}"
    known = [mark for mark in marks if _is_drawn(mark, up, across)]
    if not known:
        return empty_chart(name, title, "no trial has values of both metrics yet")
    front = [mark for mark in known if mark.kind == "front"]
    x_of, y_of = _scale(known, front, across, LEFT + 4, RIGHT), _scale(known, front, up, BOTTOM, TOP)
    shown = _thinned(known)
    # The front lies on top; what violates a constraint is drawn below what does not.
    shown.sort(key=lambda mark: (("infeasible", "dominated", "front").index(mark.kind), mark.trial))
    drawn = [_mark(mark, x_of(mark.values[across.name]), y_of(mark.values[up.name]), up, across) for mark in shown]
    parts = (y_axis(y_of, up.title), x_axis(x_of, across.title), *_staircase(front, up, across, x_of, y_of), *drawn)
    return chart(name, title, _about(shown, known, front, up, across), *parts)


def _is_drawn(mark: Mark, up: MetricAxis, across: MetricAxis) -> bool:
    return all(math.isfinite(mark.values.get(axis.name, math.nan)) for axis in (up, across))


def _scale(marks: Sequence[Mark], front: Sequence[Mark], axis: MetricAxis, start: float, end: float) -> Scale:
    """The axis of a metric, without outliers but with the whole front; values beyond it are drawn at its ends."""
    values = [mark.values[axis.name] for mark in marks]
    log = min(values) > 0 and max(values) > LOG_RATIO * min(values)
    usual = scale_over(values, start, end, log=log, room=ROOM)
    inside = [value for value in values if usual.low <= value <= usual.high]
    return scale_over(
        [*inside, *(mark.values[axis.name] for mark in front)], start, end, log=log, room=ROOM, whole=True
    )


def _thinned(marks: Sequence[Mark]) -> list[Mark]:
    """The front, and about MOST_DOTS of the other trials at most, spread evenly over the trials."""
    others = sum(mark.kind != "front" for mark in marks)
    every = max(1, math.ceil(others / MOST_DOTS))
    return [mark for index, mark in enumerate(marks) if mark.kind == "front" or index % every == 0]


def _staircase(
    front: Sequence[Mark], up: MetricAxis, across: MetricAxis, x_of: Scale, y_of: Scale
) -> tuple[Markup, ...]:
    """The border of what the front dominates in these two metrics, up to the ends of the axes, and the area itself."""
    steps = _front_of_pair(front, up, across)
    if not steps:
        return ()
    worst_x = x_of.end if across.mode == "min" else x_of.start
    worst_y = y_of.end if up.mode == "min" else y_of.start
    places = [(x_of(x), y_of(y)) for x, y in steps]
    path = [(places[0][0], worst_y), places[0]]
    for x, y in places[1:]:
        path += [(x, path[-1][1]), (x, y)]
    path.append((worst_x, path[-1][1]))
    return (
        tag("polygon", class_="beyond", points=points([*path, (worst_x, worst_y)])),
        tag("polyline", class_="staircase", points=points(path)),
    )


def _front_of_pair(front: Sequence[Mark], up: MetricAxis, across: MetricAxis) -> list[tuple[float, float]]:
    """The points that no other dominates in these two metrics alone, from the best `across` to the best `up`."""
    found: list[tuple[float, float]] = []
    reached = math.inf
    pairs_of = {(mark.values[across.name], mark.values[up.name]) for mark in front}
    for x, y in sorted(pairs_of, key=lambda pair: (across.sign * pair[0], up.sign * pair[1])):
        if up.sign * y < reached:
            reached = up.sign * y
            found.append((x, y))
    return found


def _mark(mark: Mark, x: float, y: float, up: MetricAxis, across: MetricAxis) -> Markup:
    values = ", ".join(f"{axis.name} {measure_text(mark.values[axis.name])}" for axis in (up, across))
    text = tag("title", f"trial {mark.trial}: {mark.state}, {values}, {KINDS[mark.kind]}")
    return _shape(mark.kind, x, y, text, f"t{mark.trial}")


def _shape(kind: str, x: float, y: float, title: Markup | str = "", key: str | None = None) -> Markup:
    """A diamond, a circle or a cross, in the middle of (x, y)."""
    if kind == "dominated":
        return tag("circle", title, class_=kind, cx=x, cy=y, r=3.0, data_key=key)
    if kind == "front":
        corners = [(x, y - 6.0), (x + 6.0, y), (x, y + 6.0), (x - 6.0, y)]
        return tag("polygon", title, class_=kind, points=points(corners), data_key=key)
    return tag(
        "path", title, class_=kind, data_key=key,
        d=f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7",
    )  # fmt: skip


def _about(
    shown: Sequence[Mark], known: Sequence[Mark], front: Sequence[Mark], up: MetricAxis, across: MetricAxis
) -> str:
    """The description: how many trials of each kind there are, and the ends of the front."""
    counts = {kind: sum(mark.kind == kind for mark in known) for kind in KINDS}
    kinds = ", ".join(f"{count} {KINDS[kind]}" for kind, count in counts.items() if count)
    some = f"{len(shown)} of {len(known)} trials are drawn: " if len(shown) < len(known) else ""
    ends = f"; the front reaches {_end(front, up)} and {_end(front, across)}" if front else ""
    return f"{some}{kinds}{ends}; the line is the front of these two metrics"


def _end(front: Sequence[Mark], axis: MetricAxis) -> str:
    """The best value of a metric on the front, in words."""
    best = min(front, key=lambda mark: axis.sign * mark.values[axis.name])
    return f"{axis.name} {measure_text(best.values[axis.name])} (trial {best.trial})"
