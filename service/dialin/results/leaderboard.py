"""The trials of a study from the best to the worst."""

from __future__ import annotations

from collections.abc import Sequence

from dialin.results.diagnosis import diagnose
from dialin.results.summary import Result, epochs_text
from dialin.search.ranking import ranked
from dialin.search.records import TrialRecord
from dialin.texts import metric_text

SHOWN = 10


def describe(result: Result, records: Sequence[TrialRecord], claim: str = "") -> str:
    """The study in Markdown: how it ended, and its best trials."""
    counts = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    lines = [f"**{result.study_id}** {result.state}{f': {result.reason}' if result.reason else ''}", ""]
    lines += [f"{counts or 'no trial ended'}; epochs trained: {epochs_text(result.epochs)}.", ""]
    lines += [f"{claim}.", ""] if claim else []
    diagnoses = diagnose(records)
    lines += [f"- {diagnosis.text(len(records))}" for diagnosis in diagnoses] + [""] * bool(diagnoses)
    if result.test is not None:
        measured = ", ".join(f"{name} {value:.4f}" for name, value in result.test.items())
        lines += [f"Trial {result.test_trial} on the test split ({result.test_count}): {measured}.", ""]
    lines += [f"| trial | {result.metric} | epochs | ended | why |", "|--:|--:|--:|---|---|"]
    for record, value in ranked(records, result.mode)[:SHOWN]:
        reason = record.reason.replace("|", "\\|")
        cells = (record.number, metric_text(value), record.epochs_done, record.state.value, reason)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
