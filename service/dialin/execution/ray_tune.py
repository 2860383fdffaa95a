"""A study on Ray Tune: Tune starts, places and ends the trials; what to try and when to stop is asked of the driver."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import cloudpickle, tune
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
from dialin.objectives.base import Metrics
from dialin.search.driver import Driver
from dialin.search.epoch_clock import FIRST_SECONDS, duration
from dialin.search.records import Report, Trial
from dialin.specification.domains import Scalar
from dialin.specification.range_tests import Curve, Sweep

T = TypeVar("T")
TASK_SECONDS = FIRST_SECONDS  # what is no trial, too, may wait for a worker and then take its time
LOOK_SECONDS = 1.0  # between two looks for trials that are overdue


def run_on_ray(driver: Driver, trial_plan: TrialPlan, concurrency: int, folder: Path) -> None:
    """Train what the driver asks for, at most `concurrency` trials at a time, until it wants no more.

    Needs a connected cluster; raises ClusterError when it goes away. Tune's own bookkeeping goes to `folder`; nothing
    reads it afterwards.
    """
    resources = {"cpu": trial_plan.resources.cpus, "gpu": trial_plan.resources.gpus}
    guarded = _Guarded(driver)
    with _cluster_there(), _collecting_only_what_is_new(), _looking_up_once():
        _run(guarded, trial_plan, concurrency, folder, resources)
    if guarded.error is not None:
        raise guarded.error
    if not driver.finished:
        # Tune ends quietly when nothing can be placed any more.
        raise ClusterError("Ray stopped before the study was through: its node is gone")


def _run(
    guarded: _Guarded, trial_plan: TrialPlan, concurrency: int, folder: Path, resources: Mapping[str, float]
) -> None:
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
        resources_per_trial=resources,
        raise_on_failed_trial=False,
        trial_name_creator=_name,
        trial_dirname_creator=_name,
        verbose=0,
    )


@contextmanager
def _collecting_only_what_is_new() -> Iterator[None]:
    """Python's collector leaves alone what was there before: a quarter of a million objects that it would look through
    now and then, and so seldom that what Tune leaves behind piles up."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _looking_up_once() -> Iterator[None]:
    """Tune asks Ray's head five times a trial for the one trainable that there is, a millisecond each; what was found
    once is kept for the run. Where Tune has no such registry any more, nothing is done."""
    registry: Any = getattr(tune.registry, "_global_registry", None)
    if registry is None:
        yield
        return
    for name in ("get", "contains"):
        setattr(registry, name, _keeping_what_is_found(getattr(registry, name)))
    try:
        yield
    finally:
        del registry.get, registry.contains  # the class's own are behind them


def _keeping_what_is_found(look: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    found: dict[tuple[str, str], Any] = {}

    def kept(category: str, key: str) -> Any:
        if (category, key) not in found and (value := look(category, key)):
            found[category, key] = value
        return found.get((category, key))

    return kept


@contextmanager
def _cluster_there() -> Iterator[None]:
    """What Ray raises when it cannot be reached any more, as one of ours; and one of ours from a task as itself."""
    try:
        yield
    except RayTaskError as error:
        if isinstance(error.cause, DialinError):
            raise error.cause from None
        raise
    except RaySystemError as error:
        raise ClusterError(f"Ray is gone: {str(error).partition(chr(10))[0]}") from error
    except (LocalRayletDiedError, NodeDiedError) as error:
        raise ClusterError(f"Ray's node is gone: {str(error).partition(chr(10))[0]}") from error


class _Guarded:
    """The driver, with what it raises kept: Tune takes an error of a searcher or a scheduler for a trial's own, and
    goes on. After one nothing more is asked of the driver and every trial is stopped; `run_on_ray` raises it at its
    end."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self.error: Exception | None = None
        self.live: dict[int, Trial] = {}  # handed out last under that number
        self.killed: dict[str, str] = {}  # Tune's id of a trial whose worker was killed -> why

    def ask(self) -> Trial | None:
        trial = self._kept(self._driver.ask, None)
        if trial is not None:
            self.live[trial.number] = trial
        return trial

    @property
    def finished(self) -> bool:
        return self._kept(lambda: self._driver.finished, True)

    @property
    def is_cut_off(self) -> bool:
        return self._kept(lambda: self._driver.is_cut_off, True)

    def progress(self) -> None:
        self._kept(self._driver.progress, None)

    def working(self, number: int) -> None:
        self._kept(lambda: self._driver.working(self.live[number]), None)

    def overdue(self) -> Sequence[tuple[Trial, str]]:
        return self._kept(self._driver.overdue, ())

    def report(self, trial: Trial, reports: Sequence[Report]) -> bool:
        """Whether the trial's worker is to be freed."""
        return self._kept(lambda: not self._driver.report(trial, reports).continues, True)

    def fail(self, trial: Trial, traceback: str) -> None:
        self._kept(lambda: self._driver.fail(trial, traceback), None)

    def lost(self, trial: Trial, reason: str) -> None:
        self._kept(lambda: self._driver.lost(trial, reason), None)

    def _kept(self, call: Callable[[], T], otherwise: T) -> T:
        if self.error is not None:
            return otherwise
        try:
            return call()
        except Exception as error:  # noqa: BLE001  raised again when Tune has ended
            self.error = error
            return otherwise


def evaluate_on_ray(trial_plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
    """`evaluate_checkpoint` as one Ray task with a trial's resources."""
    remote = ray.remote(num_cpus=trial_plan.resources.cpus, num_gpus=trial_plan.resources.gpus)(evaluate_checkpoint)
    result: Metrics = _answers("the test of the best trial", [remote.remote(trial_plan, trial, checkpoint)])[0]
    return result


def sweep_on_ray(trial_plan: TrialPlan, jobs: Sequence[RangeTestJob], sweep: Sweep) -> list[Curve]:
    """The range tests of several configurations and seeds as Ray tasks beside each other, each with a trial's
    resources."""
    resources = trial_plan.resources
    remote = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus)(_sweep_one)
    shared = ray.put(trial_plan)
    curves: list[Curve] = _answers("range tests", [remote.remote(shared, *job, sweep) for job in jobs])
    return curves


def _answers(what: str, tasks: Sequence[Any]) -> list[Any]:
    """What tasks return. Raises DataError when they take longer than what is healthy does; their workers are killed."""
    with _cluster_there():
        try:
            return list(ray.get(list(tasks), timeout=TASK_SECONDS))
        except GetTimeoutError:
            for task in tasks:
                ray.cancel(task, force=True)
            raise DataError(f"{what} took longer than {duration(TASK_SECONDS)}; their workers were killed") from None


def _sweep_one(trial_plan: TrialPlan, params: Mapping[str, Scalar], seed: int, sweep: Sweep) -> Curve:
    return trial_plan.objective.range_test(params, seed, trial_plan.resources, sweep)


class StudySearcher(Searcher):
    """Hands Tune the driver's trials. What they report goes by way of the scheduler, which can answer."""

    def __init__(self, driver: _Guarded) -> None:
        super().__init__()
        self._driver = driver

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        trial = self._driver.ask()
        if trial is None:
            return Searcher.FINISHED if self._driver.finished else None  # Tune asks again after the next result
        return config_of(trial)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to do: the scheduler has told the study."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study's storage is what a resume reads."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a study is resumed from its own storage")


class StudyScheduler(FIFOScheduler):
    """Passes each result to the driver and its decision back to Tune."""

    _supports_buffered_results = False

    def __init__(self, driver: _Guarded) -> None:
        super().__init__()
        self._driver = driver

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return True

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """None: Tune starts what is pending by itself. To name such a trial would have it take over the worker of one
        that has just ended and give up its own, which is still starting: of many short trials all would run in one
        worker. To look for one means to go through all trials, too."""
        return None

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        stop = self._driver.report(self._driver.live[trial.config[NUMBER]], reports_of(result))
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        mine = self._driver.live[trial.config[NUMBER]]
        error = _error(trial)
        if (late := self._driver.killed.pop(trial.trial_id, None)) is not None:
            self._driver.fail(mine, f"{late}; its worker was killed")
        elif isinstance(error, RayActorError):
            self._driver.lost(mine, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")
        else:
            self._driver.fail(mine, _error_text(trial))


class StudyWatch(Callback):
    """What has to happen though no trial reports: Tune calls it ten times a second. Says that the loop goes on, and
    kills the workers of trials that are overdue: a process that hangs in native code hears nothing else."""

    def __init__(self, driver: _Guarded) -> None:
        self._driver = driver
        self._look_at = 0.0

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        self._driver.progress()
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        # Tune has no public way to a trial's actor. One that waits for a worker has none.
        at_work = {
            trial.config[NUMBER]: trial
            for trial in trials
            if not trial.is_finished() and trial.temporary_state.ray_actor is not None
        }
        for number in at_work:
            self._driver.working(number)
        for late, text in self._driver.overdue():
            if (trial := at_work.get(late.number)) is not None:
                self._driver.killed[trial.trial_id] = text
                ray.kill(trial.temporary_state.ray_actor)


class StudyStopper(Stopper):
    """Ends a study that is over by the clock, with the trials that do not come to report and those that wait for a
    worker."""

    def __init__(self, driver: _Guarded) -> None:
        self._driver = driver

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes it down with its own state, and nothing reads that

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False  # each report is the scheduler's to judge

    def stop_all(self) -> bool:
        return self._driver.is_cut_off


def _name(trial: TuneTrial) -> str:
    return f"trial-{trial.config[NUMBER]:04d}-{trial.trial_id}"


def _error(trial: TuneTrial) -> object:
    """What ended a trial; None where Tune has kept no more than its text. A person's exception comes as RayTaskError,
    the end of a process or a node as RayActorError."""
    file = trial.pickled_error_file  # written by this process a moment ago
    return cloudpickle.loads(Path(file).read_bytes()) if file and Path(file).exists() else None


def _error_text(trial: TuneTrial) -> str:
    # Tune has written it beside the trial by now; `get_error` would look where it is only copied to later.
    file = trial.error_file
    return Path(file).read_text(errors="replace") if file and Path(file).exists() else "unknown error"
