"""What the templates show of several metrics and of constraints."""

from __future__ import annotations

from typing import Any

from dialin.charts.pareto import legend
from dialin.schemas import ParetoPoint, StudyInFull
from dialin.specification.metrics import BoundSpec
from dialin.specification.wording import bound_text, goals_text
from dialin.texts import measure_text

MOST_LINKS = 60  # to configurations of the front; the trials page has the others


def front_of(study: StudyInFull) -> list[int]:
    """Return the trials of the Pareto front, the best by the first metric first; empty with one metric."""
    return [point.trial for point in study.pareto or ()]


def front_context(study: StudyInFull) -> dict[str, Any]:
    """Return what the templates show of a study of several metrics, or with constraints.

    - `names`: what counts of a trial, a column each; the first is the metric that `study.metric` names
    - `trials`: the numbers of the trials on the front
    - `links`: those whose configurations are linked
    - `goal`: "maximize accuracy and minimize parameters"
    - `ends`: the best of each metric on the front, with its trial
    - `constraints`: each in words, and how many trials violate it
    - `legend`: the kinds of marks of the charts
    """
    metrics = study.metrics or []
    names = [metric.name for metric in metrics] or [study.metric]
    trials = front_of(study)
    return {
        "several": bool(metrics),
        "names": list(dict.fromkeys([*names, *(study.constraints or {})])),
        "trials": trials,
        "links": trials[:: max(1, -(-len(trials) // MOST_LINKS))],
        "goal": goals_text([(metric.name, metric.mode) for metric in metrics]),
        "ends": [_end(study.pareto, metric.name, metric.mode == "max") for metric in metrics] if study.pareto else [],
        "constraints": _constraints(study),
        "legend": legend(),
    }


def _constraints(study: StudyInFull) -> list[tuple[str, int]]:
    """Each constraint in words, and how many trials violate it."""
    counts = study.violations or {}
    return [
        (bound_text(name, BoundSpec(min=bound.min, max=bound.max)), counts.get(name, 0))
        for name, bound in (study.constraints or {}).items()
    ]


def _end(points: list[ParetoPoint], name: str, maximize: bool) -> tuple[str, str, int]:
    """The best value of a metric on the front: its name, its value in words, its trial."""
    best = (max if maximize else min)(points, key=lambda point: point.values[name])
    return name, measure_text(best.values[name]), best.trial
