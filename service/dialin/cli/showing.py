"""What the commands print: for a person with rich, for a machine as plain data."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dialin.lifecycle import ENDED
from dialin.planning.plan import Plan
from dialin.results.claims import judge
from dialin.results.diagnosis import diagnose
from dialin.results.summary import Result, epochs_text, figure
from dialin.search.ranking import best_value, ranked
from dialin.search.records import TrialRecord
from dialin.specification import lint, sampler_of
from dialin.specification.domains import Fixed
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import ObjectiveSpec, StudySpec
from dialin.study_flow.snapshot import StudySnapshot
from dialin.study_flow.views import domain_text, value_text, when_text, why
from dialin.texts import printable
from dialin.tracking.mirror import sqlite_uri, ui_command

WIDE = 140  # columns from which the catalogue fits as a table

MOST_SHOWN, BEST_SHOWN, NEWEST_SHOWN = 100, 40, 20  # trials of a study: a terminal has no use for thousands of lines


def show_claim(console: Console, spec: StudySpec, records: Sequence[TrialRecord], verdict: str = "") -> None:
    """Whether the claim that a study puts to the test held, judged here where there is no verdict yet; nothing for a
    study without one."""
    if spec.claim is None:
        return
    _say(console, f"\nclaim                {spec.claim.says}")
    if spec.claim.article:
        _say(console, f"in the article       {spec.claim.article}")
    _say(console, verdict or judge(spec, spec.claim, records).text())
    if spec.claim.read:
        _say(console, f"how to read it       {spec.claim.read}")


def mirror_line(back: StudySnapshot, *, is_here: bool = True) -> str:
    """How far MLflow is behind a study, and who changes that: `is_here`, a command; else the server. Empty when MLflow
    has everything."""
    if not back.mirror_note or back.row.state not in ENDED:
        return back.mirror_note
    if is_here:
        return f"{back.mirror_note}; `dialin sync {back.row.id}` writes what is missing"
    # A spool that is gone it leaves alone: somebody may have made room.
    return f"{back.mirror_note}; the server goes on writing" if back.mirror_lag else back.mirror_note


def show_result(console: Console, spec: StudySpec, result: Result, lag: str = "") -> None:
    """The end of a run: the best configuration, its figures, what was saved, and where everything lies. `lag`: how far
    MLflow is behind it."""
    reason = f": {result.reason}" if result.reason not in ("", result.state) else ""
    _say(console, f"study {result.study_id} {result.state}{reason}")
    if result.best is None:
        _say(console, "no trial has reported a finite value yet, so there is no best configuration")
    else:
        _show_best(console, spec, result)
    _say(console, _trials_line(result))
    if result.paths.get("best_config"):
        _say(console, f"best configuration   {_short_path(result.paths['best_config'])}")
    if lag:
        _say(console, lag)
    elif result.paths.get("mlflow"):
        place = str(result.paths["mlflow"])
        _say(console, f"see every trial      {ui_command(place if '://' in place else sqlite_uri(Path(place)))}")


def _show_best(console: Console, spec: StudySpec, result: Result) -> None:
    best = result.best
    if best is None:
        return
    table = Table.grid(padding=(0, 2))
    named = {name: value for name, value in best.params.items() if name in spec.space}
    for name, value in named.items():
        _add_row(table, f"  {name}", value_text(value), "fixed" if isinstance(spec.space[name], Fixed) else "")
    _say(console, f"\nbest configuration (trial {best.trial}, epoch {best.epoch} of {spec.budget.epochs})")
    console.print(table)
    if len(named) < len(best.params):
        _say(console, f"  and {len(best.params) - len(named)} knobs that the space does not name, at their defaults")
    _say(console, f"\n{_words(result.metric):<20} {figure(best.value)}")
    if result.test is not None and "accuracy" in result.test:
        seen = f"trial {result.test_trial} on images that the search never saw, {result.test_count}"
        _say(console, f"{'test accuracy':<20} {result.test['accuracy']:.4f}   {seen}")


def _trials_line(result: Result) -> str:
    names = {"complete": "trained to the end", "stopped": "stopped early", "diverged": "diverged", "failed": "failed"}
    counts = ", ".join(f"{count} {names[state]}" for state, count in result.trials.items() if count)
    epochs = f"{epochs_text(result.epochs)}, in {result.seconds:.0f} s"
    return f"{'trials':<20} {counts or 'none ended'}\n{'epochs trained':<20} {epochs}"


def show_plan(console: Console, plan: Plan, data: str = "") -> None:
    """What a study would do. `data`: where its data lies, in words; empty where it needs none."""
    spec = plan.spec
    _say(console, f"{spec.name}: {spec.objective.mode}imize {spec.objective.metric} on {spec.objective.subject}")
    table = Table.grid(padding=(0, 2))
    for name, domain in spec.space.items():
        _add_row(table, f"  {name}", domain_text(domain), when_text(domain))
    console.print(table)
    asked = spec.resources.concurrency
    fewer = (
        f" ({asked} were asked for, and no more fit)"
        if asked and plan.concurrency < min(asked, spec.budget.trials)
        else ""
    )
    _say(console, f"trials        {spec.budget.trials}, {plan.concurrency} at a time{fewer}, each {_resources(plan)}")
    rungs = f"compared after epochs {', '.join(map(str, plan.rungs))}" if plan.rungs else "no early stopping"
    _say(console, f"epochs        up to {spec.budget.epochs} a trial; {rungs}")
    _say(console, f"in all        {plan.most_epochs} epochs at most, about {plan.likely_epochs} likely")
    _say(console, f"sampler       {sampler_of(spec)}{' (chosen by auto)' if spec.search.sampler == 'auto' else ''}")
    if data:
        _say(console, f"data          {data}")
    for warning in lint(spec):
        _say(console, f"warning: {warning.path}: {warning.message}")


def show_range_test(console: Console, params: Mapping[str, Any], calibration: Calibration) -> None:
    """The points of the curve, the suggested bounds, and how sure one can be of them."""
    tested = calibration.bounds[0]
    shown = ("model", "optimizer", "batch_size", "normalization", "activation", "initialization")
    _say(console, ", ".join(f"{name} {params[name]}" for name in shown if name in params))
    reading = tested.reading
    if reading is not None:
        points = {
            "accuracy starts to rise": reading.rises,
            "loss falls fastest": reading.steepest,
            "a third of the peak": None if reading.peak is None else reading.peak / 3,
            "accuracy is highest": reading.peak,
            "loss is lowest": reading.loss_minimum,
            "accuracy starts to fall": reading.falls,
            "training diverges": reading.diverges,
        }
        for name, rate in points.items():
            _say(console, f"  {name:<24} {'not seen' if rate is None else f'{rate:.3g}'}")
    sure = "high" if reading is not None and reading.confident else "low"
    _say(console, f"suggested bounds           {tested.low:.3g} to {tested.high:.3g}, confidence {sure}")
    for doubt in reading.doubts if reading is not None else calibration.warnings:
        _say(console, f"  because {doubt}")
    _say(console, f"in a space                 lr: {{min: {tested.low:.3g}, max: {tested.high:.3g}, log: true}}")
    runs = len(tested.curves)
    _say(
        console,
        f"cost                       {calibration.epochs:.1f} epochs of training, {runs} run{'s' * (runs != 1)}",
    )


def show_list(console: Console, rows: Sequence[Mapping[str, Any]], states: Sequence[str] = ()) -> None:
    """Studies as a table. `states`: those that were asked for; empty: all."""
    if not rows and states:
        _say(console, f"no study is {' or '.join(states)}")
        return
    if not rows:
        _say(console, "no studies yet; start with: dialin run digits")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    lags = any(_lags(row) for row in rows)
    for title in ("study", "state", "best", "trials", "started", *(["MLflow"] if lags else [])):
        table.add_column(title)
    for row in rows:
        best = "" if row["best"] is None else f"{row['metric']} {figure(row['best'])}"
        trials = str(sum(row["trials"].values())) if row["trials"] else ""
        started = datetime.datetime.fromtimestamp(row["created_at"]).strftime("%Y-%m-%d %H:%M")
        lag = [f"lags by {row['mirror_lag']}" if _lags(row) else ""] if lags else []
        _add_row(table, row["study_id"], row["state"], best, trials, started, *lag)
    console.print(table)
    for row in rows:
        if row.get("unreadable"):
            _say(console, f"{row['study_id']} cannot be read as it is stored: {row['unreadable']}")


def _lags(row: Mapping[str, Any]) -> bool:
    """Whether MLflow lacks something of a study that has ended; of one that runs it always does."""
    return bool(row["mirror_lag"]) and row["state"] in ENDED


def show_trial(console: Console, back: StudySnapshot, number: int) -> None:
    """One trial: its knobs, its course, how it ended, and what the doctor found."""
    trial = back.find_trial(number)
    ended = why(trial)
    _say(console, f"trial {number} of {back.row.id}: {trial.state.value}{f', {ended}' if ended else ''}")
    table = Table.grid(padding=(0, 2))
    for name, value in trial.params.items():
        _add_row(table, f"  {name}", value_text(value), "" if name in back.spec.space else "default")
    console.print(table)
    course = "  ".join(f"{epoch}: {figure(value)}" for epoch, value in trial.values.items())
    _say(console, f"{back.spec.objective.metric} by epoch   {course or 'none reported'}")
    for finding in trial.findings:
        rule = finding.rule
        _say(console, f"{rule.severity}: {finding.text()}")
        _say(console, f"  likely cause   {rule.cause}\n  try            {rule.remedy}\n  source         {rule.source}")
    if not trial.findings and isinstance(back.spec.objective, ObjectiveSpec):
        _say(console, "the doctor found nothing")


def show_study(console: Console, back: StudySnapshot, *, is_here: bool = True) -> None:
    show_result(console, back.spec, back.result, mirror_line(back, is_here=is_here))
    show_claim(console, back.spec, back.trials, back.verdict)
    for line in back.calibration.lines() if back.calibration is not None else ():
        _say(console, line)
    for line in back.history:
        _say(console, f"{'earlier driver':<20} {line}")
    for diagnosis in diagnose(back.trials):
        _say(console, f"doctor: {diagnosis.text(len(back.trials))}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("trial", "state", "epochs", back.spec.objective.metric, "why it ended"):
        table.add_column(title, overflow="fold")
    trials = _telling(back)
    for trial in trials:
        value = best_value(trial.values, back.spec.objective.mode == "max")
        shown = "" if value is None else figure(value)
        _add_row(table, str(trial.number), trial.state.value, str(trial.epochs_done), shown, why(trial))
    _say(console, "")
    console.print(table)
    if back.row.damage:
        _say(console, f"of its row in the database this cannot be read: {back.row.damage}")
    if len(trials) < len(back.trials):
        shown = f"the {BEST_SHOWN} best and the {NEWEST_SHOWN} newest of {len(back.trials)} trials are shown"
        _say(console, f"{shown}; all of them: dialin show {back.row.id} --json")


def _telling(back: StudySnapshot) -> Sequence[TrialRecord]:
    """The trials that are shown: all by number, or of many the best ones, from the best, and the newest."""
    if len(back.trials) <= MOST_SHOWN:
        return back.trials
    best = [record for record, _ in ranked(back.trials, back.spec.objective.mode)[:BEST_SHOWN]]
    taken = {record.number for record in best}
    return [*best, *[record for record in back.trials if record.number not in taken][-NEWEST_SHOWN:]]


def show_knob(console: Console, row: Mapping[str, Any]) -> None:
    """All about one knob of the catalogue."""
    applies = " and ".join(f"{name} is {' or '.join(map(str, values))}" for name, values in row["applies"].items())
    lines = {
        "what it does": row["summary"],
        "values": row["values"],
        "typical range": row["typical"],
        "applies when": applies,
        "source": row["source"],
    }
    _say(console, f"{row['name']} ({row['group']})")
    for title, text in lines.items():
        if text:
            _say(console, f"  {title:<15} {text}")


def show_knobs(console: Console, rows: Sequence[Mapping[str, Any]]) -> None:
    """One line a knob where there is no room for a table; else the whole catalogue."""
    if console.width < WIDE:
        for row in rows:
            _say(console, f"{row['name']:<22} {row['summary']}")
        _say(console, "dialin knobs KNOB shows a knob's values, when it applies, and where that comes from")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("knob", "values", "typical range", "when", "what it does", "source"):
        table.add_column(title, overflow="fold")
    for row in rows:
        when = ", ".join(f"{name} {' or '.join(map(str, values))}" for name, values in row["applies"].items())
        _add_row(table, row["name"], row["values"], row["typical"] or "", when, row["summary"], row["source"])
    console.print(table)


def _resources(plan: Plan) -> str:
    cpus, gpus = plan.resources.cpus, plan.resources.gpus
    return f"on {cpus:g} cpu{'s' if cpus != 1 else ''}" + (
        f" and {gpus:g} gpu{'s' if gpus != 1 else ''}" if gpus else ""
    )


def _words(name: str) -> str:
    return name.replace("val_", "validation ").replace("_", " ")


def _short_path(path: str | None) -> str:
    relative = os.path.relpath(str(path))
    return relative if len(relative) < len(str(path)) and not relative.startswith("..") else str(path)


def _say(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, emoji=False)


def _add_row(table: Table, *cells: str) -> None:
    """A row of plain texts: strings would be read as rich's markup."""
    table.add_row(*(Text(printable(cell)) for cell in cells))
