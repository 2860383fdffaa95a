"""The report of a study in Markdown, with its best trials in a table; MLflow shows it on the page of the run."""

from __future__ import annotations

from collections.abc import Sequence

from dialin.results.diagnosis import diagnose
from dialin.results.summary import Result, epochs_text
from dialin.search.ranking import ranked
from dialin.search.records import TrialRecord
from dialin.texts import metric_text

SHOWN = 10  # trials in the table


def describe(result: Result, records: Sequence[TrialRecord], claim: str = "") -> str:
    """Return the report: how the study ended, the verdict on its claim, findings, the test score, the best trials."""
    lines = [*_summary(result, claim), *_findings(records), *_test_score(result)]
    lines += [f"| trial | {result.metric} | epochs | ended | why |", "|--:|--:|--:|---|---|"]
    for record, value in ranked(records, result.mode)[:SHOWN]:
        reason = record.reason.replace("|", "\\|")
        cells = (record.number, metric_text(value), record.epochs_done, record.state.value, reason)
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


def _test_score(result: Result) -> list[str]:
    if result.test is None:
        return []
    metrics = ", ".join(f"{name} {value:.4f}" for name, value in result.test.items())
    return [f"Trial {result.test_trial} on the test split ({result.test_count}): {metrics}.", ""]
