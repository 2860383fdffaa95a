"""What the doctor found in a whole study: which diseases, how many trials, and which knobs they have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from service.search.records import TrialRecord
from service.spec.findings import RULES

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
    found = []
    for code, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        sick = [record for record in records if any(finding.code == code for finding in record.findings)]
        well = [record for record in records if record not in sick]
        common = _common(sick, well) if len(sick) >= FEWEST and well else ()
        found.append(Diagnosis(code, tuple(record.number for record in sick), common))
    return found


def _common(sick: Sequence[TrialRecord], well: Sequence[TrialRecord]) -> tuple[str, ...]:
    """What tells the sick from the well, one knob at a time, the sharpest two."""
    candidates: list[tuple[float, str]] = []
    for name in sick[0].params:
        values = [record.params.get(name) for record in sick]
        others = [record.params[name] for record in well if name in record.params]
        if not others or len(set(map(str, [*values, *others]))) == 1:
            continue
        candidates += _splits(name, values, others)
    return tuple(text for _, text in sorted(candidates)[:2])


def _splits(name: str, values: Sequence[object], others: Sequence[object]) -> list[tuple[float, str]]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    plain = [value for value in others if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and len(plain) == len(others):
        above = sum(other >= min(numbers) for other in plain) / len(plain)
        below = sum(other <= max(numbers) for other in plain) / len(plain)
        choices = [(above, f"{name} >= {min(numbers):.3g}"), (below, f"{name} <= {max(numbers):.3g}")]
        return [choice for choice in choices if choice[0] <= APART]
    if len(set(map(str, values))) == 1:
        share = sum(other == values[0] for other in others) / len(others)
        return [(share, f"{name} {values[0]}")] if share <= APART else []
    return []
