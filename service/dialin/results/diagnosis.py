"""What the doctor found in a whole study: which diseases, how many trials, and which knobs they have in common."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dialin.search.records import TrialRecord
from dialin.specification.findings import RULES

FEWEST = 3  # trials, before their knobs are compared
APART = 0.25  # of the trials without the finding may lie on the side of those with it


@dataclass(frozen=True)
class Diagnosis:
    """One disease of a study. `common`: conditions on knobs that all its trials meet and few others do."""

    code: str
    trials: tuple[int, ...]
    common: tuple[str, ...]

    def text(self, of: int) -> str:
        """One sentence: how many of how many trials, what they share, and the remedy."""
        shared = f", all with {' and '.join(self.common)}" if self.common else ""
        return f"{len(self.trials)} of {of} trials: {self.code}{shared}; try {RULES[self.code].remedy}"


def diagnose(records: Sequence[TrialRecord]) -> list[Diagnosis]:
    """The diseases of a study, the most frequent first."""
    counts = Counter(finding.code for record in records for finding in record.findings)
    columns = _varying(records) if any(count >= FEWEST for count in counts.values()) else {}
    found = []
    for code, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        is_sick = [any(finding.code == code for finding in record.findings) for record in records]
        sick = tuple(itertools.compress((record.number for record in records), is_sick))
        common = _common(columns, is_sick) if FEWEST <= len(sick) < len(records) else ()
        found.append(Diagnosis(code, sick, common))
    return found


def _varying(records: Sequence[TrialRecord]) -> Mapping[str, Sequence[object]]:
    """The values of the knobs that are not the same in all trials; `_ABSENT` where a trial has not that knob."""
    names = dict.fromkeys(name for record in records for name in record.params)
    columns = {name: [record.params.get(name, _ABSENT) for record in records] for name in names}
    return {name: column for name, column in columns.items() if any(value != column[0] for value in column)}


def _common(columns: Mapping[str, Sequence[object]], is_sick: Sequence[bool]) -> tuple[str, ...]:
    """What tells the sick from the well, one knob at a time, the sharpest two."""
    candidates: list[tuple[float, str]] = []
    for name, column in columns.items():
        values = list(itertools.compress(column, is_sick))
        others = [value for value, sick in zip(column, is_sick, strict=True) if not sick and value is not _ABSENT]
        if _ABSENT not in values and others:
            candidates += _splits(name, values, others)
    return tuple(text for _, text in sorted(candidates)[:2])


def _splits(name: str, values: Sequence[object], others: Sequence[object]) -> list[tuple[float, str]]:
    numbers, plain = _numbers(values), _numbers(others)
    if len(numbers) == len(values) and len(plain) == len(others):
        low, high = min(numbers), max(numbers)
        above, below = sum(other >= low for other in plain), sum(other <= high for other in plain)
        choices = [(above / len(plain), f"{name} >= {low:.3g}"), (below / len(plain), f"{name} <= {high:.3g}")]
        return [choice for choice in choices if choice[0] <= APART]
    if all(value == values[0] for value in values):
        share = sum(other == values[0] for other in others) / len(others)
        return [(share, f"{name} {values[0]}")] if share <= APART else []
    return []


def _numbers(values: Sequence[object]) -> list[float]:
    return [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]


_ABSENT = object()
