"""Where trials are trained, behind one protocol: in this process, or on a Ray cluster."""

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
        """What all trials together may use."""

    @property
    def is_inline(self) -> bool:
        """Whether trials run one after another in this process: a trial can then not be ended from outside."""

    def connected(self) -> AbstractContextManager[None]:
        """Start or join the cluster, and leave it at the end. Raises ClusterError when it cannot be reached."""

    def train(self, driver: Driver, trial_plan: TrialPlan, *, concurrency: int, folder: Path) -> None:
        """Train what the driver asks for until it asks for no more, at most `concurrency` trials at a time.

        `folder` takes the executor's own bookkeeping. Raises ClusterError when the cluster goes away.
        """

    def evaluate(self, trial_plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
        """The metrics of a checkpoint's best weights on the test split. Raises DataError for a damaged checkpoint."""

    def range_tests(self, trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> Sequence[Curve]:
        """The curve of each range test, in the order of the jobs."""


def executor_of(executor: str | Executor) -> Executor:
    """The executor of that name on this machine; one that is an executor already is returned as it is.

    Raises UsageError for a name that is not in EXECUTORS.
    """
    if not isinstance(executor, str):
        return executor
    if executor not in EXECUTORS:
        raise UsageError(f"runner {executor!r}; allowed: {', '.join(EXECUTORS)}")
    shape = local_shape()
    return InlineExecutor(shape) if executor == "inline" else RayExecutor(shape, lambda: local_cluster(shape))
