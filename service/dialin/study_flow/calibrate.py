"""The stage before the search: the range tests that a space asks for are run and read, and give the bounds of `lr`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dialin.charts.range_tests import write_range_tests
from dialin.execution.local_cluster import local_shape
from dialin.planning.plan import Plan
from dialin.planning.range_test_reading import read_curves
from dialin.planning.seeds import seed_of_trial
from dialin.settings import Settings
from dialin.specification import active_params, searched
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.domains import Choice, Fixed, FloatRange, IntRange, RangeTested, Scalar
from dialin.specification.range_tests import Calibration, Curve, Method, RateBounds, Sweep
from dialin.specification.study_spec import StudySpec
from dialin.study_flow.calibration_file import read_calibration, write_calibration
from dialin.study_flow.prepare import prepare
from dialin.study_flow.session import Session

MOST_COMBINATIONS = 24
MOST_SHARE = 1 / 20  # of the study's epochs, for all tests together, where the space does not say how long they are
FEWEST_STEPS, MOST_STEPS = 40, 200
# The tests' seeds lie below those of trials, whose numbers begin at 0.
FIRST_SEED_NUMBER = -1000

Params = Mapping[str, Scalar]
RunTests = Callable[[Sequence[tuple[Params, int]], Sweep], Sequence[Curve]]
"""Runs a range test of each (configuration, seed), and returns their curves in the same order."""
CostInEpochs = Callable[[Params, int], float]
"""The cost of that many test steps of a configuration, in epochs of training."""


def run_range_tests(plan: Plan, session: Session) -> Plan:
    """The plan with the range tests that its space asks for; they are run on the session's executor."""

    def run_tests(jobs: Sequence[tuple[Params, int]], sweep: Sweep) -> Sequence[Curve]:
        session.events.note(f"range tests of the learning rate: {len(jobs)} of {sweep.steps} steps")
        return session.place.executor.range_tests(session.trial_plan, jobs, sweep)

    folder = session.folder
    calibrated = calibrate(plan, run_tests, session.trial_plan.objective.range_test_epochs, folder.calibration)
    if calibrated.calibration is not None:
        for line in calibrated.calibration.lines():
            session.events.note(line)
        write_range_tests(calibrated.calibration, folder.range_tests_plot)
    return calibrated


def run_one_range_test(
    spec: StudySpec, settings: Settings, domain: RangeTested, note: Callable[[str], None]
) -> tuple[dict[str, Scalar], Calibration]:
    """The range test of one configuration of a space, in this process: the configuration, and what was found.

    Nothing is stored. Raises SpecError as `plan_study`, and DataError for a data set that is not available.
    """
    prepared = prepare(spec, settings, local_shape(), note)
    objective, resources = prepared.objective, prepared.plan.resources

    def run_tests(jobs: Sequence[tuple[Params, int]], sweep: Sweep) -> Sequence[Curve]:
        return [objective.range_test(params, seed, resources, sweep) for params, seed in jobs]

    return calibrate_one(spec, domain, run_tests, objective.range_test_epochs)


def calibrate(plan: Plan, run_tests: RunTests, cost_in_epochs: CostInEpochs, file: Path) -> Plan:
    """The plan with the bounds that its range tests found; unchanged when its space asks for no range test.

    The results are kept in `file` and read from there the next time. When the file is damaged, the tests are run again
    and a warning says so.
    """
    domain = plan.spec.space.get("lr")
    if not isinstance(domain, RangeTested):
        return plan
    kept = read_calibration(file)
    if isinstance(kept, Calibration):
        return replace(plan, calibration=kept)
    calibration = _calibrate(plan, domain, run_tests, cost_in_epochs)
    if kept is not None:
        warning = f"{kept.text}; they were run again"
        calibration = replace(calibration, warnings=(warning, *calibration.warnings))
    write_calibration(file, calibration)
    return replace(plan, calibration=calibration)


def _calibrate(plan: Plan, domain: RangeTested, run_tests: RunTests, cost_in_epochs: CostInEpochs) -> Calibration:
    combinations, warnings = combinations_of(plan.spec, domain)
    configurations = [_configuration(plan.spec, combination) for combination in combinations]
    steps = domain.steps or _affordable(configurations, domain.seeds, plan.most_epochs, cost_in_epochs)
    curves = _curves(plan.spec, configurations, domain, steps, run_tests)
    bounds, epochs = [], 0.0
    for combination, params, own in zip(combinations, configurations, curves, strict=True):
        tested, doubts = _read(combination, own, domain)
        bounds.append(tested)
        warnings += doubts
        epochs += sum(cost_in_epochs(params, len(curve.rates)) for curve in own)
    return Calibration(tuple(bounds), epochs, tuple(warnings))


def calibrate_one(
    spec: StudySpec, domain: RangeTested, run_tests: RunTests, cost_in_epochs: CostInEpochs
) -> tuple[dict[str, Scalar], Calibration]:
    """The range test of one configuration, every knob that moves at the middle of its values: that configuration, and
    its reading whether or not one can be confident of it."""
    params = _configuration(spec, {})
    (curves,) = _curves(spec, [params], domain, domain.steps or MOST_STEPS, run_tests)
    tested, warnings = _read({}, curves, domain)
    if tested.reading is not None:
        tested = replace(tested, low=tested.reading.low, high=tested.reading.high)
    epochs = sum(cost_in_epochs(params, len(curve.rates)) for curve in curves)
    return params, Calibration((tested,), epochs, tuple(warnings))


def _curves(
    spec: StudySpec, configurations: Sequence[Params], domain: RangeTested, steps: int, run_tests: RunTests
) -> list[tuple[Curve, ...]]:
    """For each configuration the curves of its seeds."""
    seeds = [seed_of_trial(spec.search.seed, FIRST_SEED_NUMBER - seed) for seed in range(domain.seeds)]
    jobs = [(params, seed) for params in configurations for seed in seeds]
    curves = list(run_tests(jobs, Sweep(domain.low, domain.high, steps)))
    return [tuple(curves[start : start + domain.seeds]) for start in range(0, len(curves), domain.seeds)]


def _affordable(configurations: Sequence[Params], seeds: int, epochs: int, cost_in_epochs: CostInEpochs) -> int:
    """As many steps a test as `MOST_SHARE` of the study's epochs pays for, within reason."""
    one = seeds * sum(cost_in_epochs(params, MOST_STEPS) for params in configurations) / MOST_STEPS
    return max(FEWEST_STEPS, min(MOST_STEPS, int(MOST_SHARE * epochs / one) if one > 0 else MOST_STEPS))


def combinations_of(spec: StudySpec, domain: RangeTested) -> tuple[list[dict[str, Scalar]], list[str]]:
    """The combinations of the knobs `per` that the space allows, at most 24; of a range its ends and its middle."""
    warnings: list[str] = []
    lists = [[(name, value) for value in _values(spec, name)] for name in domain.per]
    every = [dict(combination) for combination in itertools.product(*lists)]
    if len(every) > MOST_COMBINATIONS:
        warnings.append(
            f"range tests of {MOST_COMBINATIONS} of {len(every)} combinations of {', '.join(domain.per)}; "
            "the others take the bounds of the nearest"
        )
        step = len(every) / MOST_COMBINATIONS
        every = [every[int(index * step)] for index in range(MOST_COMBINATIONS)]
    return every, warnings


def _values(spec: StudySpec, name: str) -> list[Scalar]:
    match spec.space.get(name):
        case Fixed(value=value):
            return [value]
        case Choice(values=values):
            return list(values)
        case IntRange(low=low, high=high, log=log):
            middle = round((low * high) ** 0.5 if log else (low + high) / 2)
            return [*dict.fromkeys((low, middle, high))]
        case FloatRange(low=low, high=high, log=log):
            return [low, (low * high) ** 0.5 if log else (low + high) / 2, high]
        case _:
            return [CATALOGUE[name].default({})]


def _configuration(spec: StudySpec, combination: Params) -> dict[str, Scalar]:
    """The combination, with every other knob that moves at the middle of its values."""
    chosen: dict[str, Scalar] = {}
    for name in searched(spec):
        if name != "lr":
            values = _values(spec, name)
            chosen[name] = combination.get(name, values[len(values) // 2])
    return active_params(spec, chosen)


def _read(combination: Params, curves: tuple[Curve, ...], domain: RangeTested) -> tuple[RateBounds, list[str]]:
    method: Method = "third" if domain.method == "third" else "knees"
    name = ", ".join(f"{knob} {value}" for knob, value in combination.items()) or "this space"
    typical = CATALOGUE["lr"].typical
    fallback = (float(typical.low), float(typical.high)) if typical is not None else (domain.low, domain.high)
    try:
        reading = read_curves(curves, method)
    except ValueError as error:
        warning = f"range test of {name}: {error}; {fallback[0]:g} to {fallback[1]:g} is searched instead"
        return RateBounds(combination, *fallback, None, curves), [warning]
    if reading.confident:
        return RateBounds(combination, reading.low, reading.high, reading, curves), []
    warning = (
        f"range test of {name}: {'; '.join(reading.doubts)}; {fallback[0]:g} to {fallback[1]:g} is searched instead"
    )
    return RateBounds(combination, *fallback, reading, curves), [warning]
