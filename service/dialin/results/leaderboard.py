"""The report of a study in Markdown, with its best trials in a table; MLflow shows it on the page of the run."""

from __future__ import annotations

from collections.abc import Sequence

from dialin.results.diagnosis import diagnose
from dialin.results.summary import BestTrial, Result, epochs_text, is_lucky
from dialin.search.decision import in_short
from dialin.search.front import placed
from dialin.search.goals import Goals
from dialin.search.ranking import ranked
from dialin.search.records import TrialRecord
from dialin.specification.wording import bound_text
from dialin.texts import measure_text, metric_text

SHOWN = 10  # trials in the table


def describe(result: Result, records: Sequence[TrialRecord], claim: str = "", goals: Goals | None = None) -> str:
    """Return the report: how the study ended, the verdict on its claim, findings, the test score, the best trials.

    `goals`: the study's; None for one metric without constraints.
    """
    lines = [*_summary(result, claim), *_findings(records), *_test_score(result)]
    if goals is not None and not goals.is_single:
        return "\n".join([*lines, *_front(result, goals), *_placed_table(records, goals)])
    marked = result.best if result.best is not None and is_lucky(result.best.value, result.best.expected) else None
    lines += _chosen(result, marked)
    lines += [f"| trial | {result.metric} | epochs | ended | why |", "|--:|--:|--:|---|---|"]
    for record, value in ranked(records, result.mode)[:SHOWN]:
        reason = record.reason.replace("|", "\\|")
        is_best = marked is not None and record.number == marked.trial
        cells = (
            f"**{record.number}**" if is_best else record.number,
            metric_text(value),
            record.epochs_done,
            record.state.value,
            reason,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _summary(result: Result, claim: str) -> list[str]:
    counts = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    lines = [f"**{result.study_id}** {result.state}{f': {result.reason}' if result.reason else ''}", ""]
    lines += [f"{counts or 'no trial ended'}; epochs trained: {epochs_text(result.epochs)}.", ""]
    return [*lines, f"{claim}.", ""] if claim else lines


def _findings(records: Sequence[TrialRecord]) -> list[str]:
    lines = [f"- {diagnosis.text(len(records))}" for diagnosis in diagnose(records)]
    return [*lines, ""] if lines else []


def _chosen(result: Result, marked: BestTrial | None) -> list[str]:
    """How the best trial was chosen, where the order of the table does not say it."""
    if marked is None:
        return []
    about = f"Trial {marked.trial} is the best by its estimate: {result.metric} {marked.value_text()}."
    return [f"{about} The table is in the order of the best value of any epoch, complete trials first.", ""]


def _test_score(result: Result) -> list[str]:
    if result.test is None:
        return []
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in result.test.items())
    return [f"Trial {result.test_trial} on the test split ({result.test_count}): {metrics}.", ""]


def _front(result: Result, goals: Goals) -> list[str]:
    """The trials of the Pareto front, and the constraints."""
    bounds = ", ".join(bound_text(name, bound) for name, bound in goals.constraints.items())
    within = f" within {bounds}" if bounds else ""
    if result.best is None:
        return [f"No trial meets the constraints: {bounds}.", ""] if bounds else []
    if not result.front:
        return [f"Trial {result.best.trial} is the best{within}.", ""]
    metrics = ", ".join(f"{metric.name} ({metric.mode})" for metric in goals.metrics)
    numbers = ", ".join(str(one.trial) for one in result.front)
    return [f"The Pareto front of {metrics}{within}: trials {numbers}.", ""]


def _placed_table(records: Sequence[TrialRecord], goals: Goals) -> list[str]:
    """The best trials by `dialin.search.front`, with a column for each metric and each bounded quantity."""
    names = list(dict.fromkeys([*(metric.name for metric in goals.metrics), *goals.constraints]))
    titles = ["trial", *names, "front", "epochs", "ended", "why"]
    lines = [f"| {' | '.join(titles)} |", f"|{'--:|' * (len(names) + 2)}--:|---|---|"]
    for one in placed(records, goals)[:SHOWN]:
        values = dict(zip((metric.name for metric in goals.metrics), one.point.values, strict=True))
        found = {**one.point.bounded, **values}
        violated = goals.violated(one.point)
        front = f"violates {', '.join(violated)}" if violated else str(one.front)
        record = one.record
        cells = [str(record.number), *(measure_text(found[name]) for name in names), front]
        cells += [str(record.epochs_done), record.state.value, in_short(record.reason).replace("|", "\\|")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines
