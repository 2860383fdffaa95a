"""The doctor's findings over a whole study: how many trials have each finding, and which knob values they share."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dialin.search.records import TrialRecord
from dialin.specification.findings import RULES
from dialin.texts import scalar_text

FEWEST = 3  # with fewer trials with a finding, shared knob values are chance
MOST_OTHERS = 0.25  # a condition is reported only if at most this fraction of the trials without the finding meet it
MOST_CONDITIONS = 2  # conditions that are reported for a finding


@dataclass(frozen=True)
class Diagnosis:
    """One finding, over all trials of a study."""

    code: str
    """The finding, as in `dialin.specification.findings.RULES`."""
    trials: tuple[int, ...]
    """The numbers of the trials that have it."""
    common: tuple[str, ...]
    """Conditions on knobs, such as `lr >= 0.3`, that all these trials and few others meet."""

    def text(self, of: int) -> str:
        """Return one sentence: how many of the study's `of` trials, what they have in common, and the remedy."""
        shared = f", all with {' and '.join(self.common)}" if self.common else ""
        return f"{len(self.trials)} of {of} trials: {self.code}{shared}; try {RULES[self.code].remedy}"


def diagnose(records: Sequence[TrialRecord]) -> list[Diagnosis]:
    """Return the findings of a study, the most frequent first."""
    counts = Counter(finding.code for record in records for finding in record.findings)
    columns = _varying(records) if any(count >= FEWEST for count in counts.values()) else {}
    found = []
    for code, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        affected = [any(finding.code == code for finding in record.findings) for record in records]
        numbers = tuple(itertools.compress((record.number for record in records), affected))
        common = _common(columns, affected) if FEWEST <= len(numbers) < len(records) else ()
        found.append(Diagnosis(code, numbers, common))
    return found


def _varying(records: Sequence[TrialRecord]) -> Mapping[str, Sequence[object]]:
    """The values of each knob that differs between trials; `_ABSENT` for a trial in which the knob is not active."""
    names = dict.fromkeys(name for record in records for name in record.params)
    columns = {name: [record.params.get(name, _ABSENT) for record in records] for name in names}
    return {name: column for name, column in columns.items() if any(value != column[0] for value in column)}


def _common(columns: Mapping[str, Sequence[object]], affected: Sequence[bool]) -> tuple[str, ...]:
    """The conditions on single knobs that best separate the affected trials from the others."""
    candidates: list[tuple[float, str]] = []
    for name, column in columns.items():
        values = list(itertools.compress(column, affected))
        others = [value for value, has in zip(column, affected, strict=True) if not has and value is not _ABSENT]
        if _ABSENT not in values and others:
            candidates += [found for found in _conditions(name, values, others) if found[0] <= MOST_OTHERS]
    return tuple(text for _, text in sorted(candidates)[:MOST_CONDITIONS])


def _conditions(name: str, values: Sequence[object], others: Sequence[object]) -> list[tuple[float, str]]:
    """Conditions that all `values` meet, each with the fraction of `others` that meet it too."""
    numbers, other_numbers = _numbers(values), _numbers(others)
    if len(numbers) == len(values) and len(other_numbers) == len(others):
        low, high = min(numbers), max(numbers)
        return [
            (_fraction(other >= low for other in other_numbers), f"{name} >= {low:.3g}"),
            (_fraction(other <= high for other in other_numbers), f"{name} <= {high:.3g}"),
        ]
    if all(value == values[0] for value in values):
        return [(_fraction(other == values[0] for other in others), f"{name} {scalar_text(values[0])}")]
    return []


def _fraction(conditions: Iterable[bool]) -> float:
    return statistics.fmean(conditions)


def _numbers(values: Sequence[object]) -> list[float]:
    return [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]


_ABSENT = object()  # differs from every value of a knob, None included
