"""The runner without Ray: one trial after another in this process. For debuggers, tests and small machines."""

from __future__ import annotations

import traceback

from service.objectives.trials import TrialPlan, TrialRun
from service.search.driving import Driver
from service.search.records import Trial


def run_inline(driver: Driver, trial_plan: TrialPlan) -> None:
    """Train what the driver asks for until it wants no more."""
    while (trial := driver.ask()) is not None:
        _train(driver, trial_plan, trial)


def _train(driver: Driver, trial_plan: TrialPlan, trial: Trial) -> None:
    run = TrialRun(trial_plan, trial)
    try:
        while True:
            try:
                epoch, metrics, checkpoint = run.step()
            except Exception:  # noqa: BLE001  a person's training code: whatever it raises is this trial's failure
                driver.fail(trial, traceback.format_exc())
                return
            if driver.report(trial, epoch, metrics, checkpoint).stop:
                return
    finally:
        run.close()
