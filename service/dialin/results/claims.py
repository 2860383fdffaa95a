"""Tests whether a claim about knobs holds in a study."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dialin.lifecycle import TrialState
from dialin.search.ranking import best_value
from dialin.search.records import TrialRecord
from dialin.specification.study_spec import ClaimSpec, StudySpec

FEWEST = 5  # trials a side: for 5 against 5 in perfect order p is 0.008, for 3 against 3 it is never below 0.1
LEVEL = 0.05  # significance level of the two-sided test; a study has one claim, so there is no correction for several

_JUDGED = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.DIVERGED)

Verdict = Literal["held", "did not hold", "is not clear", "cannot be judged"]


@dataclass(frozen=True)
class ClaimOutcome:
    """The verdict on a claim, by the two-sided rank test of Mann and Whitney (1947)."""

    verdict: Verdict
    """"held": `better` has the better values and p is below LEVEL; "did not hold": it has the worse values and p is
    below LEVEL; "is not clear": p is not below LEVEL; "cannot be judged": a side has fewer than FEWEST trials."""
    metric: str
    """The metric whose values are compared."""
    better: tuple[float, ...]
    """Values of the trials that the claim says are better."""
    than: tuple[float, ...]
    """Values of the trials that these are compared with."""
    p: float | None = None
    """The probability of a difference this large by chance; None where the claim cannot be judged."""

    def text(self) -> str:
        """Return one sentence: the verdict with both groups' median, range and number of trials, and p."""
        if self.p is None:
            sides = f"n = {len(self.better)} against {len(self.than)}"
            return f"the claim {self.verdict}: {sides}; at least {FEWEST} a side are needed"
        below = "below" if self.p < LEVEL else "not below"
        test = f"p = {_p_text(self.p)}, {below} {LEVEL:g} (Mann-Whitney, two-sided)"
        groups = f"{self.metric} {_spread(self.better)} against {_spread(self.than)}"
        return f"the claim {self.verdict} here: {groups}; {test}"


def judge(spec: StudySpec, claim: ClaimSpec, records: Sequence[TrialRecord]) -> ClaimOutcome:
    """Compare the trials that match one side of the claim with those that match the other.

    Each training counts once: a trial that another trial continues is left out, and so are repetitions of a trial with
    the same configuration and seed. Trials that failed or have not ended do not count.
    """
    metric = claim.metric or spec.objective.metric
    higher = claim.direction == "higher" if claim.metric else spec.objective.mode == "max"
    trainings = _trainings(records)
    better, than = (_values(spec, claim, trainings, side) for side in (claim.better, claim.than))
    if min(len(better), len(than)) < FEWEST:
        return ClaimOutcome("cannot be judged", metric, better, than)
    # scipy takes long to import, and few studies make a claim.
    from scipy.stats import mannwhitneyu

    found = mannwhitneyu(better, than, alternative="two-sided")
    p = float(found.pvalue)
    above = float(found.statistic) > len(better) * len(than) / 2
    verdict: Verdict = "is not clear" if p >= LEVEL else "held" if above == higher else "did not hold"
    return ClaimOutcome(verdict, metric, better, than, p)


def _trainings(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The trials to compare, each training once: see `judge`."""
    ended = [record for record in records if record.state in _JUDGED]
    continued = {record.continues for record in ended}
    lasting = (record for record in ended if record.number not in continued)
    return list({(tuple(sorted(record.params.items())), record.seed): record for record in lasting}.values())


def _values(
    spec: StudySpec, claim: ClaimSpec, records: Sequence[TrialRecord], side: Mapping[str, Sequence[object]]
) -> tuple[float, ...]:
    found = []
    for record in records:
        if any(record.params.get(name) not in values for name, values in side.items()):
            continue
        value = (
            record.metrics.get(claim.metric)
            if claim.metric
            else best_value(record.values, spec.objective.mode == "max")
        )
        if value is not None:
            found.append(value)
    return tuple(found)


def _p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1g}"


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f}, n = {len(values)})"
