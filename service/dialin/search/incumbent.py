"""The incumbent, or best trial: the one whose value is estimated to be the best. No other place decides it.

Validation is noisy: of many epochs of many trials, the one with the highest value owes a part of it to luck. So the
complete trials are compared by an estimate of what they are worth (`estimate`), which uses several epochs of each. The
expected value of the chosen one is its estimate, shrunk to the mean of them all by as much as noise explains their
differences. While no trial is complete, the order of `ranking` decides; with few epochs a trial, its best value is its
estimate.

All of it follows from the stored values, so a driver, a reader and a resumed study agree.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from dialin.lifecycle import TrialState
from dialin.search import ranking
from dialin.search.front import best_of
from dialin.search.goals import Goals
from dialin.search.ranking import Peak, peak_of
from dialin.search.records import TrialRecord
from dialin.specification.study_spec import ObjectiveSpec, StudySpec

BEST_FRACTION = 1 / 3
"""Fraction of a trial's epochs, the best of them, whose mean is its estimate. Measured beside means of the last or best
few epochs, running means, shrunken ones and a Gaussian process over the configurations: search/README.md."""
MOST_LUCK = 2.0
"""The estimate is at most so many standard deviations of an epoch's noise below the best value: what lies further below
is the course of the curve, not luck."""
FEWEST_EPOCHS = 5
"""With fewer epochs the estimate of a trial is its best value."""
FEWEST_TRIALS = 4
"""With fewer complete trials nothing is shrunk (James and Stein 1961: an estimate of three values cannot gain)."""
MOST_IMAGES = 100_000
"""Larger validation splits add no noise that matters here."""
MOST_READ = 20
"""Trials whose accuracies tell how many images were validated on."""

_MEDIAN_DEVIATION = 0.6745  # median of |x| of a standard normal x
_DIFFERENCED = math.sqrt(6)  # standard deviation of x1 - 2 x2 + x3 of three of them


@dataclass(frozen=True)
class Incumbent:
    """The chosen trial."""

    record: TrialRecord
    peak: Peak
    """Its best value."""
    expected: float | None
    """The expected value; None where noise cannot be told: while no trial is complete, and with few epochs."""


@dataclass(frozen=True)
class _Candidate:
    record: TrialRecord
    peak: Peak
    estimate: float
    noise: float
    epochs: int


def incumbent_of(
    records: Iterable[TrialRecord], spec: StudySpec, *, complete_only: bool = False, luckiest: bool = False
) -> Incumbent | None:
    """The complete trial with the best estimate; while there is none, the first of `ranking.best_of`, or None with
    `complete_only`. A trial that reached `budget.target` counts with the value that did. `luckiest`: the first of
    `ranking.best_of` in any case, as older versions chose.

    With several metrics or constraints nothing is estimated: it is the trial of the Pareto front that is best by the
    first metric.
    """
    records, goals = list(records), Goals.of(spec)
    candidates = _candidates(records, spec) if goals.is_single and not luckiest else []
    if candidates:
        chosen = _best_estimate(candidates, spec)
        expected = _expected(chosen, candidates, spec) if chosen.epochs >= FEWEST_EPOCHS else None
        return Incumbent(chosen.record, chosen.peak, expected)
    best = best_of(records, goals, complete_only=complete_only)
    peak = None if best is None else peak_of(best.values, spec.objective.mode == "max")
    return None if best is None or peak is None else Incumbent(best, peak, None)


def estimate(values: Sequence[float], maximize: bool) -> tuple[float, float]:
    """What a trial with these finite values by epoch is worth, and the standard deviation of an epoch's noise.

    The mean of the best third of its epochs, or where that lies further below the best value than luck explains, that
    value less `MOST_LUCK` deviations. The deviation is the median absolute second difference, scaled: neither a slope
    nor the drop of a learning rate counts as noise. A part of it is real: the weights of a good epoch are better.
    """
    ordered = sorted(values, reverse=maximize)
    if len(values) < FEWEST_EPOCHS:
        return ordered[0], 0.0
    bends = [abs(one - 2 * two + three) for one, two, three in zip(values, values[1:], values[2:], strict=False)]
    noise = statistics.median(bends) / _MEDIAN_DEVIATION / _DIFFERENCED
    mean = statistics.fmean(ordered[: round(len(values) * BEST_FRACTION)])
    least = ordered[0] - MOST_LUCK * noise if maximize else ordered[0] + MOST_LUCK * noise
    return (max if maximize else min)(mean, least), noise


def _candidates(records: Sequence[TrialRecord], spec: StudySpec) -> list[_Candidate]:
    """The complete trials that have a finite value."""
    by_number = {record.number: record for record in records}
    complete = [record for record in records if record.state is TrialState.COMPLETE]
    candidates = [_candidate(record, by_number, spec.objective.mode == "max") for record in complete]
    return [one for one in candidates if one is not None]


def _best_estimate(candidates: Sequence[_Candidate], spec: StudySpec) -> _Candidate:
    """The candidate with the best estimate; of equal ones the first in the order of `ranking`."""
    top = (max if spec.objective.mode == "max" else min)(one.estimate for one in candidates)
    equal = {one.record.number: one for one in candidates if one.estimate == top}
    first, *_ = ranking.ranked([one.record for one in equal.values()], spec.objective.mode)
    return equal[first[0].number]


def _candidate(record: TrialRecord, by_number: Mapping[int, TrialRecord], maximize: bool) -> _Candidate | None:
    peak = peak_of(record.values, maximize)
    if peak is None:
        return None
    curve = _curve(record, by_number)
    values = [value for epoch in sorted(curve) if math.isfinite(value := curve[epoch])]
    found, noise = estimate(values, maximize)
    if record.decision is not None and record.decision.cause == "target_reached":
        found = peak.value
    return _Candidate(record, peak, found, noise, len(values))


def _curve(record: TrialRecord, by_number: Mapping[int, TrialRecord]) -> Mapping[int, float]:
    """The values of the whole training: with those of the trial that this one continues."""
    if record.continues is None or record.continues not in by_number or record.continues >= record.number:
        return record.values
    before = _curve(by_number[record.continues], by_number)
    return {**{epoch: value for epoch, value in before.items() if epoch <= record.began}, **record.values}


def _expected(chosen: _Candidate, candidates: Sequence[_Candidate], spec: StudySpec) -> float:
    """The estimate of the chosen trial, shrunk to the mean of all as far as noise explains their differences.

    The positive-part estimator of James and Stein 1961 towards the mean (Efron and Morris 1973). The noise of an
    estimate is that of its epochs, and for an accuracy that of a validation split of so many images; the seed's part is
    unknown.
    """
    count = len(candidates)
    if count < FEWEST_TRIALS:
        return chosen.estimate
    estimates = [one.estimate for one in candidates]
    mean, spread = statistics.fmean(estimates), statistics.variance(estimates)
    epochs = max(1, round(chosen.epochs * BEST_FRACTION))
    noise = statistics.fmean(one.noise**2 for one in candidates) / epochs + _split_variance(chosen, candidates, spec)
    if spread <= 0:
        return chosen.estimate
    return mean + max(0.0, 1 - noise / spread * (count - 3) / (count - 1)) * (chosen.estimate - mean)


def _split_variance(chosen: _Candidate, candidates: Sequence[_Candidate], spec: StudySpec) -> float:
    """The binomial variance of an accuracy on the validation split; 0 for another metric.

    The number of images is not stored. Accuracies are fractions of it, so it is their common denominator.
    """
    if not isinstance(spec.objective, ObjectiveSpec) or spec.objective.metric != "val_accuracy":
        return 0.0
    values = {value for one in candidates[:MOST_READ] for value in one.record.values.values() if math.isfinite(value)}
    images = math.lcm(*(Fraction(value).limit_denominator(MOST_IMAGES).denominator for value in values))
    if images > MOST_IMAGES:
        return 0.0
    share = min(1.0, max(0.0, chosen.estimate))
    return share * (1 - share) / images
