"""What the commands print for a person: the models of `dialin.schemas` as text and tables."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialin.cli.front_lines import (
    REASONS,
    best_data,
    best_text,
    constraint_lines,
    curve_lines,
    front_columns,
    front_rows,
    goals_text,
    no_best_text,
    several_data,
    trial_rows,
    within,
)
from dialin.cli.prior_lines import prior_lines
from dialin.paths import sqlite_url
from dialin.planning.plan import Plan
from dialin.results.looks import Look, count_text
from dialin.results.summary import epochs_text, expected_text, is_lucky
from dialin.schemas import Best, Knob, LocalStudy, Study, StudyInFull, Trial
from dialin.search.ranking import rank_key
from dialin.specification import lint, sampler_of, spec_of_study
from dialin.specification.domains import Fixed
from dialin.specification.range_tests import Calibration, Reading
from dialin.specification.study_spec import ObjectiveSpec, StudySpec
from dialin.specification.wording import domain_text, when_text
from dialin.texts import measure_text, printable, scalar_text
from dialin.tracking.mirror import ui_command

WIDE = 140  # columns from which the catalogue of knobs fits as a table
MAX_SHOWN, BEST_SHOWN, NEWEST_SHOWN = 100, 40, 20  # trials of a study: nobody reads thousands of lines in a terminal
_END_NAMES = {
    "complete": "trained to the end",
    "stopped": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
}


def show_list(console: Console, studies: Sequence[Study], states: Sequence[str] = ()) -> None:
    """Studies as a table. `states`: the states that were asked for; empty for all."""
    if not studies and states:
        _print(console, f"no study is {' or '.join(states)}")
        return
    if not studies:
        _print(console, "no studies yet; start with: dialin run digits")
        return
    any_lags = any(_lags(study) for study in studies)
    columns = ("study", "state", "best", "trials", "started", "MLflow")
    shown = len(columns) if any_lags else len(columns) - 1
    table = _table(*columns[:shown])
    for study in studies:
        _add_row(table, *_list_row(study)[:shown])
    console.print(table)
    for study in studies:
        if study.unreadable:
            _print(console, f"{study.id} cannot be read as it is stored: {study.unreadable}")


def _list_row(study: Study) -> tuple[str, ...]:
    best = best_text(study)
    trials = f"{study.trials.ended} of {study.trials.budget}"
    started = datetime.datetime.fromtimestamp(study.created_at).strftime("%Y-%m-%d %H:%M")
    lag = f"lags by {study.mirror_lag}" if _lags(study) else ""
    return study.id, study.state.value, best, trials, started, lag


def _lags(study: Study) -> bool:
    """Whether MLflow lacks events of a study that has ended; it always lacks some of one that runs."""
    return bool(study.mirror_lag) and study.ended


def show_study(console: Console, study: StudyInFull, trials: Sequence[Trial], best: Best | None, lag: str = "") -> None:
    """A study with its trials, and why each of them ended. `lag`: how far MLflow is behind, from `mirror_line`."""
    show_result(console, study, best, lag)
    show_claim(console, study)
    for line in study.calibration:
        _print(console, line)
    for line in study.history:
        _print(console, f"{'earlier driver':<20} {line}")
    for line in study.doctor:
        _print(console, f"doctor: {line}")
    marked = best.trial if best is not None and is_lucky(best.value, best.expected) else None
    shown = _selection(trials, study, marked)
    _print(console, "")
    _show_trials(console, study, shown, marked)
    if marked is not None:
        _print(console, "* the best by its estimate; the values are those of each trial's best epoch")
    if study.unreadable:
        _print(console, f"this part of its row in the database cannot be read: {study.unreadable}")
    if len(shown) < len(trials):
        text = f"the {BEST_SHOWN} best and the {NEWEST_SHOWN} newest of {len(trials)} trials are shown"
        _print(console, f"{text}; all of them: dialin show {study.id} --json")


def _show_trials(console: Console, study: StudyInFull, trials: Sequence[Trial], marked: int | None) -> None:
    titles, *rows = trial_rows(study, [(trial, why(trial)) for trial in trials], marked, console.width)
    table = _table(*titles)
    for row in rows:
        _add_row(table, *row)
    console.print(table)
    if titles[-1] != REASONS:
        _print(console, f"a wider terminal shows why each trial ended; of one of them: dialin show {study.id} TRIAL")


def _selection(trials: Sequence[Trial], study: StudyInFull, marked: int | None) -> Sequence[Trial]:
    """The trials that are shown: all in the order of their numbers, or of many the best ones and the newest, and the
    one that is `marked`. Trials of the Pareto front come first, those that violate a constraint last."""
    if len(trials) <= MAX_SHOWN:
        return trials
    best = _best_of(trials, study)
    taken = {trial.trial for trial in best}
    best += [trial for trial in trials if trial.trial == marked and trial.trial not in taken]
    taken.add(-1 if marked is None else marked)
    return [*best, *[trial for trial in trials if trial.trial not in taken][-NEWEST_SHOWN:]]


def _best_of(trials: Sequence[Trial], study: StudyInFull) -> list[Trial]:
    """The BEST_SHOWN best of the trials that have a value."""
    front = {point.trial for point in study.pareto or ()}
    known = (trial for trial in trials if trial.value is not None)
    return sorted(known, key=lambda trial: _rank(trial, front, study.mode == "max"))[:BEST_SHOWN]


def _rank(trial: Trial, front: Set[int], maximize: bool) -> tuple[bool, bool, tuple[int, float, float, int, int]]:
    value, epoch = trial.value or 0.0, trial.best_epoch or 0
    key = rank_key(trial.state, value, trial.loss, epoch, trial.trial, maximize)
    return trial.trial not in front, bool(trial.violated), key


def why(trial: Trial) -> str:
    """Why a trial ended, and which trial it continued."""
    began = min(map(int, trial.values)) - 1 if trial.values else trial.epochs
    start = f"continues trial {trial.continues} after epoch {began}" if trial.continues is not None else ""
    return "; ".join(part for part in (start, trial.reason) if part)


def show_trial(console: Console, study: StudyInFull, trial: Trial) -> None:
    """One trial: its knobs, its values by epoch, how it ended, and the doctor's findings."""
    spec = spec_of_study(study.id, study.spec)
    ended = why(trial)
    _print(console, f"trial {trial.trial} of {study.id}: {trial.state.value}{f', {ended}' if ended else ''}")
    table = Table.grid(padding=(0, 2))
    for name, value in trial.params.items():
        _add_row(table, f"  {name}", scalar_text(value), "" if name in spec.space else "default")
    console.print(table)
    for line in curve_lines(study, trial):
        _print(console, line)
    if trial.violated:
        _print(console, f"it violates the constraints on {', '.join(trial.violated)}")
    for finding in trial.findings:
        _print(console, f"{finding.severity}: {finding.text}")
        _print(console, f"  likely cause   {finding.cause}")
        _print(console, f"  try            {finding.remedy}")
        _print(console, f"  source         {finding.source}")
    if not trial.findings and isinstance(spec.objective, ObjectiveSpec):
        _print(console, "the doctor found nothing")


def show_result(console: Console, study: StudyInFull, best: Best | None, lag: str = "") -> None:
    """What came out of a study: the best configuration, its values, and where everything lies."""
    spec = spec_of_study(study.id, study.spec)
    reason = f": {study.reason}" if study.reason not in ("", study.state.value) else ""
    _print(console, f"study {study.id} {study.state.value}{reason}")
    if best is None:
        _print(console, no_best_text(study))
    elif study.pareto:
        _show_front(console, study)
    else:
        _show_best(console, spec, best)
    for index, line in enumerate(constraint_lines(study, spec)):
        _print(console, f"{'' if index else 'constraints':<20} {line}")
    _print(console, _trials_line(study))
    _show_paths(console, study, lag)


def _show_paths(console: Console, study: StudyInFull, lag: str) -> None:
    # A server's paths mean nothing here; its links are printed by the commands.
    paths = study.paths if isinstance(study, LocalStudy) else {}
    if paths.get("best_config"):
        _print(console, f"best configuration   {_short_path(paths['best_config'])}")
    if paths.get("pareto"):
        _print(console, f"configurations       {_short_path(paths['pareto'])}")
    if lag:
        _print(console, lag)
    elif paths.get("mlflow"):
        place = str(paths["mlflow"])
        _print(console, f"see every trial      {ui_command(place if '://' in place else sqlite_url(Path(place)))}")


def _show_front(console: Console, study: StudyInFull) -> None:
    rows, whole = front_rows(study), len(study.pareto or ())
    some = f"; {len(rows)} of them are shown" if len(rows) < whole else ""
    _print(console, f"\nPareto front ({whole} trial{'s' * (whole != 1)}, the best by {study.metric} first{some})")
    table = _table(*front_columns(study))
    for row in rows:
        _add_row(table, *row)
    console.print(table)
    _print(console, "")


def show_point(console: Console, study: StudyInFull, best: Best) -> None:
    """One configuration of a Pareto front."""
    _show_best(console, spec_of_study(study.id, study.spec), best, "configuration")


def _show_best(console: Console, spec: StudySpec, best: Best, title: str = "best configuration") -> None:
    table = Table.grid(padding=(0, 2))
    named = {name: value for name, value in best.params.items() if name in spec.space}
    for name, value in named.items():
        _add_row(table, f"  {name}", scalar_text(value), "fixed" if isinstance(spec.space[name], Fixed) else "")
    _print(console, f"\n{title} (trial {best.trial}, epoch {best.epoch} of {spec.budget.epochs})")
    console.print(table)
    if len(named) < len(best.params):
        _print(console, f"  and {len(best.params) - len(named)} knobs that the space does not name, at their defaults")
    _print(console, "")
    for name, text in _reached(best).items():
        _print(console, f"{_metric_name(name):<20} {text}")
    _show_test(console, best)


def _show_test(console: Console, best: Best) -> None:
    if best.test is not None and best.test_trial is not None and "accuracy" in best.test:
        looks = [Look(look.trial, look.values) for look in best.test_looks]
        about = f"trial {best.test_trial} on images that the search never saw, {count_text(looks, best.test_trial)}"
        _print(console, f"{'test accuracy':<20} {best.test['accuracy']:.4f}   {about}")


def _reached(best: Best) -> dict[str, str]:
    """What a configuration has reached, by name: each metric, and what constraints bound."""
    bounded = {name: measure_text(value) for name, value in (best.bounded or {}).items()}
    if best.values is not None:
        values = {name: measure_text(value) for name, value in best.values.items()}
    else:
        values = {best.metric: expected_text(best.value, best.epoch, best.expected)}
    return {**values, **{name: text for name, text in bounded.items() if name not in values}}


def _trials_line(study: StudyInFull) -> str:
    ended = {state: getattr(study.trials, state) for state in _END_NAMES}
    counts = ", ".join(f"{count} {_END_NAMES[state]}" for state, count in ended.items() if count)
    epochs = f"{epochs_text(study.epochs.model_dump())}, in {study.seconds:.0f} s"
    return f"{'trials':<20} {counts or 'none ended'}\n{'epochs trained':<20} {epochs}"


def show_claim(console: Console, study: StudyInFull) -> None:
    """The claim that a study puts to the test, and how it was judged; nothing for a study without one."""
    claim = spec_of_study(study.id, study.spec).claim
    if claim is None or study.claim is None:
        return
    _print(console, f"\nclaim                {claim.says}")
    if claim.article:
        _print(console, f"in the article       {claim.article}")
    _print(console, study.claim)
    if claim.read:
        _print(console, f"how to read it       {claim.read}")


def mirror_line(study: Study, *, is_here: bool = True) -> str:
    """How far MLflow is behind a study, and what changes that. Empty when MLflow has everything.

    `is_here`: the study lies on this machine, where a command writes what is missing; else its server does.
    """
    if not study.mirror_note or not study.ended:
        return study.mirror_note
    if is_here:
        return f"{study.mirror_note}; `dialin sync {study.id}` writes what is missing"
    # A server leaves a study whose event log is gone alone, since someone may have deleted it to make room.
    return f"{study.mirror_note}; the server keeps writing" if study.mirror_lag else study.mirror_note


def result_data(study: StudyInFull, best: Best | None) -> dict[str, Any]:
    """What came out of a study, as `--json` prints it."""
    paths = study.paths if isinstance(study, LocalStudy) else dict.fromkeys(("best_config", "mlflow", "storage"))
    return {
        "study_id": study.id,
        "state": study.state.value,
        "metric": study.metric,
        "mode": study.mode,
        **several_data(study),
        "best": None if best is None else best_data(best),
        **study.model_dump(mode="json", include={"test", "test_trial", "test_looks"}),
        "trials": {state: getattr(study.trials, state) for state in _END_NAMES},
        "epochs": study.epochs.model_dump(mode="json"),
        "seconds": study.seconds,
        "paths": paths,
    }


def study_data(study: StudyInFull, trials: Sequence[Trial], best: Best | None) -> dict[str, Any]:
    """A study with its trials, as `--json` prints it."""
    return {
        **result_data(study, best),
        "reason": study.reason,
        "mirror_lag": study.mirror_lag,
        "mirror_note": study.mirror_note,
        "trial_list": [trial_data(trial) for trial in trials],
    }


def trial_data(trial: Trial) -> dict[str, Any]:
    """One trial, as `--json` prints it."""
    return trial.model_dump(mode="json", exclude={"link"})


def short_data(study: Study) -> dict[str, Any]:
    """A study in short, as `--json` prints it; `study_id` is the key that the other commands print too."""
    short = set(Study.model_fields)
    return {"study_id": study.id, **study.model_dump(mode="json", include=short)}


def show_plan(console: Console, plan: Plan, data: str = "") -> None:
    """What a study would do. `data`: where its data lies, in words; empty where it needs none."""
    spec = plan.spec
    _print(console, f"{spec.name}: {goals_text(spec)} on {spec.objective.subject}{within(spec)}")
    table = Table.grid(padding=(0, 2))
    for name, domain in spec.space.items():
        _add_row(table, f"  {name}", domain_text(domain), when_text(domain))
    console.print(table)
    asked = spec.resources.concurrency
    too_many = asked and plan.concurrency < min(asked, spec.budget.trials)
    fewer = f" ({asked} were asked for, and no more fit)" if too_many else ""
    _print(console, f"trials        {spec.budget.trials}, {plan.concurrency} at a time{fewer}, each {_resources(plan)}")
    rungs = f"compared after epochs {', '.join(map(str, plan.rungs))}" if plan.rungs else "no early stopping"
    _print(console, f"epochs        up to {spec.budget.epochs} a trial; {rungs}")
    _print(console, f"in all        {plan.most_epochs} epochs at most, about {plan.likely_epochs} likely")
    _print(console, f"sampler       {sampler_of(spec)}{' (chosen by auto)' if spec.search.sampler == 'auto' else ''}")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(min_width=12)
    for title, text in prior_lines(plan):
        _add_row(lines, title, text)
    console.print(lines)
    if data:
        _print(console, f"data          {data}")
    for warning in lint(spec):
        _print(console, f"warning: {warning.path}: {warning.message}")


def show_range_test(console: Console, params: Mapping[str, Any], calibration: Calibration) -> None:
    """The points of a range test's curve, the suggested rate, and how certain it is."""
    tested = calibration.bounds[0]
    shown = ("model", "optimizer", "batch_size", "normalization", "activation", "initialization")
    _print(console, ", ".join(f"{name} {params[name]}" for name in shown if name in params))
    reading = tested.reading
    if reading is not None:
        _show_points(console, reading)
    confidence = "high" if reading is not None and reading.confident else "low"
    rate = "" if tested.rate is None else f"{tested.rate:.3g}"
    _print(console, f"suggested rate             {rate}, confidence {confidence}")
    for doubt in reading.doubts if reading is not None else calibration.warnings:
        _print(console, f"  because {doubt}")
    _print(console, f"suggested bounds           {tested.low:.3g} to {tested.high:.3g}")
    _print(console, f"in a space                 lr: {{min: {tested.low:.3g}, max: {tested.high:.3g}, log: true}}")
    _print(console, f"  and for its prior        prior: {{lr: {rate}}}")
    runs = len(tested.curves)
    cost = f"{calibration.epochs:.1f} epochs of training, {runs} run{'s' * (runs != 1)}"
    _print(console, f"cost                       {cost}")


def _show_points(console: Console, reading: Reading) -> None:
    points = {
        "accuracy starts to rise": reading.rises,
        "loss falls fastest": reading.steepest,
        "accuracy is highest": reading.peak,
        "loss is lowest": reading.loss_minimum,
        "accuracy starts to fall": reading.falls,
        "training diverges": reading.diverges,
    }
    for name, rate in points.items():
        _print(console, f"  {name:<24} {'not seen' if rate is None else f'{rate:.3g}'}")


def show_knob(console: Console, knob: Knob) -> None:
    """Everything about one knob of the catalogue."""
    applies = " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in knob.applies.items())
    lines = {
        "what it does": knob.summary,
        "values": knob.values,
        "default": knob.default,
        "typical range": knob.typical,
        "search begins at": knob.start,
        "because": knob.start_source,
        "applies when": applies,
        "source": knob.source,
    }
    _print(console, f"{knob.name} ({knob.group})")
    for title, text in lines.items():
        if text:
            _print(console, f"  {title:<16} {text}")


def show_knobs(console: Console, knobs: Sequence[Knob]) -> None:
    """The catalogue of knobs: a table in a wide terminal, else a line for each knob."""
    if console.width < WIDE:
        for knob in knobs:
            _print(console, f"{knob.name:<22} {knob.summary}")
        _print(console, "dialin knobs KNOB shows a knob's values, when it applies, and its source")
        return
    table = _table("knob", "values", "typical range", "search begins at", "when", "what it does", "source")
    for knob in knobs:
        when = ", ".join(f"{name} {' or '.join(map(str, values))}" for name, values in knob.applies.items())
        _add_row(table, knob.name, knob.values, knob.typical or "", knob.start, when, knob.summary, knob.source)
    console.print(table)


def _resources(plan: Plan) -> str:
    cpus, gpus = plan.resources.cpus, plan.resources.gpus
    with_gpus = f" and {gpus:g} gpu{'s' if gpus != 1 else ''}" if gpus else ""
    return f"on {cpus:g} cpu{'s' if cpus != 1 else ''}{with_gpus}"


def _metric_name(name: str) -> str:
    return name.replace("val_", "validation ").replace("_", " ")


def _short_path(path: str | None) -> str:
    relative = os.path.relpath(str(path))
    return relative if len(relative) < len(str(path)) and not relative.startswith("..") else str(path)


def _print(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, emoji=False)


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text; rich would read a string as its markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))
