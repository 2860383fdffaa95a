"""Builds the models of `dialin.schemas` from stored studies and trials, and from plans.

The server, its page and the commands all build them here, so that each model is filled in one way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dialin import schemas
from dialin.errors import NoResultError
from dialin.lifecycle import ACTIVE, StudyState, TrialState
from dialin.planning.plan import Plan
from dialin.planning.prior import KnobPrior, Prior, defaults_by_root, prior_of
from dialin.results.summary import Result, find_best
from dialin.search.ranking import LOSS, best_value, peak_of
from dialin.search.records import TrialRecord
from dialin.specification import damage_of, lint, sampler_of, stored_spec, uses_prior
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import Domain, FloatRange, IntRange, Scalar
from dialin.specification.findings import Finding
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import StudySpec
from dialin.specification.wording import cases_text, centre_text, domain_text, knob_text, start_text, when_text
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


# The outcome of a study without trials.
NO_OUTCOME = Outcome(dict.fromkeys((state.value for state in TrialState), 0), None)


def outcome_in_summary(row: StudyRow) -> Outcome | None:
    """Return the outcome that is stored in the row of a complete study; None for any other study.

    With it, a list of many studies need not read their trials.
    """
    if row.state is not StudyState.COMPLETE or "trials" not in row.summary:
        return None
    return Outcome({**NO_OUTCOME.counts, **row.summary["trials"]}, (row.summary.get("best") or {}).get("value"))


def outcome_of_trials(spec: StudySpec | None, records: Sequence[TrialRecord]) -> Outcome:
    """Return the outcome of these trials. `spec`: None if it cannot be read; then the best value is unknown."""
    counted = Counter(record.state for record in records)
    best = find_best(spec, records) if spec is not None else None
    return Outcome({state.value: counted[state] for state in TrialState}, None if best is None else best.value)


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
        best=outcome.best,
        trials=schemas.TrialCounts.model_validate({**outcome.counts, "budget": budget}),
        seconds=driven_seconds(entry, now),
        created_at=row.created_at,
        ended_at=row.ended_at,
        mirror_lag=lag.events,
        mirror_note=lag.text(),
        links=links or schemas.Links(),
        **_submission_fields(entry),
    )


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
) -> schemas.StudyInFull:
    """Return a study with everything that is known about it. `snapshot`: None if its trials could not be read."""
    more: dict[str, Any] = {"spec": row.spec, "history": row.history()}
    if snapshot is not None:
        more |= {
            **test_scores(snapshot.result),
            "epochs": schemas.EpochCounts.model_validate(snapshot.result.epochs),
            "seconds_left": seconds_left,
            "claim": claim,
            "calibration": [] if snapshot.calibration is None else list(snapshot.calibration.lines()),
            "doctor": list(doctor),
        }
    return schemas.StudyInFull.model_validate({**dict(short), **more})


def best(snapshot: StudySnapshot) -> schemas.Best:
    """Return the best configuration so far. Raises NoResultError, with the reason, while there is none."""
    found = snapshot.result.best
    if found is None:
        raise NoResultError(_why_no_result(snapshot.row))
    return schemas.Best(
        trial=found.trial,
        value=found.value,
        epoch=found.epoch,
        params=dict(found.params),
        metric=snapshot.result.metric,
        mode=snapshot.spec.objective.mode,
        state=snapshot.row.state,
        **test_scores(snapshot.result),
    )


def test_scores(result: Result) -> dict[str, Any]:
    """Return the fields of `schemas.TestScores`."""
    return {
        "test": None if result.test is None else dict(result.test),
        "test_trial": result.test_trial,
        "test_looks": [schemas.TestLook(trial=look.trial, values=dict(look.values)) for look in result.looks],
    }


def _why_no_result(row: StudyRow) -> str:
    if row.state in ACTIVE:
        return f"study {row.id} is {row.state.value}, and no trial has reported a finite value yet"
    why = f": {row.reason}" if row.reason else ""
    return f"study {row.id} is {row.state.value}{why}; no trial has reported a finite value"


def trial(record: TrialRecord, maximize: bool, link: str | None = None) -> schemas.Trial:
    """Return a trial. `maximize`: whether the metric is maximized. `link`: the address of its run in MLflow."""
    fields = {name: read(record, maximize) for name, read in TRIAL_FIELDS.items()}
    return schemas.Trial.model_validate({**fields, "link": link})


def _values(record: TrialRecord) -> dict[str, float | None]:
    return {str(epoch): _finite(value) for epoch, value in record.values.items()}


def _best_epoch(record: TrialRecord, maximize: bool) -> int | None:
    peak = peak_of(record.values, maximize)
    return None if peak is None else peak.epoch


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
TRIAL_FIELDS: Mapping[str, Callable[[TrialRecord, bool], Any]] = {
    "trial": lambda record, _: record.number,
    "state": lambda record, _: record.state.value,
    "reason": lambda record, _: record.reason,
    "decision": lambda record, _: None if record.decision is None else record.decision.to_data(),
    "continues": lambda record, _: record.continues,
    "value": lambda record, maximize: best_value(record.values, maximize),
    "best_epoch": _best_epoch,
    "loss": lambda record, _: _finite(record.metrics.get(LOSS)),
    "epochs": lambda record, _: record.epochs_done,
    "values": lambda record, _: _values(record),
    "params": lambda record, _: {name: _shown(value) for name, value in record.params.items()},
    "seed": lambda record, _: record.seed,
    "started_at": lambda record, _: record.started_at,
    "ended_at": lambda record, _: record.ended_at,
    "findings": lambda record, _: [_finding(finding) for finding in record.findings],
}


def plan(planned: Plan) -> schemas.Plan:
    """Return what a specification would do."""
    spec = planned.spec
    prior = prior_of(spec, planned.calibration) if uses_prior(spec) else Prior()
    return schemas.Plan(
        name=spec.name,
        objective=spec.objective.model_dump(),
        knobs={
            name: schemas.PlannedKnob(domain=domain_text(domain), when=when_text(domain))
            for name, domain in spec.space.items()
        },
        trials=spec.budget.trials,
        epochs=spec.budget.epochs,
        rungs=list(planned.rungs),
        concurrency=planned.concurrency,
        sampler=sampler_of(spec),
        prior={name: _planned_prior(belief, spec.space[name]) for name, belief in prior.knobs.items()},
        first_trials=defaults_by_root(spec, prior, planned.calibration) if prior.knobs else [],
        resources=schemas.PlannedResources(cpus=planned.resources.cpus, gpus=planned.resources.gpus),
        most_epochs=planned.most_epochs,
        likely_epochs=planned.likely_epochs,
        warnings=[schemas.LintWarning(path=each.path, message=each.message) for each in lint(spec)],
    )


def _planned_prior(belief: KnobPrior, domain: Domain) -> schemas.PlannedPrior:
    is_log = isinstance(domain, FloatRange | IntRange) and domain.log
    spread = "" if belief.spread is None else f"{belief.spread:.3g}{'x' if is_log else ''}"
    return schemas.PlannedPrior(centre=centre_text(belief.cases, belief.scaling), spread=spread, source=belief.source)


def knobs() -> list[schemas.Knob]:
    """Return every knob of the catalogue."""
    return [
        schemas.Knob(
            name=knob.name,
            group=knob.group,
            values=knob_text(knob),
            typical=None if knob.typical is None else domain_text(knob.typical),
            applies={name: list(values) for name, values in knob.applies.items()},
            summary=knob.summary,
            source=knob.source,
            default=cases_text(knob.defaults),
            start=start_text(knob),
            start_source="" if knob.start is None else knob.start.source,
        )
        for knob in CATALOGUE.values()
    ]


def range_test(params: Mapping[str, Any], calibration: Calibration) -> dict[str, Any]:
    """Return the range test of one configuration, as `dialin lr-range-test --json` prints it.

    `params`: every knob of the configuration.
    """
    tested = calibration.bounds[0]
    reading = None if tested.reading is None else asdict(tested.reading)
    return {
        "params": {name: value for name, value in params.items() if name != "lr"},
        "rate": tested.rate,
        "bounds": {"low": tested.low, "high": tested.high},
        "confident": tested.reading is not None and tested.reading.confident,
        "reading": reading,
        "epochs": calibration.epochs,
        "curves": [asdict(curve) for curve in tested.curves],
    }
