"""Studies, trials, plans and knobs as plain data: what `--json` prints and the server answers with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from dialin.planning.plan import Plan
from dialin.search.ranking import LOSS, best_value, peak_of
from dialin.search.records import TrialRecord
from dialin.specification import lint, sampler_of
from dialin.specification.catalogue import CATALOGUE, Knob
from dialin.specification.domains import Choice, Domain, Fixed, FloatRange, IntRange, RangeTested, Scalar
from dialin.specification.findings import Finding
from dialin.specification.range_tests import Calibration
from dialin.study_flow.snapshot import StudySnapshot
from dialin.texts import MOST_LINE, MOST_VALUE, one_line, printable, shorten


def plan_data(plan: Plan) -> dict[str, Any]:
    """The dry run for machines."""
    spec = plan.spec
    return {
        "name": spec.name,
        "objective": spec.objective.model_dump(),
        "knobs": {
            name: {"domain": domain_text(domain), "when": when_text(domain)} for name, domain in spec.space.items()
        },
        "trials": spec.budget.trials,
        "epochs": spec.budget.epochs,
        "rungs": list(plan.rungs),
        "concurrency": plan.concurrency,
        "sampler": sampler_of(spec),
        "resources": {"cpus": plan.resources.cpus, "gpus": plan.resources.gpus},
        "most_epochs": plan.most_epochs,
        "likely_epochs": plan.likely_epochs,
        "warnings": [{"path": warning.path, "message": warning.message} for warning in lint(spec)],
    }


def range_test_data(params: Mapping[str, Any], calibration: Calibration) -> dict[str, Any]:
    """The range test of one configuration, for machines."""
    tested = calibration.bounds[0]
    reading = None if tested.reading is None else asdict(tested.reading)
    return {
        "params": {name: value for name, value in params.items() if name != "lr"},
        "bounds": {"low": tested.low, "high": tested.high},
        "confident": tested.reading is not None and tested.reading.confident,
        "reading": reading,
        "epochs": calibration.epochs,
        "curves": [asdict(curve) for curve in tested.curves],
    }


def study_data(back: StudySnapshot) -> dict[str, Any]:
    """A study with its trials, for machines."""
    return {
        **back.result.to_data(),
        "reason": back.row.reason,
        "mirror_lag": back.mirror_lag,
        "mirror_note": back.mirror_note,
        "trial_list": [record_data(t, back.spec.objective.mode == "max") for t in back.trials],
    }


def trial_data(back: StudySnapshot, number: int) -> dict[str, Any]:
    """One trial, for machines."""
    return record_data(back.find_trial(number), back.spec.objective.mode == "max")


def record_data(trial: TrialRecord, maximize: bool) -> dict[str, Any]:
    """One trial's record, for machines. A value that is not finite is null."""
    return {name: read(trial, maximize) for name, read in RECORD_FIELDS.items()}


def _values_data(trial: TrialRecord) -> dict[str, float | None]:
    return {str(epoch): _finite(value) for epoch, value in trial.values.items()}


def _best_epoch(trial: TrialRecord, maximize: bool) -> int | None:
    peak = peak_of(trial.values, maximize)
    return None if peak is None else peak.epoch


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _shown(value: Scalar) -> Scalar:
    """A knob's value; a very long text is cut: hundreds of trials may have it."""
    return shorten(printable(value), MOST_LINE) if isinstance(value, str) else value


def _finding_data(finding: Finding) -> dict[str, Any]:
    rule = finding.rule
    about = {"severity": rule.severity, "cause": rule.cause, "remedy": rule.remedy, "source": rule.source}
    return {**finding.to_data(), **about, "text": finding.text()}


# Each field of a trial for machines by itself: who shows few fields of many trials makes only those.
RECORD_FIELDS: Mapping[str, Callable[[TrialRecord, bool], Any]] = {
    "trial": lambda trial, _: trial.number,
    "state": lambda trial, _: trial.state.value,
    "reason": lambda trial, _: trial.reason,
    "decision": lambda trial, _: None if trial.decision is None else trial.decision.to_data(),
    "continues": lambda trial, _: trial.continues,
    "value": lambda trial, maximize: best_value(trial.values, maximize),
    "best_epoch": lambda trial, maximize: _best_epoch(trial, maximize),
    "loss": lambda trial, _: _finite(trial.metrics.get(LOSS)),
    "epochs": lambda trial, _: trial.epochs_done,
    "values": lambda trial, _: _values_data(trial),
    "params": lambda trial, _: {name: _shown(value) for name, value in trial.params.items()},
    "seed": lambda trial, _: trial.seed,
    "started_at": lambda trial, _: trial.started_at,
    "ended_at": lambda trial, _: trial.ended_at,
    "findings": lambda trial, _: [_finding_data(finding) for finding in trial.findings],
}


def knobs_data() -> list[dict[str, Any]]:
    """The catalogue for machines."""
    return [
        {
            "name": knob.name,
            "group": knob.group,
            "values": _knob_values(knob),
            "typical": None if knob.typical is None else domain_text(knob.typical),
            "applies": {name: list(values) for name, values in knob.applies.items()},
            "summary": knob.summary,
            "source": knob.source,
        }
        for knob in CATALOGUE.values()
    ]


def _knob_values(knob: Knob) -> str:
    if knob.choices:
        return ", ".join(value_text(value) for value in knob.choices)
    if knob.parts:
        return f"none, or of {', '.join(knob.parts)} some joined by +"
    kind = "whole number" if knob.kind == "int" else "number"
    low = f"{'above' if knob.low_open else 'from'} {knob.low:g}" if knob.low is not None else ""
    high = f"{'below' if knob.high_open else 'to'} {knob.high:g}" if knob.high is not None else ""
    return " ".join(part for part in (kind, low, high) if part)


def domain_text(domain: Domain) -> str:
    match domain:
        case Fixed(value=value):
            return value_text(value)
        case Choice(values=values):
            return "one of " + ", ".join(value_text(value) for value in values)
        case RangeTested(method=method, per=per):
            each = f", for each {', '.join(per)}" if per else ""
            return f"between the bounds of a range test ({method}{each})"
        case FloatRange() | IntRange():
            step = f", step {domain.step:g}" if domain.step not in (None, 1) else ""
            return f"{value_text(domain.low)} to {value_text(domain.high)}{', log' if domain.log else ''}{step}"


def when_text(domain: Domain) -> str:
    parts = (f"{name} is {' or '.join(map(value_text, values))}" for name, values in domain.when.items())
    text = " and ".join(parts)
    return f"when {text}" if text else ""


def value_text(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value).lower().replace("none", "null")
    return f"{value:.4g}" if isinstance(value, float) else one_line(value, MOST_VALUE)


def why(trial: TrialRecord) -> str:
    """Why a trial ended, and where it began when that was not at the beginning."""
    began = f"went on from trial {trial.continues} after epoch {trial.began}" if trial.continues is not None else ""
    return "; ".join(part for part in (began, trial.reason) if part)
