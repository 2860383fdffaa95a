"""The executor without Ray: one trial after another in this process. For debuggers, tests and small machines."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dialin.execution.trial_run import RangeTestJob, TrialPlan, TrialRun, evaluate_checkpoint
from dialin.objectives.base import Metrics
from dialin.planning.plan import ClusterShape
from dialin.search.driver import Driver
from dialin.search.records import Trial
from dialin.specification.range_tests import Curve, Sweep


@dataclass(frozen=True)
class InlineExecutor:
    """Trains in this process, in the order in which the driver hands trials out."""

    shape: ClusterShape
    """What one trial may use: there is never more than one."""

    @property
    def is_inline(self) -> bool:
        return True

    def connected(self) -> AbstractContextManager[None]:
        return nullcontext()

    def train(self, driver: Driver, trial_plan: TrialPlan, *, concurrency: int = 1, folder: Path | None = None) -> None:
        """Train what the driver asks for until it asks for no more. The options are those of other executors."""
        while (trial := driver.ask()) is not None:
            _train(driver, trial_plan, trial)

    def evaluate(self, trial_plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
        return evaluate_checkpoint(trial_plan, trial, checkpoint)

    def range_tests(self, trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> list[Curve]:
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
