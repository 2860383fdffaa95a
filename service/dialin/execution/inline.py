"""The runner without Ray: one trial after another in this process. For debuggers, tests and small machines."""

from __future__ import annotations

import traceback
from collections.abc import Sequence

from dialin.execution.trial_run import RangeTestJob, TrialPlan, TrialRun
from dialin.search.driving import Driver
from dialin.search.records import Trial
from dialin.specification.range_tests import Curve, Sweep


def run_inline(driver: Driver, trial_plan: TrialPlan) -> None:
    """Train what the driver asks for until it wants no more."""
    while (trial := driver.ask()) is not None:
        _train(driver, trial_plan, trial)


def sweep_inline(trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> list[Curve]:
    """The range tests of several configurations and seeds, one after another."""
    run = trial_plan.objective.range_test
    return [run(params, seed, trial_plan.resources, sweep) for params, seed in jobs]


def _train(driver: Driver, trial_plan: TrialPlan, trial: Trial) -> None:
    run = TrialRun(trial_plan, trial)
    try:
        while True:
            try:
                reports = run.step()
            except Exception:  # noqa: BLE001  a person's training code: whatever it raises is this trial's failure
                driver.fail(trial, traceback.format_exc())
                return
            if not driver.report(trial, reports).continues:
                return
    finally:
        run.close()
