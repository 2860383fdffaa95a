"""The executor without Ray, which trains one trial after another in this process.

It is for debuggers, tests and small machines.
"""

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
    """The processors and GPUs that a trial may use; only one trial runs at a time."""

    @property
    def is_inline(self) -> bool:
        """True."""
        return True

    def connected(self) -> AbstractContextManager[None]:
        """Return a context manager that does nothing: this executor needs no cluster."""
        return nullcontext()

    def train(self, driver: Driver, trial_plan: TrialPlan, *, concurrency: int = 1, folder: Path | None = None) -> None:
        """Train the driver's trials until it has no more. `concurrency` and `folder` are ignored."""
        while (trial := driver.ask()) is not None:
            _train(driver, trial_plan, trial)

    def evaluate(self, trial_plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
        """Return a checkpoint's metrics on the test split."""
        return evaluate_checkpoint(trial_plan, trial, checkpoint)

    def range_tests(self, trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> list[Curve]:
        """Return the curves of range tests, one after another."""
        run = trial_plan.objective.range_test
        return [run(params, seed, trial_plan.resources, sweep) for params, seed in jobs]


def _train(driver: Driver, trial_plan: TrialPlan, trial: Trial) -> None:
    run = TrialRun(trial_plan, trial)
    try:
        while True:
            step = run.advance()
            if step.error is not None:
                driver.fail(trial, "".join(traceback.format_exception(step.error)))
                return
            if not driver.report(trial, step.reports).continues:
                return
    finally:
        run.close()
