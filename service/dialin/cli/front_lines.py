"""What the commands say of a study of several metrics, or with constraints: rows and lines of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dialin.schemas import Best, ParetoPoint, Study, StudyInFull, Trial
from dialin.search.decision import in_short
from dialin.specification import wording
from dialin.specification.study_spec import StudySpec
from dialin.specification.wording import bound_text
from dialin.texts import measure_text, metric_text

MOST_POINTS = 40  # of a front in a terminal
REASONS = "why it ended"  # the title of a column
ROOM_FOR_REASONS = 24  # columns of text, below which a reason is cut into lines of a word or two


def goals_text(spec: StudySpec) -> str:
    """What a study looks for: "maximize accuracy and minimize parameters"."""
    return wording.goals_text([(metric.name, metric.mode) for metric in spec.metrics])


def within(spec: StudySpec) -> str:
    """The constraints as the end of a sentence: ", with memory at most 400"; empty without any."""
    bounds = ", ".join(bound_text(name, bound) for name, bound in spec.constraints.items())
    return f", with {bounds}" if bounds else ""


def names_of(study: Study) -> list[str]:
    """What counts of a trial, by name: the metrics, then what constraints bound. One name for one metric alone."""
    metrics = [metric.name for metric in study.metrics] if study.metrics else [study.metric]
    return list(dict.fromkeys([*metrics, *(study.constraints or {})]))


def is_single(study: Study) -> bool:
    """Whether a study has one metric and no constraint."""
    return study.metrics is None and study.constraints is None


def best_text(study: Study) -> str:
    """The best value of a study in a list; of several metrics also how many trials are on the front."""
    if study.best is None:
        return ""
    front = f"front of {study.front}, " if study.front is not None else ""
    return f"{front}{study.metric} {metric_text(study.best)}"


def front_columns(study: StudyInFull) -> list[str]:
    """The titles of `front_rows`."""
    return ["trial", *names_of(study), "epoch", *(["test accuracy"] if _tested(study) else [])]


def front_rows(study: StudyInFull) -> list[tuple[str, ...]]:
    """A row for each point of the front that is shown; of a long front some, evenly spread over it."""
    points = study.pareto or []
    every = max(1, -(-len(points) // MOST_POINTS))
    return [_row(point, study) for point in points[::every]]


def _row(point: ParetoPoint, study: StudyInFull) -> tuple[str, ...]:
    found = {**(point.bounded or {}), **point.values}
    tested = _tested(study)
    score = [metric_text(tested.get(point.trial))] if tested else []
    return (str(point.trial), *(measure_text(found.get(name)) for name in names_of(study)), str(point.epoch), *score)


def _tested(study: StudyInFull) -> dict[int, float]:
    """The accuracy on the test split of each trial that was evaluated there."""
    return {look.trial: look.values["accuracy"] for look in study.test_looks if "accuracy" in look.values}


def constraint_lines(study: StudyInFull, spec: StudySpec) -> list[str]:
    """A line for each constraint: the bound, and how many trials violate it."""
    counts = study.violations or {}
    return [f"{bound_text(name, bound)} ({_violated(counts.get(name, 0))})" for name, bound in spec.constraints.items()]


def _violated(count: int) -> str:
    return f"{count or 'no'} trial{'s' * (count > 1)} violate{'s' * (count < 2)} it"


def no_best_text(study: StudyInFull) -> str:
    """Why there is no best configuration."""
    counts = {name: count for name, count in (study.violations or {}).items() if count}
    if not counts:
        return "no trial has reported a finite value yet, so there is no best configuration"
    violated = ", ".join(f"{count} violate{'s' * (count == 1)} {name}" for name, count in counts.items())
    return f"no trial meets the constraints ({violated}), so there is no best configuration"


def trial_rows(
    study: StudyInFull, ended: Sequence[tuple[Trial, str]], marked: int | None, width: int
) -> list[tuple[str, ...]]:
    """The titles of a table of trials, and a row for each. `ended`: the trials, each with why it ended; `marked`: the
    trial that gets a star; `width`: of the terminal, in characters. With several metrics the last column, `REASONS`, is
    left out where it would make the others too narrow for their numbers."""
    place = () if is_single(study) else ("",)
    rows: list[tuple[str, ...]] = [("trial", "state", "epochs", *names_of(study), *place, REASONS)]
    for trial, why in ended:
        number = f"{trial.trial} *" if trial.trial == marked else str(trial.trial)
        reason = why if is_single(study) else in_short(why)
        rows.append((number, trial.state.value, str(trial.epochs), *_trial_cells(study, trial), reason))
    columns = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    is_narrow = width - sum(columns[:-1]) < min(ROOM_FOR_REASONS, columns[-1])
    return [row[:-1] for row in rows] if is_narrow and not is_single(study) else rows


def _trial_cells(study: StudyInFull, trial: Trial) -> list[str]:
    """What counts of a trial, in the order of `names_of`, and its place: on the front, or what it violates."""
    if is_single(study):
        return [metric_text(trial.value)]
    on_front = study.pareto is not None and trial.trial in {point.trial for point in study.pareto}
    place = "front" if on_front else f"violates {', '.join(trial.violated)}" if trial.violated else ""
    return [*(measure_text((trial.metrics or {}).get(name)) for name in names_of(study)), place]


def curve_lines(study: StudyInFull, trial: Trial) -> list[str]:
    """The values of a trial by epoch, a line for each name."""
    curves: dict[str, Mapping[str, float | None]] = {study.metric: trial.values, **(trial.others or {})}
    text = metric_text if is_single(study) else measure_text
    return [f"{name} by epoch   {_curve(values, text) or 'none reported'}" for name, values in curves.items()]


def _curve(values: Mapping[str, float | None], text: Callable[[float | None], str]) -> str:
    return "  ".join(f"{epoch}: {'nan' if value is None else text(value)}" for epoch, value in values.items())


def several_data(study: StudyInFull) -> dict[str, Any]:
    """What `--json` prints of several metrics and of constraints; nothing for one metric alone."""
    return study.model_dump(mode="json", include={"metrics", "constraints", "violations", "pareto"})


def best_data(best: Best) -> dict[str, Any]:
    """The best configuration as `--json` prints it."""
    return best.model_dump(mode="json", include={"trial", "value", "epoch", "expected", "params", "values", "bounded"})
