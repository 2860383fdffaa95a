"""Runs a study on Ray Tune: Tune starts, places and ends the trials; the driver decides what to try and when to stop.

The adapters below connect Tune's searcher, scheduler, callback and stopper with one `search.driver.Driver`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import tune
from ray.exceptions import (
    GetTimeoutError,
    LocalRayletDiedError,
    NodeDiedError,
    RayActorError,
    RaySystemError,
    RayTaskError,
)
from ray.tune import Callback, Stopper
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from dialin.errors import ClusterError, DataError, DialinError
from dialin.execution.trainable import NUMBER, StudyTrainable, config_of, reports_of
from dialin.execution.trial_run import RangeTestJob, TrialPlan, evaluate_checkpoint
from dialin.execution.tune_internals import actor_of, error_of, error_text_of
from dialin.objectives.base import Metrics
from dialin.search.driver import Driver
from dialin.search.epoch_clock import FIRST_SECONDS, duration
from dialin.search.records import Report, Trial
from dialin.specification.domains import Scalar
from dialin.specification.range_tests import Curve, Sweep

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
TASK_SECONDS = FIRST_SECONDS
"""Longest time of a task that is not a trial, with the time that it waits for a worker."""
CHECK_SECONDS = 1.0
"""Time between two checks for overdue trials."""


def run_on_ray(driver: Driver, trial_plan: TrialPlan, concurrency: int, folder: Path) -> None:
    """Train the driver's trials until it has no more, at most `concurrency` at a time.

    This process has to be connected to a cluster. Tune keeps its own records in `folder`, which are not read
    afterwards. Raises ClusterError if the cluster is lost, and what the driver raised.
    """
    guarded = _GuardedDriver(driver)
    with _cluster_errors():
        _run_tune(guarded, trial_plan, concurrency, folder)
    if guarded.error is not None:
        raise guarded.error
    if not driver.finished:
        # Tune returns without an error if no node is left for the trials.
        raise ClusterError("Ray stopped before the study was complete: the node that trained its trials was lost")


def _run_tune(guarded: _GuardedDriver, trial_plan: TrialPlan, concurrency: int, folder: Path) -> None:
    # Tuner calls tune.run. It adds restoring and a table of results, for which a study has its own storage.
    tune.run(
        tune.with_parameters(StudyTrainable, plan=trial_plan),
        name="tune",
        storage_path=str(folder.resolve()),
        search_alg=StudySearcher(guarded),
        scheduler=StudyScheduler(guarded),
        callbacks=[StudyWatch(guarded)],
        stop=StudyStopper(guarded),
        num_samples=-1,
        max_concurrent_trials=concurrency,
        reuse_actors=True,
        resources_per_trial={"cpu": trial_plan.resources.cpus, "gpu": trial_plan.resources.gpus},
        raise_on_failed_trial=False,
        trial_name_creator=_name,
        trial_dirname_creator=_name,
        verbose=0,
    )


@contextmanager
def _cluster_errors() -> Iterator[None]:
    """Translate the errors that Ray raises when it is lost; unwrap dialin's own errors that a task has raised."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, DialinError):
            raise error.cause from None
        raise
    except RaySystemError as error:
        raise ClusterError(f"Ray was lost: {str(error).partition(chr(10))[0]}") from error
    except (LocalRayletDiedError, NodeDiedError) as error:
        raise ClusterError(f"Ray's node was lost: {str(error).partition(chr(10))[0]}") from error


class _GuardedDriver:
    """A driver whose first error ends the study instead of a trial.

    Tune treats an error of a searcher or a scheduler as one of the current trial, and continues. Therefore the error is
    kept here, the driver is not called again, and every trial is stopped; `run_on_ray` raises the error at its end.
    """

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.error: Exception | None = None
        self.live: dict[int, Trial] = {}
        """The trial that was handed out last under each number."""
        self.killed: dict[str, str] = {}
        """Why the worker of a trial was killed, by Tune's id of the trial."""

    def ask(self) -> Trial | None:
        """Return the next trial, or None."""
        trial = self._kept(self._driver.ask, None)
        if trial is not None:
            self.live[trial.number] = trial
        return trial

    @property
    def finished(self) -> bool:
        """Whether there is no further trial."""
        return self._kept(lambda: self._driver.finished, True)

    @property
    def is_cut_off(self) -> bool:
        """Whether all trials are to stop."""
        return self._kept(lambda: self._driver.is_cut_off, True)

    def report_progress(self) -> None:
        """Tell the driver that Tune's loop has completed another round."""
        self._kept(self._driver.report_progress, None)

    def report_working(self, number: int) -> None:
        """Tell the driver that a worker trains this trial."""
        self._kept(lambda: self._driver.report_working(self.live[number]), None)

    def find_overdue(self) -> Sequence[tuple[Trial, str]]:
        """Return the trials whose workers are to be killed, and why."""
        return self._kept(self._driver.find_overdue, ())

    def report(self, trial: Trial, reports: Sequence[Report]) -> bool:
        """Pass reports of a trial to the driver, and return whether the trial continues; if not, its worker is free."""
        return self._kept(lambda: self._driver.report(trial, reports).continues, False)

    def fail(self, trial: Trial, traceback: str) -> None:
        """Tell the driver that the training of a trial has raised."""
        self._kept(lambda: self._driver.fail(trial, traceback), None)

    def report_lost_worker(self, trial: Trial, reason: str) -> None:
        """Tell the driver that the worker of a trial has died."""
        self._kept(lambda: self._driver.report_lost_worker(trial, reason), None)

    def _kept(self, call: Callable[[], T], otherwise: T) -> T:
        if self.error is not None:
            return otherwise
        try:
            return call()
        except Exception as error:  # noqa: BLE001  Tune's loop has to end before the error is raised
            _LOG.debug("the driver raised; every trial is stopped", exc_info=True)
            self.error = error
            return otherwise


def evaluate_on_ray(trial_plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
    """Call `evaluate_checkpoint` in one Ray task with the resources of a trial."""
    remote = ray.remote(num_cpus=trial_plan.resources.cpus, num_gpus=trial_plan.resources.gpus)(evaluate_checkpoint)
    result: Metrics = _results_of("the test of the best trial", [remote.remote(trial_plan, trial, checkpoint)])[0]
    return result


def sweep_on_ray(trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> list[Curve]:
    """Run range tests of several configurations and seeds as concurrent Ray tasks, each with a trial's resources."""
    resources = trial_plan.resources
    remote = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(_sweep_one)
    shared = ray.put(trial_plan)
    curves: list[Curve] = _results_of("range tests", [remote.remote(shared, *job, sweep) for job in jobs])
    return curves


def _results_of(what: str, tasks: Sequence[Any]) -> list[Any]:
    """Return the results of tasks. If they exceed `TASK_SECONDS`, kill their workers and raise DataError."""
    with _cluster_errors():
        try:
            return list(ray.get(list(tasks), timeout=TASK_SECONDS))
        except GetTimeoutError:
            for task in tasks:
                ray.cancel(task, force=True)
            raise DataError(f"{what} took longer than {duration(TASK_SECONDS)}; their workers were killed") from None


def _sweep_one(trial_plan: TrialPlan, params: Mapping[str, Scalar], seed: int, sweep: Sweep) -> Curve:
    return trial_plan.objective.range_test(params, seed, trial_plan.resources, sweep)


class StudySearcher(Searcher):
    """Hands the driver's trials to Tune. Reports go through the scheduler, which can answer with a decision."""

    def __init__(self, driver: _GuardedDriver) -> None:
        super().__init__()
        self._driver = driver

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Accept any values: the driver knows metric, mode and space."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the config of the next trial; `FINISHED` if there is none; None if Tune has to ask again later."""
        trial = self._driver.ask()
        if trial is None:
            return Searcher.FINISHED if self._driver.finished else None
        return config_of(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: the scheduler has told the driver."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: a study is resumed from its own storage."""

    def restore(self, checkpoint_path: str) -> None:
        """Raise NotImplementedError, for the same reason."""
        raise NotImplementedError("a study is resumed from its own storage")


class StudyScheduler(FIFOScheduler):
    """Passes each result to the driver and its decision back to Tune."""

    def __init__(self, driver: _GuardedDriver) -> None:
        super().__init__()
        self._driver = driver

    @property
    def supports_buffered_results(self) -> bool:
        """Return whether Tune may buffer results: False, because each result may end its trial."""
        return False

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accept any values: the driver knows metric and mode."""
        return True

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Return None: Tune then starts pending trials by itself, which it does not document.

        A trial named here would take over the worker of one that has just ended and give up its own, which is still
        starting: many short trials would then all run in one worker. Finding one also costs a pass over all trials.
        """
        return None

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Return the driver's decision as Tune's CONTINUE or STOP."""
        continues = self._driver.report(self._driver.live[trial.config[NUMBER]], reports_of(result))
        return str(TrialScheduler.CONTINUE if continues else TrialScheduler.STOP)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tell the driver whether the training raised, the worker died, or dialin killed it."""
        mine = self._driver.live[trial.config[NUMBER]]
        error = error_of(trial)
        if (late := self._driver.killed.pop(trial.trial_id, None)) is not None:
            self._driver.fail(mine, f"{late}; its worker was killed")
        elif isinstance(error, RayActorError):
            self._driver.report_lost_worker(mine, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        else:
            self._driver.fail(mine, error_text_of(trial))


class StudyWatch(Callback):
    """Does what must happen even if no trial reports. Tune calls it ten times a second.

    It tells the driver that the loop makes progress, and kills the workers of overdue trials, because a process that
    hangs in native code cannot be ended otherwise.
    """

    def __init__(self, driver: _GuardedDriver) -> None:
        self._driver = driver
        self._check_at = 0.0

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Do both; check for overdue trials once in `CHECK_SECONDS`."""
        self._driver.report_progress()
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + CHECK_SECONDS
        actors = {
            trial.config[NUMBER]: (trial, actor)
            for trial in trials
            if not trial.is_finished() and (actor := actor_of(trial)) is not None
        }
        for number in actors:
            self._driver.report_working(number)
        for late, text in self._driver.find_overdue():
            if late.number in actors:
                trial, actor = actors[late.number]
                self._driver.killed[trial.trial_id] = text
                ray.kill(actor)


class StudyStopper(Stopper):
    """Ends a study whose time limit is reached, including trials that do not report and trials that wait for a
    worker."""

    def __init__(self, driver: _GuardedDriver) -> None:
        self._driver = driver

    def __getstate__(self) -> dict[str, Any]:
        """Return no state: Tune pickles the stopper with records that are not read, and a driver has locks, which
        cannot be pickled."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return False: the scheduler decides about single trials."""
        return False

    def stop_all(self) -> bool:
        """Return whether all trials are to stop."""
        return self._driver.is_cut_off


def _name(trial: TuneTrial) -> str:
    return f"trial-{trial.config[NUMBER]:04d}-{trial.trial_id}"
