"""Builds the models of `dialin.schemas` from stored studies and trials.

The server, its page and the commands all build them here, so that each model is filled in one way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dialin import schemas
from dialin.errors import NoResultError, UsageError
from dialin.events.best_value_curve import ShownCurve
from dialin.lifecycle import ACTIVE, StudyState, TrialState
from dialin.results.looks import look_at
from dialin.results.summary import BestTrial, Result, find_front
from dialin.search.goals import Goals
from dialin.search.ranking import LOSS, Peak, peak_of
from dialin.search.records import TrialRecord
from dialin.specification import damage_of, stored_spec
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding
from dialin.specification.study_spec import StudySpec
from dialin.store.entries import Entry
from dialin.store.studies import StudyRow
from dialin.study_flow.snapshot import StudySnapshot
from dialin.texts import MOST_LINE, printable, shorten
from dialin.tracking.lag import Lag


@dataclass(frozen=True)
class Outcome:
    """The states of a study's trials and the best value."""

    counts: Mapping[str, int]
    """The number of trials in each state."""
    best: float | None
    """The best value so far; None while no trial has reported a finite one."""
    front: int | None = None
    """How many trials are on the Pareto front; None with one metric."""


# The outcome of a study without trials.
NO_OUTCOME = Outcome(dict.fromkeys((state.value for state in TrialState), 0), None)


def outcome_in_summary(row: StudyRow) -> Outcome | None:
    """Return the outcome that is stored in the row of a complete study; None for any other study.

    With it, a list of many studies need not read their trials.
    """
    if row.state is not StudyState.COMPLETE or "trials" not in row.summary:
        return None
    front = row.summary.get("front")
    best = (row.summary.get("best") or {}).get("value")
    return Outcome({**NO_OUTCOME.counts, **row.summary["trials"]}, best, None if front is None else len(front))


def outcome_of_trials(spec: StudySpec | None, records: Sequence[TrialRecord], *, luckiest: bool = False) -> Outcome:
    """Return the outcome of these trials. `spec`: None if it cannot be read; then the best value is unknown.
    `luckiest`: as `snapshot.keeps_luckiest` says."""
    counted = Counter(record.state for record in records)
    front = find_front(spec, records, luckiest=luckiest) if spec is not None else ()
    return Outcome(
        {state.value: counted[state] for state in TrialState},
        front[0].value if front else None,
        len(front) if spec is not None and spec.has_front else None,
    )


def study(
    entry: Entry,
    outcome: Outcome,
    lag: Lag,
    *,
    links: schemas.Links | None = None,
    waits_for: str = "",
    damage: Sequence[str] = (),
    now: float,
) -> schemas.Study:
    """Return a study in short.

    `waits_for`: what it waits for, in words. `damage`: which parts cannot be read, apart from its row and its
    specification. `now`: seconds since 1970.
    """
    row = entry.study
    unreadable = damage_of(row.spec)
    spec = None if unreadable else stored_spec(row.spec)
    budget = sum(outcome.counts.values()) if spec is None else spec.budget.trials
    return schemas.Study(
        id=row.id,
        name=row.name,
        state=row.state,
        reason="; ".join(filter(None, (row.reason, waits_for))),
        unreadable="; ".join(filter(None, (row.damage, unreadable, *damage))),
        metric=str(row.summary.get("metric", "")) if spec is None else spec.objective.metric,
        mode="max" if spec is None else spec.objective.mode,
        metrics=_metrics(spec),
        constraints=constraints_of(spec),
        best=outcome.best,
        front=outcome.front,
        trials=schemas.TrialCounts.model_validate({**outcome.counts, "budget": budget}),
        seconds=driven_seconds(entry, now),
        created_at=row.created_at,
        ended_at=row.ended_at,
        mirror_lag=lag.events,
        mirror_note=lag.text(),
        links=links or schemas.Links(),
        **_submission_fields(entry),
    )


def _metrics(spec: StudySpec | None) -> list[schemas.Metric] | None:
    if spec is None or not spec.has_front:
        return None
    return [schemas.Metric(name=metric.name, mode=metric.mode) for metric in spec.metrics]


def constraints_of(spec: StudySpec | None) -> dict[str, schemas.Bound] | None:
    """Return the constraints of a specification; None without any, or where it cannot be read."""
    if spec is None or not spec.constraints:
        return None
    return {name: schemas.Bound(min=bound.min, max=bound.max) for name, bound in spec.constraints.items()}


def _submission_fields(entry: Entry) -> dict[str, Any]:
    """The fields that a submission to a server sets; their defaults for a study that was run without a server."""
    row, submission = entry.study, entry.submission
    if submission is None:
        return {
            "owner": None,
            "priority": 0,
            "started_at": row.created_at,
            "attempts": 1,
            "concurrency": None,
            "archived": False,
        }
    return {
        "owner": submission.owner,
        "priority": submission.priority,
        "started_at": submission.started_at,
        "attempts": submission.attempt,
        "concurrency": submission.concurrency if row.state in ACTIVE else None,
        "archived": submission.archived,
    }


def driven_seconds(entry: Entry, now: float) -> float:
    """Return how long all drivers of a study have worked on it, up to now. `now`: seconds since 1970."""
    before = float(entry.study.summary.get("seconds", 0.0))
    submission = entry.submission
    if entry.study.state is not StudyState.RUNNING or submission is None or submission.began_at is None:
        return before
    return round(before + now - submission.began_at, 3)


def study_in_full(
    short: schemas.Study,
    row: StudyRow,
    snapshot: StudySnapshot | None,
    *,
    claim: str | None = None,
    doctor: Sequence[str] = (),
    seconds_left: float | None = None,
    violated: Mapping[str, int] | None = None,
) -> schemas.StudyInFull:
    """Return a study with everything that is known about it. `snapshot`: None if its trials could not be read;
    `violated`: from `violations`."""
    more: dict[str, Any] = {"spec": row.spec, "history": row.history()}
    if snapshot is not None:
        best = snapshot.result.best
        more |= {
            **test_scores(snapshot.result, None),
            "pareto": pareto(snapshot, short.links.best) if snapshot.spec.has_front else None,
            "violations": violated,
            "best_trial": None if best is None else best.trial,
            "expected": None if best is None else best.expected,
            "epochs": schemas.EpochCounts.model_validate(snapshot.result.epochs),
            "seconds_left": seconds_left,
            "claim": claim,
            "calibration": [] if snapshot.calibration is None else list(snapshot.calibration.lines()),
            "doctor": list(doctor),
        }
    return schemas.StudyInFull.model_validate({**dict(short), **more})


def pareto(snapshot: StudySnapshot, link: str | None = None) -> list[schemas.ParetoPoint]:
    """Return the Pareto front; with one metric the best trial alone. Empty while there is none.

    `link`: the server's path of the best configuration, if it is a server's.
    """
    result = snapshot.result
    front = result.front if snapshot.spec.has_front else filter(None, [result.best])
    return [
        schemas.ParetoPoint(
            trial=one.trial,
            values=dict(one.values) or {result.metric: one.value},
            bounded=dict(one.bounded) or None,
            epoch=one.epoch,
            params=dict(one.params),
            link=f"{link}?trial={one.trial}" if link is not None else None,
        )
        for one in front
    ]


def violations(spec: StudySpec, records: Sequence[TrialRecord]) -> dict[str, int] | None:
    """Return how many trials violate each constraint; None for a study without constraints."""
    if not spec.constraints:
        return None
    goals = Goals.of(spec)
    points = filter(None, map(goals.point_of, records))
    counted = Counter(name for point in points for name in goals.violated(point))
    return {name: counted[name] for name in spec.constraints}


def best(snapshot: StudySnapshot, number: int | None = None) -> schemas.Best:
    """Return the best configuration so far; with several metrics that of the Pareto front which is best by the first.

    `number`: the trial of the front that is wanted. Raises NoResultError, with the reason, while there is none, and
    UsageError for a trial that is not on the front.
    """
    found, result = best_trial(snapshot, number), snapshot.result
    return schemas.Best(
        trial=found.trial,
        value=found.value,
        epoch=found.epoch,
        expected=found.expected,
        params=dict(found.params),
        metric=result.metric,
        mode=snapshot.spec.objective.mode,
        values=dict(found.values) or None,
        bounded=dict(found.bounded) or None,
        state=snapshot.row.state,
        **test_scores(result, found.trial),
    )


def best_trial(snapshot: StudySnapshot, number: int | None = None) -> BestTrial:
    """Return the trial of `best`. Raises as that function."""
    result = snapshot.result
    if result.best is None:
        raise NoResultError(_why_no_result(snapshot))
    front = result.front or [result.best]
    found = result.best if number is None else next((one for one in front if one.trial == number), None)
    if found is None:
        numbers = ", ".join(str(one.trial) for one in front)
        what = "on the Pareto front" if result.front else "the best one"
        raise UsageError(f"trial {number} is not {what} of study {snapshot.row.id}; allowed: {numbers}")
    return found


def test_scores(result: Result, trial: int | None) -> dict[str, Any]:
    """Return the fields of `schemas.TestScores`. `trial`: the trial that is asked about; None: the best one."""
    number = result.best.trial if trial is None and result.best is not None else trial
    look = look_at(result.looks, number)
    return {
        "test": None if look is None else dict(look.values),
        "test_trial": None if look is None else look.trial,
        "test_looks": [schemas.TestLook(trial=look.trial, values=dict(look.values)) for look in result.looks],
    }


def _why_no_result(snapshot: StudySnapshot) -> str:
    row = snapshot.row
    what = why_no_best(snapshot.spec, snapshot.trials)
    if row.state in ACTIVE:
        return f"study {row.id} is {row.state.value}, and {what} yet"
    why = f": {row.reason}" if row.reason else ""
    return f"study {row.id} is {row.state.value}{why}; {what}"


def why_no_best(spec: StudySpec, records: Sequence[TrialRecord]) -> str:
    """Return why a study has no best configuration: "no trial has reported a finite value", or that none meets the
    constraints, with how many violate each."""
    violated = violations(spec, records)
    if violated and any(violated.values()):
        counts = ", ".join(f"{count} violate{'s' * (count == 1)} {name}" for name, count in violated.items() if count)
        return f"no trial that has not failed meets the constraints ({counts})"
    return "no trial has reported a finite value"


def trial(record: TrialRecord, goals: Goals, link: str | None = None) -> schemas.Trial:
    """Return a trial. `goals`: the study's. `link`: the address of its run in MLflow."""
    fields = {name: read(record, goals) for name, read in TRIAL_FIELDS.items()}
    return schemas.Trial.model_validate({**fields, "link": link})


def _values(record: TrialRecord) -> dict[str, float | None]:
    return {str(epoch): _finite(value) for epoch, value in record.values.items()}


def _others(record: TrialRecord, goals: Goals) -> dict[str, dict[str, float | None]] | None:
    """The curves of what counts beside the first metric."""
    if not goals.further:
        return None
    return {
        name: {str(epoch): _finite(value) for epoch, value in record.others.get(name, {}).items()}
        for name in goals.further
    }


def _peak(record: TrialRecord, goals: Goals) -> Peak | None:
    """The best value of the first metric, and its epoch."""
    if goals.is_single:
        return peak_of(record.values, goals.metrics[0].mode == "max")
    point = goals.point_of(record)
    return None if point is None else Peak(point.values[0], point.epoch)


def _best_value(record: TrialRecord, goals: Goals) -> float | None:
    peak = _peak(record, goals)
    return None if peak is None else peak.value


def _best_epoch(record: TrialRecord, goals: Goals) -> int | None:
    peak = _peak(record, goals)
    return None if peak is None else peak.epoch


def _metrics_of(record: TrialRecord, goals: Goals) -> dict[str, float] | None:
    """Every metric and every bounded quantity at the point of a trial; None with one metric and no constraint."""
    point = None if goals.is_single else goals.point_of(record)
    if point is None:
        return None
    named = {metric.name: value for metric, value in zip(goals.metrics, point.values, strict=True)}
    return {**named, **point.bounded}


def _violated(record: TrialRecord, goals: Goals) -> list[str] | None:
    point = goals.point_of(record) if goals.constraints else None
    return None if point is None else list(goals.violated(point))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(value: Scalar) -> Scalar:
    """A knob's value. A very long text is cut, since hundreds of trials may repeat it."""
    return shorten(printable(value), MOST_LINE) if isinstance(value, str) else value


def _finding(finding: Finding) -> dict[str, Any]:
    rule = finding.rule
    about = {"severity": rule.severity, "cause": rule.cause, "remedy": rule.remedy, "source": rule.source}
    return {**finding.to_data(), **about, "text": finding.text()}


# Each field of `schemas.Trial` has its own function, so that the page computes only those of thousands of trials that
# it shows.
TRIAL_FIELDS: Mapping[str, Callable[[TrialRecord, Goals], Any]] = {
    "trial": lambda record, _: record.number,
    "state": lambda record, _: record.state.value,
    "reason": lambda record, _: record.reason,
    "decision": lambda record, _: None if record.decision is None else record.decision.to_data(),
    "continues": lambda record, _: record.continues,
    "value": _best_value,
    "best_epoch": _best_epoch,
    "metrics": _metrics_of,
    "violated": _violated,
    "loss": lambda record, _: _finite(record.metrics.get(LOSS)),
    "epochs": lambda record, _: record.epochs_done,
    "values": lambda record, _: _values(record),
    "others": _others,
    "params": lambda record, _: {name: _shown(value) for name, value in record.params.items()},
    "seed": lambda record, _: record.seed,
    "started_at": lambda record, _: record.started_at,
    "ended_at": lambda record, _: record.ended_at,
    "findings": lambda record, _: [_finding(finding) for finding in record.findings],
}


def best_curve(curve: ShownCurve) -> schemas.BestCurve:
    """Return how the best value, or the hypervolume of several metrics, grew."""
    points = [schemas.CurvePoint.model_construct(**vars(point)) for point in curve.points]  # thousands, and ours
    return schemas.BestCurve(
        metric=curve.metric,
        mode="min" if curve.mode == "min" else "max",
        points=points,
        left_out=curve.left_out,
        reference=curve.reference,
    )
