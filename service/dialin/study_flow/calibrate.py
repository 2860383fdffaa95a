"""The stage before the search: runs the range tests that a space asks for, and reads the rates of `lr` from them."""

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
from dialin.specification.domains import Choice, Fixed, FloatRange, IntRange, RangeTested, Scalar, is_number
from dialin.specification.range_tests import Calibration, Curve, Method, RateBounds, Reading, Sweep
from dialin.specification.study_spec import StudySpec
from dialin.study_flow.calibration_file import read_calibration, write_calibration
from dialin.study_flow.prepare import prepare
from dialin.study_flow.session import Session

MOST_COMBINATIONS = 24  # combinations of knobs that are tested
MOST_COST = 1 / 20  # cost of all tests as a fraction of the study's epochs, where the space sets no number of steps
FEWEST_STEPS, MOST_STEPS = 40, 200  # steps of a test, where the space sets no number of steps
ABOUT_DEFAULT = 100.0  # bounds about the catalogue's default, where a test is not trusted: rate / this to rate * this
# Seeds are numbered like trials. Trials are numbered from 0, so numbers below 0 give the tests seeds of their own.
FIRST_SEED_NUMBER = -1000

_METHODS: Mapping[str, Method] = {"minimum": "minimum", "third": "third", "knees": "knees"}

Params = Mapping[str, Scalar]
RunTests = Callable[[Sequence[tuple[Params, int]], Sweep], Sequence[Curve]]
"""Runs a range test of each (configuration, seed), and returns their curves in the same order."""
CostInEpochs = Callable[[Params, int], float]
"""The cost of that many test steps of a configuration, in epochs of training."""


def run_range_tests(plan: Plan, session: Session) -> Plan:
    """Run the range tests that the plan's space asks for on the session's executor; return the plan with the results.

    The rates are added to the event log, and a chart of the curves is written to the study's folder.
    """

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
    """Run the range test of one configuration of a space in this process; return the configuration and the result.

    Nothing is stored. Raises SpecError as `plan_study`, and DataError for a data set that is not available.
    """
    prepared = prepare(spec, settings, local_shape(), note)
    objective, resources = prepared.objective, prepared.plan.resources

    def run_tests(jobs: Sequence[tuple[Params, int]], sweep: Sweep) -> Sequence[Curve]:
        return [objective.range_test(params, seed, resources, sweep) for params, seed in jobs]

    return calibrate_one(spec, domain, run_tests, objective.range_test_epochs)


def calibrate(plan: Plan, run_tests: RunTests, cost_in_epochs: CostInEpochs, file: Path) -> Plan:
    """Return the plan with the rates that its range tests found; unchanged when its space asks for no range test.

    The results are written to `file`, and a resumed study reads them from there. When the file is damaged, the tests
    are run again and a warning says so.
    """
    domain = plan.spec.space.get("lr")
    if not isinstance(domain, RangeTested):
        return plan
    stored = read_calibration(file)
    if isinstance(stored, Calibration):
        return replace(plan, calibration=stored)
    calibration = _calibrate(plan, domain, run_tests, cost_in_epochs)
    if stored is not None:
        warning = f"{stored.text}; they were run again"
        calibration = replace(calibration, warnings=(warning, *calibration.warnings))
    write_calibration(file, calibration)
    return replace(plan, calibration=calibration)


def _calibrate(plan: Plan, domain: RangeTested, run_tests: RunTests, cost_in_epochs: CostInEpochs) -> Calibration:
    combinations, warnings = combinations_of(plan.spec, domain)
    configurations = [_configuration(plan.spec, combination) for combination in combinations]
    steps = domain.steps or _affordable_steps(configurations, domain.seeds, plan.most_epochs, cost_in_epochs)
    curves_by_configuration = _curves(plan.spec, configurations, domain, steps, run_tests)
    bounds, epochs = [], 0.0
    for combination, params, curves in zip(combinations, configurations, curves_by_configuration, strict=True):
        tested, doubts = _read_rate(combination, params, curves, domain)
        bounds.append(tested)
        warnings += doubts
        epochs += sum(cost_in_epochs(params, len(curve.rates)) for curve in curves)
    return Calibration(tuple(bounds), epochs, tuple(warnings))


def calibrate_one(
    spec: StudySpec, domain: RangeTested, run_tests: RunTests, cost_in_epochs: CostInEpochs
) -> tuple[dict[str, Scalar], Calibration]:
    """Test the configuration with every searched knob at the middle of its values; return it and the result.

    Unlike in `calibrate`, the rate is the one that was read from the curves even if the confidence is low: a person
    looks at it, and no study depends on it.
    """
    params = _configuration(spec, {})
    (curves,) = _curves(spec, [params], domain, domain.steps or MOST_STEPS, run_tests)
    tested, warnings = _read_rate({}, params, curves, domain)
    if tested.reading is not None:
        tested = _as_read({}, tested.reading, curves) or tested
    epochs = sum(cost_in_epochs(params, len(curve.rates)) for curve in curves)
    return params, Calibration((tested,), epochs, tuple(warnings))


def _curves(
    spec: StudySpec, configurations: Sequence[Params], domain: RangeTested, steps: int, run_tests: RunTests
) -> list[tuple[Curve, ...]]:
    """Run the tests of all configurations together; return for each configuration the curves of its seeds."""
    seeds = [seed_of_trial(spec.search.seed, FIRST_SEED_NUMBER - seed) for seed in range(domain.seeds)]
    jobs = [(params, seed) for params in configurations for seed in seeds]
    curves = list(run_tests(jobs, Sweep(domain.low, domain.high, steps)))
    return [tuple(curves[start : start + domain.seeds]) for start in range(0, len(curves), domain.seeds)]


def _affordable_steps(configurations: Sequence[Params], seeds: int, epochs: int, cost_in_epochs: CostInEpochs) -> int:
    """The steps of a test, so that all tests cost at most MOST_COST of the study's epochs.

    At least FEWEST_STEPS, since a shorter curve cannot be read, and at most MOST_STEPS, which show no more detail.
    """
    cost_of_step = seeds * sum(cost_in_epochs(params, MOST_STEPS) for params in configurations) / MOST_STEPS
    affordable = int(MOST_COST * epochs / cost_of_step) if cost_of_step > 0 else MOST_STEPS
    return max(FEWEST_STEPS, min(MOST_STEPS, affordable))


def combinations_of(spec: StudySpec, domain: RangeTested) -> tuple[list[dict[str, Scalar]], list[str]]:
    """Return the combinations to test of the knobs in `domain.per`, and a warning where there are too many.

    A range contributes its ends and its middle. Of more than MOST_COMBINATIONS, evenly spread ones are tested.
    """
    warnings: list[str] = []
    lists = [[(name, value) for value in _representative_values(spec, name)] for name in domain.per]
    combinations = [dict(combination) for combination in itertools.product(*lists)]
    if len(combinations) > MOST_COMBINATIONS:
        warnings.append(
            f"range tests were run for {MOST_COMBINATIONS} of {len(combinations)} combinations of "
            f"{', '.join(domain.per)}; the other combinations use the bounds of the nearest one that was tested"
        )
        step = len(combinations) / MOST_COMBINATIONS
        combinations = [combinations[int(index * step)] for index in range(MOST_COMBINATIONS)]
    return combinations, warnings


def _representative_values(spec: StudySpec, name: str) -> list[Scalar]:
    """All values of a choice; the low end, the middle and the high end of a range; the default of an absent knob."""
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
    """Every active knob: those of the combination, and the middle of its values for every other searched knob."""
    chosen: dict[str, Scalar] = {}
    for name in searched(spec):
        if name != "lr":
            values = _representative_values(spec, name)
            chosen[name] = combination.get(name, values[len(values) // 2])
    return active_params(spec, chosen)


def _read_rate(
    combination: Params, params: Params, curves: tuple[Curve, ...], domain: RangeTested
) -> tuple[RateBounds, list[str]]:
    """The rate that the curves of a combination give, with its bounds, and a warning where it is not used.

    `params`: the configuration that was tested. Without a reading of high confidence the rate is the catalogue's
    default beside these params, and its bounds are wider: a search in a range that is too wide costs trials, one in a
    wrong range misses the best value.
    """
    default = CATALOGUE["lr"].default(params)
    assert is_number(default)  # of every row of `lr`
    reading: Reading | None = None
    try:
        reading = read_curves(curves, _METHODS[domain.method], default)
    except ValueError as error:
        doubts = str(error)
    else:
        found = _as_read(combination, reading, curves)
        if reading.confident and found is not None:
            return found, []
        doubts = "; ".join(reading.doubts)
    low, high = _bounds_about(default, ABOUT_DEFAULT)
    name = ", ".join(f"{knob} {value}" for knob, value in combination.items()) or "this space"
    warning = f"range test of {name}: {doubts}; the search starts from the default {default:g} instead"
    return RateBounds(combination, low, high, reading, curves, float(default)), [warning]


def _as_read(combination: Params, reading: Reading, curves: tuple[Curve, ...]) -> RateBounds | None:
    """The rate of a reading with its bounds, which stay below the highest rate that is allowed; None: it has none."""
    if reading.rate is None or reading.high is None:
        return None
    low, high = _bounds_about(reading.rate, reading.high / reading.rate)
    return RateBounds(combination, low, high, reading, curves, reading.rate)


def _bounds_about(rate: float, factor: float) -> tuple[float, float]:
    """The bounds a factor below and above a rate. The factor is less where the upper one would not be allowed."""
    highest = CATALOGUE["lr"].high
    factor = factor if highest is None else min(factor, highest / rate)
    return rate / factor, rate * factor
