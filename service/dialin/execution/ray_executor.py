"""The executor on a Ray cluster. It imports Ray only when it is used, because Ray reads its settings when imported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from dialin.execution.trial_run import RangeTestJob, TrialPlan
from dialin.objectives.base import Metrics
from dialin.planning.plan import ClusterShape
from dialin.search.driver import Driver
from dialin.search.records import Trial
from dialin.specification.range_tests import Curve, Sweep


@dataclass(frozen=True)
class RayExecutor:
    """Trains several trials at a time on a Ray cluster, each in a worker process."""

    shape: ClusterShape
    """The processors and GPUs that all trials together may use."""
    connect: Callable[[], AbstractContextManager[None]]
    """Returns a context manager that starts or joins the cluster, and leaves it at the end."""

    @property
    def is_inline(self) -> bool:
        """False."""
        return False

    def connected(self) -> AbstractContextManager[None]:
        """Return a context manager that starts or joins the cluster, and leaves it at the end."""
        return self.connect()

    def train(self, driver: Driver, trial_plan: TrialPlan, *, concurrency: int, folder: Path) -> None:
        """Train the driver's trials until it has no more, at most `concurrency` at a time. Tune keeps its records in
        `folder`."""
        from dialin.execution.ray_tune import run_on_ray

        run_on_ray(driver, trial_plan, concurrency, folder)

    def evaluate(self, trial_plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
        """Return a checkpoint's metrics on the test split, from a worker."""
        from dialin.execution.ray_tune import evaluate_on_ray

        return evaluate_on_ray(trial_plan, trial, checkpoint)

    def range_tests(self, trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> Sequence[Curve]:
        """Return the curves of range tests, which run concurrently."""
        from dialin.execution.ray_tune import sweep_on_ray

        return sweep_on_ray(trial_plan, jobs, sweep)
