"""The charts of a study as SVG: pure functions of the API's data.

Each chart has a title and a description for screen readers, and a tooltip on each mark. Colours come from the page's
style sheet. The chart of a large study shows some of its trials; its description says how many.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from markupsafe import Markup

from dialin.charts.frame import BOTTOM, LEFT, RIGHT, TOP, axes, baseline, chart, empty_chart, x_axis, y_axis
from dialin.charts.svg import Scale, points, scale_over, tag
from dialin.charts.words import duration
from dialin.lifecycle import TRIAL_ENDED, TrialState
from dialin.specification.domains import Choice, Domain, FloatRange, IntRange, RangeTested
from dialin.texts import measure_text, metric_text, scalar_text

Trial = Mapping[str, Any]
XOfTrial = Callable[[Trial], float]
"""The horizontal coordinate of a trial's mark."""

MOST_CURVES, MOST_EPOCHS, MOST_DOTS, MOST_RUNGS = 100, 120, 400, 12  # a browser draws more too slowly
STATES = (*(state.value for state in TRIAL_ENDED), TrialState.RUNNING.value, TrialState.WAITING.value)
EMPTY = "no finite value has been reported yet"
# Trials of a higher layer are drawn over those of a lower one: stopped trials are many, and would hide the others.
_LAYERS = {"stopped": 0, "diverged": 1, "failed": 1, "waiting": 2, "complete": 3, "running": 4}


def best_curve(curve: Mapping[str, Any], zoom: bool = False, empty: str = EMPTY) -> Markup:
    """Return the best value so far over the epochs that all trials together have trained, as a step curve.

    `curve`: the fields of `schemas.BestCurve`. `zoom`: whether the value axis covers only the best quarter of the
    values. `empty`: what a chart without a best value says.
    """
    metric, reports = curve["metric"], [point for point in curve["points"] if point["best"] is not None]
    reference = curve.get("reference")
    title = "Hypervolume so far" if reference else "Best so far"
    if not reports:
        return empty_chart("best-curve", title, empty)
    last = reports[-1]
    across = Scale(0, max(point["epochs_total"] for point in reports) * 1.02 or 1, LEFT, RIGHT)
    up = _value_scale([point["best"] for point in reports], curve["mode"], zoom)
    line = _step_curve([(across(point["epochs_total"]), up(point["best"])) for point in reports])
    improvements = _improvements(reports)
    dots = [
        _dot(across(point["epochs_total"]), up(point["best"]), "improvement", _improvement_text(metric, point))
        for point in improvements
    ]
    under = [(line[0][0], float(BOTTOM)), *line, (line[-1][0], float(BOTTOM))]
    marks = [tag("polygon", class_="under", points=points(under)), tag("polyline", class_="best", points=points(line))]
    improved = len(improvements) - 1 + curve.get("left_out", 0)  # the first value improves on nothing
    reached = f"to {metric_text(last['best'])}, in {last['epochs_total']} epochs{_reference_text(reference)}"
    about = f"{metric} improved {improved} times {reached}{_zoom_text(zoom)}"
    return chart("best-curve", title, about, axes(across, up, "epochs trained in all", metric), *marks, *dots)


def _reference_text(reference: Mapping[str, float] | None) -> str:
    """The reference point of a hypervolume, as the end of a sentence; empty for a metric."""
    values = ", ".join(f"{name} {measure_text(value)}" for name, value in (reference or {}).items())
    return f"; the reference point is {values}" if values else ""


def _improvements(reports: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The first report, and those whose best value differs from that of the report before."""
    pairs = itertools.pairwise(reports)
    return [reports[0], *(point for before, point in pairs if point["best"] != before["best"])]


def _step_curve(path: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of a line that stays level until the next point of the path."""
    corners = [*path[:1]]
    for x, y in path[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _improvement_text(metric: str, point: Mapping[str, Any]) -> str:
    when = f" and {duration(point['seconds'])}" if point.get("seconds") is not None else ""
    return (
        f"{metric} {metric_text(point['best'])}: trial {point['trial']}, epoch {point['epoch']}; "
        f"after {point['epochs_total']} epochs{when}"
    )


def learning_curves(
    trials: Sequence[Trial],
    metric: str,
    *,
    rungs: Sequence[int],
    epochs: int,
    best: int | None,
    mode: str,
    zoom: bool = False,
) -> Markup:
    """Return each trial's values by epoch: stopped trials in grey, the best one bold, the rungs as vertical lines.

    `trials`: mappings with the fields of `schemas.Trial`. `epochs`: the length of a complete trial. `best`: the number
    of the best trial. `zoom`: whether the value axis covers only the best quarter of the values.
    """
    with_values = [trial for trial in trials if trial["value"] is not None]
    if not with_values:
        return empty_chart("learning-curves", "Learning curves", "no epoch has been reported yet")
    shown = _most_informative(with_values, best, mode)
    across = Scale(0, max(epochs, *(max(_finite_values(trial)) for trial in shown)), LEFT, RIGHT)
    up = _value_scale(_best_values(with_values) if zoom else _all_values(shown), mode, zoom)
    marks, rung_text = _rungs([rung for rung in rungs if rung < across.high], across)
    shown.sort(key=lambda trial: (*_layer(trial, best), trial["trial"]))
    marks += [_learning_curve(trial, across, up, trial["trial"] == best) for trial in shown]
    about = f"{metric} by epoch of {_count_text(len(shown), len(with_values))}{rung_text}{_zoom_text(zoom)}"
    return chart("learning-curves", "Learning curves", about, axes(across, up, "epoch", metric), *marks)


def _layer(trial: Trial, best: int | None) -> tuple[bool, int]:
    """A sort key that puts trials drawn on top last; the best trial lies over all others."""
    return trial["trial"] == best, _LAYERS.get(trial["state"], 0)


def _value_scale(values: Sequence[float], mode: str, zoom: bool) -> Scale:
    """The axis of the metric. Zoomed, it covers the best quarter of the distinct values, and clamps worse ones.

    The first values of a study are often so bad that all good ones would fall on one line.
    """
    if zoom and values:
        ordered = sorted({value for value in values if math.isfinite(value)}, reverse=mode == "max")
        return scale_over(ordered[: max(2, len(ordered) // 4)], BOTTOM, TOP, log=None, whole=True)
    return scale_over(values, BOTTOM, TOP, log=None)


def _zoom_text(zoom: bool) -> str:
    return "; the value axis covers the best quarter of the values" if zoom else ""


def _evenly_spread(rungs: Sequence[int], most: int) -> Sequence[int]:
    """At most `most` of the rungs, evenly spread, including the first and the last."""
    if len(rungs) <= most:
        return rungs
    return [rungs[round(index * (len(rungs) - 1) / (most - 1))] for index in range(most)]


def _learning_curve(trial: Trial, across: Scale, up: Scale, is_best: bool) -> Markup:
    path = [(across(epoch), up(value)) for epoch, value in _thinned(sorted(_finite_values(trial).items()))]
    classes = f"trial {_classes(trial, is_best)}"
    title = tag("title", _trial_text(trial))
    if len(path) == 1:
        drawn = [tag("circle", class_="dot", cx=path[0][0], cy=path[0][1], r=2.5)]
    else:
        # "reach" is a wide transparent line over the thin one, so that a pointer finds the tooltip easily.
        drawn = [tag("polyline", class_=kind, points=points(path)) for kind in ("line", "reach")]
    if trial["state"] == "running" and len(path) > 1:
        drawn.append(tag("circle", class_="dot", cx=path[-1][0], cy=path[-1][1], r=3))
    return tag("g", title, *drawn, class_=classes, data_key=f"t{trial['trial']}")


def _classes(trial: Trial, is_best: bool) -> str:
    """The style sheet's classes for a trial; none for the state of a newer server, which this style sheet lacks."""
    return f"{trial['state'] if trial['state'] in STATES else ''}{' is-best' if is_best else ''}"


def _rungs(rungs: Sequence[int], across: Scale) -> tuple[list[Markup], str]:
    """The lines of the rungs, and the part of the chart's description that names them."""
    drawn = _evenly_spread(rungs, MOST_RUNGS)
    some = f" ({len(drawn)} of {len(rungs)} rungs)" if len(drawn) < len(rungs) else ""
    text = f", compared after epochs {', '.join(map(str, drawn))}{some}" if drawn else ""
    return [_rung(across(rung), rung) for rung in drawn], text


def _rung(x: float, rung: int) -> Markup:
    return tag(
        "g",
        tag("title", f"rung: trials are compared after epoch {rung}"),
        tag("line", class_="rung", x1=x, x2=x, y1=TOP, y2=BOTTOM),
        tag("text", str(rung), class_="rung-label", x=x, y=TOP - 5, text_anchor="middle"),
        data_key=f"r{rung}",
    )


def _most_informative(trials: Sequence[Trial], best: int | None, mode: str) -> list[Trial]:
    """At most MOST_CURVES trials: the best, running ones, those with the best values, and the newest of the rest."""
    if len(trials) <= MOST_CURVES:
        return list(trials)
    sign = 1 if mode == "max" else -1

    def rank(trial: Trial) -> tuple[bool, bool, float]:
        value = trial["value"]
        return trial["trial"] == best, trial["state"] == "running", -math.inf if value is None else sign * value

    top = heapq.nlargest(MOST_CURVES // 2, trials, key=rank)
    taken = {trial["trial"] for trial in top}
    newest = [trial for trial in trials if trial["trial"] not in taken][-(MOST_CURVES - len(top)) :]
    return [*top, *newest]


@dataclass(frozen=True)
class Knob:
    """A searched knob, as an axis."""

    name: str
    """Name in the search space."""
    domain: Domain
    """The values that are searched."""

    @property
    def log(self) -> bool:
        """Whether the axis is logarithmic."""
        return isinstance(self.domain, RangeTested) or bool(getattr(self.domain, "log", False))

    @property
    def has_order(self) -> bool:
        """Whether the axis is a scale of numbers; otherwise each value has a band of its own."""
        return isinstance(self.domain, FloatRange | IntRange | RangeTested)


def knob_values(
    trials: Sequence[Trial], knob: Knob, metric: str, best: int | None, *, mode: str = "max", zoom: bool = False
) -> Markup:
    """Return a scatter plot with a dot for each trial: the knob's value across, the trial's best value up.

    Trials that lack either value are left out. `best`: the number of the best trial. `zoom`: whether the value axis
    covers only the best quarter of the values.
    """
    dots = [trial for trial in trials if trial["value"] is not None and knob.name in trial["params"]]
    title = f"{knob.name} against {metric}"
    if not dots:
        return empty_chart("knob-values", title, f"no trial with {knob.name} has a value yet")
    count = len(dots)
    dots = _sampled(dots, best)
    up = _value_scale(_best_values(dots), mode, zoom)
    x_of, axis, marks = _knob_axis(knob, dots, up)
    dots.sort(key=lambda trial: _layer(trial, best))
    for trial in dots:
        kind = f"dot {_classes(trial, trial['trial'] == best)}"
        text = f"{knob.name} {scalar_text(trial['params'][knob.name])}; {_trial_text(trial)}"
        marks.append(_dot(x_of(trial), up(trial["value"]), kind, text, key=f"t{trial['trial']}"))
    log_axis = ", on a logarithmic axis" if knob.log else ""
    about = f"best {metric} of {_count_text(len(dots), count)} by {knob.name}{log_axis}{_zoom_text(zoom)}"
    return chart("knob-values", title, about, y_axis(up, metric), axis, *marks)


def _sampled(trials: list[Trial], best: int | None) -> list[Trial]:
    """About MOST_DOTS of the trials at most, evenly spread over time, and the best one."""
    every = math.ceil(len(trials) / MOST_DOTS)
    return [trial for index, trial in enumerate(trials) if index % every == 0 or trial["trial"] == best]


def _knob_axis(knob: Knob, trials: Sequence[Trial], up: Scale) -> tuple[XOfTrial, Markup, list[Markup]]:
    """A function that gives a trial's horizontal coordinate, the horizontal axis, and the marks behind the dots."""
    values = [trial["params"][knob.name] for trial in trials]
    if knob.has_order and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        domain = knob.domain
        # The bounds of a range-tested knob depend on other knobs, so its axis covers the values of the trials.
        has_ends = isinstance(domain, FloatRange | IntRange)
        covered = [*values, domain.low, domain.high] if isinstance(domain, FloatRange | IntRange) else values
        log = knob.log and min(covered) > 0
        across = scale_over(covered, LEFT + 4, RIGHT, log=log, room=0.03, whole=has_ends)
        return lambda trial: across(trial["params"][knob.name]), x_axis(across, knob.name), []
    return _band_axis(knob, trials, up)


def _band_axis(knob: Knob, trials: Sequence[Trial], up: Scale) -> tuple[XOfTrial, Markup, list[Markup]]:
    """As `_knob_axis`, with a band for each value and a line at the median of the band's trials."""
    known = list(knob.domain.values) if isinstance(knob.domain, Choice) else []
    labels = list(dict.fromkeys(scalar_text(value) for value in [*known, *(t["params"][knob.name] for t in trials)]))
    width = (RIGHT - LEFT) / len(labels)
    middle = {label: LEFT + width * (index + 0.5) for index, label in enumerate(labels)}
    by_label: dict[str, list[float]] = {label: [] for label in labels}
    for trial in trials:
        by_label[scalar_text(trial["params"][knob.name])].append(trial["value"])
    behind = [
        tag(
            "g",
            tag("title", f"{knob.name} {label}: median {metric_text(median(found))} of {_count(len(found), 'trial')}"),
            tag("line", class_="median", x1=middle[label] - width * 0.36, x2=middle[label] + width * 0.36,
                y1=up(median(found)), y2=up(median(found))),
        )
        for label, found in by_label.items()
        if found
    ]  # fmt: skip
    names = [_band_label(label, middle[label], index, len(labels)) for index, label in enumerate(labels)]

    def x_of(trial: Trial) -> float:
        # Multiples of the golden ratio, modulo 1, are spread evenly, so the dots of consecutive trials do not overlap.
        jitter: float = (trial["trial"] * 0.618034) % 1 - 0.5
        return middle[scalar_text(trial["params"][knob.name])] + jitter * width * 0.6

    return x_of, tag("g", baseline(), *names, class_="axis"), behind


def _band_label(label: str, x: float, index: int, of: int) -> Markup:
    """The name of a band. Of more than four bands every second name lies lower, so that long names do not overlap."""
    short = label if len(label) <= 14 else f"{label[:13]}…"
    y = BOTTOM + 18 + (16 if of > 4 and index % 2 else 0)
    return tag("text", tag("title", label), short, x=x, y=y, text_anchor="middle")


def progress(trials: Mapping[str, Any]) -> Markup:
    """Return the number of trials in each state, as one bar over the whole budget.

    `trials`: the fields of `schemas.TrialCounts`.
    """
    counts = {state: int(trials.get(state) or 0) for state in STATES}
    whole = max(int(trials.get("budget") or 0), sum(counts.values()), 1)
    parts, x = [], 0.0
    for state, count in counts.items():
        width = 100 * count / whole
        parts.append(tag("rect", tag("title", f"{count} {state}"), class_=state, x=x, y=0, width=width, height=6))
        x += width
    text = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none yet"
    return tag(
        "svg", tag("title", f"trials: {text}, of {whole}"), *parts,
        class_="progress", viewBox="0 0 100 6", preserveAspectRatio="none", role="img",
    )  # fmt: skip


def _trial_text(trial: Trial) -> str:
    value = f", best {metric_text(trial['value'])}" if trial["value"] is not None else ""
    return f"trial {trial['trial']}: {trial['state']}{value}, {_count(trial['epochs'], 'epoch')}"


def _finite_values(trial: Trial) -> dict[int, float]:
    """The values by epoch, without null, which stands for a value that is not finite."""
    return {int(epoch): value for epoch, value in trial["values"].items() if value is not None}


def _thinned(pairs: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """About MOST_EPOCHS of the pairs at most, evenly spread, including the last."""
    if len(pairs) <= MOST_EPOCHS:
        return pairs
    every = math.ceil(len(pairs) / MOST_EPOCHS)
    return [*pairs[:-1:every], pairs[-1]]


def _best_values(trials: Sequence[Trial]) -> list[float]:
    return [trial["value"] for trial in trials]


def _all_values(trials: Sequence[Trial]) -> list[float]:
    return [value for trial in trials for value in _finite_values(trial).values()]


def _count_text(shown: int, of: int) -> str:
    """The number of trials, or "100 of 250 trials" where a part is shown."""
    return f"{shown} of {of} trials" if shown < of else _count(shown, "trial")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _dot(x: float, y: float, kind: str, text: str, key: str | None = None) -> Markup:
    return tag("circle", tag("title", text), class_=kind, cx=x, cy=y, r=3.5, data_key=key)
