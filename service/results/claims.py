"""Whether a claim about knobs held in a study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from service.search.records import State, TrialRecord
from service.search.study import best_value
from service.spec.study_spec import ClaimSpec, StudySpec

Verdict = Literal["held", "did not hold", "is not clear"]


@dataclass(frozen=True)
class Outcome:
    """The values of the two groups of trials, and what follows. "is not clear": the medians lie nearer to each other
    than trials of one group do (by their median absolute deviation), or a group is empty."""

    verdict: Verdict
    metric: str
    better: tuple[float, ...]
    than: tuple[float, ...]

    def text(self) -> str:
        if not self.better or not self.than:
            return f"the claim {self.verdict} here: {len(self.better)} against {len(self.than)} trials"
        return f"the claim {self.verdict} here: {self.metric} {_spread(self.better)} against {_spread(self.than)}"


def judge(spec: StudySpec, claim: ClaimSpec, records: Sequence[TrialRecord]) -> Outcome:
    """Compare the trials that match one side of the claim with those that match the other."""
    metric = claim.metric or spec.objective.metric
    higher = claim.direction == "higher" if claim.metric else spec.objective.mode == "max"
    better, than = (_values(spec, claim, records, side) for side in (claim.better, claim.than))
    if not better or not than:
        return Outcome("is not clear", metric, better, than)
    difference = (statistics.median(better) - statistics.median(than)) * (1 if higher else -1)
    noise = max(_deviation(better), _deviation(than))
    verdict: Verdict = "held" if difference > noise else "did not hold" if difference < -noise else "is not clear"
    return Outcome(verdict, metric, better, than)


def _values(
    spec: StudySpec, claim: ClaimSpec, records: Sequence[TrialRecord], side: Mapping[str, Sequence[object]]
) -> tuple[float, ...]:
    found = []
    for record in records:
        if record.state is State.FAILED or any(record.params.get(name) not in values for name, values in side.items()):
            continue
        value = (
            record.metrics.get(claim.metric)
            if claim.metric
            else best_value(record.values, spec.objective.mode == "max")
        )
        if value is not None:
            found.append(value)
    return tuple(found)


def _deviation(values: Sequence[float]) -> float:
    middle = statistics.median(values)
    return statistics.median(abs(value - middle) for value in values)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f}, n = {len(values)})"
