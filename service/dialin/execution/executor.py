"""The protocol of executors, which train trials, and the choice of one: in this process, or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from dialin.errors import UsageError
from dialin.execution.inline import InlineExecutor
from dialin.execution.local_cluster import local_cluster, local_shape
from dialin.execution.ray_executor import RayExecutor
from dialin.execution.trial_run import RangeTestJob, TrialPlan
from dialin.objectives.base import Metrics
from dialin.planning.plan import ClusterShape
from dialin.search.driver import Driver
from dialin.search.records import Trial
from dialin.specification.range_tests import Curve, Sweep

EXECUTORS = ("ray", "inline")


class Executor(Protocol):
    """Trains the trials that a driver asks for. `train`, `evaluate` and `range_tests` are called within `connected`."""

    @property
    def shape(self) -> ClusterShape:
        """Return the processors and GPUs that all trials together may use."""

    @property
    def is_inline(self) -> bool:
        """Return whether trials run one after another in this process, where a trial cannot be ended from outside."""

    def connected(self) -> AbstractContextManager[None]:
        """Return a context manager that starts or joins the cluster, and leaves it at the end of the block.

        Entering it raises ClusterError if the cluster cannot be reached.
        """

    def train(self, driver: Driver, trial_plan: TrialPlan, *, concurrency: int, folder: Path) -> None:
        """Train the driver's trials until it has no more, at most `concurrency` at a time.

        The executor keeps its own records in `folder`. Raises ClusterError if the cluster is lost.
        """

    def evaluate(self, trial_plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
        """Return the metrics of a checkpoint's best weights on the test split. Raises DataError for a damaged
        checkpoint."""

    def range_tests(self, trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> Sequence[Curve]:
        """Run range tests, and return the curve of each of them in the order of `jobs`."""


def executor_of(executor: str | Executor) -> Executor:
    """Return the executor with this name on this machine; an executor is returned unchanged.

    Raises UsageError for a name that is not in EXECUTORS.
    """
    if not isinstance(executor, str):
        return executor
    if executor not in EXECUTORS:
        raise UsageError(f"runner {executor!r}; allowed: {', '.join(EXECUTORS)}")
    shape = local_shape()
    return InlineExecutor(shape) if executor == "inline" else RayExecutor(shape, lambda: local_cluster(shape))
