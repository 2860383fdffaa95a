"""Builds the models of `dialin.schemas` that need no stored study: plans, the catalogue of knobs, range tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dialin import schemas
from dialin.planning.plan import Plan
from dialin.planning.prior import KnobPrior, Prior, first_trials, prior_of
from dialin.specification import lint, sampler_of, uses_prior
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import Domain
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import StudySpec
from dialin.specification.wording import (
    cases_text,
    centre_text,
    domain_text,
    knob_text,
    spread_text,
    start_text,
    when_text,
)
from dialin.study_flow.schema_builder import constraints_of


def plan(planned: Plan) -> schemas.Plan:
    """Return what a specification would do."""
    spec = planned.spec
    prior = prior_of(spec, planned.calibration) if uses_prior(spec) else Prior()
    return schemas.Plan(
        name=spec.name,
        objective=_objective(spec),
        constraints=constraints_of(spec),
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
        first_trials=_first_trials(planned, prior),
        resources=schemas.PlannedResources(cpus=planned.resources.cpus, gpus=planned.resources.gpus),
        most_epochs=planned.most_epochs,
        likely_epochs=planned.likely_epochs,
        warnings=[schemas.LintWarning(path=each.path, message=each.message) for each in lint(spec)],
    )


def _objective(spec: StudySpec) -> dict[str, Any]:
    """The section of the objective; with one metric without the list of several."""
    return {name: value for name, value in spec.objective.model_dump().items() if name != "metrics" or value}


def _planned_prior(belief: KnobPrior, domain: Domain) -> schemas.PlannedPrior:
    return schemas.PlannedPrior(
        centre=centre_text(domain, belief.cases, belief.scaling),
        spread=spread_text(belief.spread, domain),
        source=belief.source,
    )


def _first_trials(planned: Plan, prior: Prior) -> list[schemas.PlannedTrial]:
    """None with a warm start: its trials, which a plan does not read, take the place of the catalogue's values."""
    if not prior.knobs or planned.spec.search.warm_start:
        return []
    found = first_trials(planned.spec, prior, planned.calibration)
    return [schemas.PlannedTrial(trial=one.trial, params=dict(one.params), given=dict(one.given)) for one in found]


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
