"""Studies, trials, plans and knobs as plain data: what `--json` prints and the server answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from dialin.search.records import TrialRecord
from dialin.specification.catalogue import Knob
from dialin.specification.domains import Choice, Domain, Fixed, FloatRange, IntRange, RangeTested
from dialin.specification.range_tests import Calibration
from dialin.texts import MOST_VALUE, one_line


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


def knob_values(knob: Knob) -> str:
    """The values that a knob may take, in words."""
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
