"""The stages joined: a specification goes in, a result comes out.

spec -> plan -> [ ask -> train -> report -> decide ]* -> tell -> result
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, replace

from dialin import objectives
from dialin.charts.figures import plot_range_tests
from dialin.errors import ConflictError, DatabaseError, DataError, FencedError, NotFoundError, StorageError, UsageError
from dialin.events.journal import Journal, Listener
from dialin.execution.inline import run_inline, sweep_inline
from dialin.execution.local_cluster import local_cluster, local_shape
from dialin.execution.trial_run import RangeTestJob, TrialPlan, evaluate_checkpoint
from dialin.lifecycle import StudyState, TrialState
from dialin.objectives.base import Metrics, Objective
from dialin.paths import OutputFolder, StudyFolder
from dialin.planning.plan import ClusterShape, Plan, plan_study
from dialin.results.export import write_best_config
from dialin.results.looks import Look, look_at, looks_of
from dialin.results.summary import Result, summarize
from dialin.search.failures import failures_text
from dialin.search.records import Trial, TrialRecord
from dialin.search.storage import fence, opened_storage
from dialin.search.study import Study
from dialin.search.trial_rows import read_finished, read_study
from dialin.settings import Settings
from dialin.specification import spec_of_study, to_yaml
from dialin.specification.domains import RangeTested, Scalar
from dialin.specification.range_tests import Calibration, Curve, Sweep
from dialin.specification.study_spec import StudySpec
from dialin.store.leases import Lease, acquire
from dialin.store.output_folder import open_output
from dialin.store.studies import Studies, StudyRow
from dialin.study_flow.calibrate import calibrate, calibrate_one
from dialin.study_flow.driver import StudyDriver
from dialin.study_flow.extend import extended, resolve_warm_start
from dialin.study_flow.history import complete_spool, ending_of, mlflow_target, params_of, paths_of
from dialin.study_flow.signals import Interrupts
from dialin.tracking.mirror import Mirror

RUNNERS = ("ray", "inline")
MIRROR_SECONDS = 60.0  # how long the end of a study waits for MLflow
# A loop that has not come round for so long hangs, and its study is given to another driver. It waits for a locked
# database (a minute a statement at most), for a proposal of the model (seconds) and for the disk.
HANG_SECONDS = 300.0
INTERRUPTED_MIRROR_SECONDS = 0.3  # the recorder goes on by itself; the person should not wait


_NO_LIMITS = (
    "without Ray a trial cannot be ended from outside: budget.hours is looked at between epochs, and "
    "budget.epoch_minutes is not looked at"
)


@dataclass(frozen=True)
class Runner:
    """How trials are trained: a study's worth of them, and one look at the test split."""

    train: Callable[[StudyDriver, TrialPlan], None]
    evaluate: Callable[[TrialPlan, Trial, str], Metrics]
    sweep: Callable[[TrialPlan, Sequence[RangeTestJob], Sweep], Sequence[Curve]]


def _no_allowance(_study_id: str) -> int | None:
    return None


def _tell_nobody(_study_id: str, _starved: bool) -> None:
    return None


@dataclass(frozen=True)
class Site:
    """Where trials are trained: what there is, and how to be connected to it while a study runs; `inline`: in this
    process. `allowance`: how many trials of a study may run at a time right now, as others run beside it; None: as
    many as planned. `job`: the server's job that this process is; empty: none. `starved`: told when all
    trials of a study wait for a worker, and when they do no longer."""

    shape: ClusterShape
    connected: Callable[[], AbstractContextManager[None]]
    inline: bool = False
    allowance: Callable[[str], int | None] = _no_allowance
    job: str = ""
    starved: Callable[[str, bool], None] = _tell_nobody


@dataclass(frozen=True)
class Ending:
    """How a search ended, before it is written down."""

    state: StudyState
    reason: str = ""
    looks: Sequence[Look] = ()


def run_study(spec: StudySpec, settings: Settings, listener: Listener, runner: str | Site = "ray") -> Result:
    """Search the space and return what came out, all of it on disk below `settings.out` by then.

    Raises DataError for a data set that cannot be had, SpecError for resources that are not there and NotFoundError for
    a study to learn from that is not known, all before anything is stored. Ctrl-C or SIGTERM end the study cleanly: the
    result says `interrupted`, with the best so far, and `resume_study` goes on with it.
    """
    site = _site(runner)
    spec = resolve_warm_start(spec, settings)
    plan, objective = _prepare(spec, settings, listener.note, site)
    open_output(settings, listener.note)
    with Interrupts() as interrupts, _studies(settings) as studies:
        row = studies.create(spec.name, to_yaml(spec))
        return _drive(row, plan, objective, studies, listener, interrupts, site, settings)


def resume_study(reference: str, settings: Settings, listener: Listener, runner: str | Site = "ray") -> Result:
    """Go on with a study whose driver was interrupted, has died or has failed: unfinished trials from their last
    checkpoint, then what is left of the budget.

    Raises NotFoundError, and ConflictError for a study that is complete or that another driver lives on.
    """
    return _go_on(reference, settings, listener, runner, lambda row, spec: _unfinished(row, spec, settings))


def extend_study(
    reference: str,
    settings: Settings,
    listener: Listener,
    runner: str | Site = "ray",
    *,
    trials: str | None = None,
    epochs: str | None = None,
) -> Result:
    """Add to the budget of a study and go on with it. `trials`, `epochs`: the new number, or `+N`. Where trials become
    longer, the best of those that were complete at the old length go on, each as a trial of its own.

    Raises as `resume_study`, and UsageError for a budget that is not larger.
    """
    return _go_on(reference, settings, listener, runner, lambda _row, spec: extended(spec, trials, epochs))


def _go_on(
    reference: str,
    settings: Settings,
    listener: Listener,
    runner: str | Site,
    next_spec: Callable[[StudyRow, StudySpec], StudySpec],
) -> Result:
    site = _site(runner)
    if settings.out.exists():
        open_output(settings, listener.note)
    with Interrupts() as interrupts, _studies(settings) as studies:
        row = studies.find(reference)
        spec = next_spec(row, spec_of_study(row.id, row.spec))
        plan, objective = _prepare(spec, settings, listener.note, site)
        return _drive(row, plan, objective, studies, listener, interrupts, site, settings)


def _drive(
    row: StudyRow,
    plan: Plan,
    objective: Objective,
    studies: Studies,
    listener: Listener,
    interrupts: Interrupts,
    site: Site,
    settings: Settings,
) -> Result:
    """One driver's time with a study, from its lease to its result."""
    began = time.monotonic() - float(row.summary.get("seconds", 0.0))
    spec, out = plan.spec, OutputFolder(settings.out)
    folder, url = out.study(row.id), settings.database
    with (
        Journal(folder.journal, listener) as listener,
        _storage_named(settings.command(f"resume {row.id}")),
        acquire(url, row.id, site.job) as lease,
        _marked(row, to_yaml(spec), studies, lease),
        opened_storage(url) as storage,
    ):
        fence(storage, lease.check_within)
        listener.planned(row.id, plan, read_study(storage, row.id))
        interrupts.announce = lambda: listener.note(
            "the study is ending; trials that are being trained can go on later"
        )
        if site.inline and (plan.spec.budget.hours or plan.spec.budget.epoch_minutes):
            listener.note(_NO_LIMITS)
        trial_plan = _trial_plan(plan, objective, folder)
        with _mirrored(plan, row, settings) as mirror:
            with _runner(site, plan, folder, lease) as trainer:
                interrupts.install()  # Ray takes SIGTERM for itself when it starts
                plan = _calibrate(plan, trainer, trial_plan, folder, listener)
                others = read_finished(storage, spec.search.warm_start)
                # In line the same seed gives the same trials; beside each other they come in no order anyway.
                with closing(Study.open(plan, storage, row.id, others, ahead=not site.inline)) as study:
                    driver = StudyDriver(
                        plan,
                        study,
                        mirror,
                        listener,
                        folder.logs,
                        interrupts,
                        fence=lease.check,
                        allowance=lambda: site.allowance(row.id),
                        progress=lease.progress,
                        starved=lambda starved: site.starved(row.id, starved),
                    )
                    ending = _search(driver, study, trainer, trial_plan, looks_of(row.summary))
            with interrupts.shield():
                lease.check()
                records = study.trials()
                result = _keep(ending, plan, records, row.id, settings, time.monotonic() - began)
                # The row last: until it says so the study can be resumed, and then does the rest of this again.
                _end_mirror(mirror, spec, result, records, folder)
                studies.end(row.id, ending.state, ending.reason, result.to_data())
                _close_mirror(mirror, result, listener)
                interrupts.finish()  # what has ended well is not interrupted by what comes now
    return result


def _site(runner: str | Site) -> Site:
    """The place of that name: this machine, with Ray or without."""
    if isinstance(runner, Site):
        return runner
    if runner not in RUNNERS:
        raise UsageError(f"runner {runner!r}; allowed: {', '.join(RUNNERS)}")
    shape = local_shape()
    return Site(shape, lambda: local_cluster(shape), inline=runner == "inline")


def _prepare(
    spec: StudySpec, settings: Settings, progress: Callable[[str], None], site: Site
) -> tuple[Plan, Objective]:
    plan = plan_study(spec, site.shape)
    objective = objectives.build(spec, settings.data_dir)
    objective.prepare(progress)
    return plan, objective


def _unfinished(row: StudyRow, spec: StudySpec, settings: Settings) -> StudySpec:
    if row.state is StudyState.COMPLETE:
        extend = settings.command(f"extend {row.id} --trials +10")
        raise ConflictError(f"study {row.id} is complete; add to its budget with: {extend}")
    return spec


def range_test_once(
    spec: StudySpec,
    settings: Settings,
    domain: RangeTested,
    progress: Callable[[str], None],
) -> tuple[dict[str, Scalar], Calibration]:
    """The learning-rate range test of one configuration of a space, in this process: the configuration, and what was
    found. Nothing is stored. Raises DataError for a data set that cannot be had."""
    plan, objective = _prepare(spec, settings, progress, _site("inline"))

    def run_tests(jobs: Sequence[RangeTestJob], sweep: Sweep) -> Sequence[Curve]:
        return [objective.range_test(params, seed, plan.resources, sweep) for params, seed in jobs]

    return calibrate_one(spec, domain, run_tests, objective.range_test_epochs)


def _calibrate(plan: Plan, trainer: Runner, trial_plan: TrialPlan, folder: StudyFolder, listener: Listener) -> Plan:
    """The plan with the range tests that its space asks for."""

    def run_tests(jobs: Sequence[RangeTestJob], sweep: Sweep) -> Sequence[Curve]:
        listener.note(f"range tests of the learning rate: {len(jobs)} of {sweep.steps} steps")
        return trainer.sweep(trial_plan, jobs, sweep)

    calibrated = calibrate(plan, run_tests, trial_plan.objective.range_test_epochs, folder.calibration)
    if calibrated.calibration is not None:
        for line in calibrated.calibration.lines():
            listener.note(line)
        plot_range_tests(calibrated.calibration, folder.range_tests_plot)
    return calibrated


def _search(driver: StudyDriver, study: Study, trainer: Runner, trial_plan: TrialPlan, looks: Sequence[Look]) -> Ending:
    """The loop with its end: train until the driver wants no more, then test the best, unless one of the earlier
    `looks` was at it."""
    try:
        trainer.train(driver, trial_plan)
        driver.finish()
        if driver.broken is not None:
            return Ending(StudyState.FAILED, driver.broken, looks)
        best = study.best()
        if best is None:
            return Ending(StudyState.FAILED, "; ".join(filter(None, (driver.over, _why_none(study.trials())))), looks)
        exhausted = "every configuration of the space has been tried" if study.exhausted else ""
        untested = ""
        if look_at(looks, best.number) is None:
            test, untested = _test(best, trainer, trial_plan)
            looks = [*looks, Look(best.number, test)] if test is not None else looks
        return Ending(StudyState.COMPLETE, "; ".join(filter(None, (driver.over, exhausted, untested))), looks)
    except KeyboardInterrupt:
        driver.interrupt()
        return Ending(StudyState.INTERRUPTED, "interrupted", looks)


def _why_none(records: Sequence[TrialRecord]) -> str:
    """Why a study has no trial of full length: what its trials failed of, where any did."""
    ended = [record for record in records if record.state is not TrialState.WAITING]
    failed = [record.reason for record in ended if record.state is TrialState.FAILED]
    return failures_text(failed, len(ended)) or "no trial was trained to its full length"


def _test(best: TrialRecord, trainer: Runner, trial_plan: TrialPlan) -> tuple[Metrics | None, str]:
    """The best trial's metrics on the test split; and why there are none, where that is not as it should be."""
    if best.checkpoint is None:
        return None, ""
    trial = Trial(best.number, best.params, best.seed, best.epochs_done, best.checkpoint)
    try:
        return trainer.evaluate(trial_plan, trial, best.checkpoint) or None, ""
    except DataError as error:
        return None, f"the best trial could not be tested: {error}"


@contextmanager
def _runner(site: Site, plan: Plan, folder: StudyFolder, lease: Lease) -> Iterator[Runner]:
    if site.inline:
        yield Runner(run_inline, evaluate_checkpoint, sweep_inline)
        return
    with site.connected():
        # Ray is read only where it is used.
        from dialin.execution.ray_tune import evaluate_on_ray, run_on_ray, sweep_on_ray

        def train(driver: StudyDriver, trial_plan: TrialPlan) -> None:
            with lease.watched(HANG_SECONDS):
                run_on_ray(driver, trial_plan, plan.concurrency, folder.root / "ray")

        yield Runner(train, evaluate_on_ray, sweep_on_ray)


def _studies(settings: Settings) -> Studies:
    if settings.database_url is None and not settings.out.exists():
        raise NotFoundError(f"there is no study in {settings.out}")
    return Studies(settings.database)


@contextmanager
def _marked(row: StudyRow, spec: str, studies: Studies, lease: Lease) -> Iterator[None]:
    """The study's row says that it runs; whatever escapes is noted there before it goes on, unless the study is no
    longer ours."""
    studies.go_on(row.id, spec, read=row.spec)
    try:
        yield
    except FencedError:
        raise
    except BaseException as error:
        # When nothing can be written its row goes on saying that it runs, and nobody does: `resume` takes that over.
        if not _is_disk_full(error):
            try:
                lease.check()
                studies.end(row.id, *_escaped(error), dict(row.summary))
            except DatabaseError as lost:
                raise lost from error
        raise


@contextmanager
def _storage_named(resume: str) -> Iterator[None]:
    """A disk that is full and a database that stays locked, as one clear error. `resume`: the command to go on with."""
    try:
        yield
    except Exception as error:
        if _is_disk_full(error):
            message = f"no space left on the disk; make room, then go on with: {resume}"
        elif (lost := _database_error(error)) is not None:
            raise lost from error
        elif _says(error, "database is locked"):
            message = (
                "another process keeps the database locked, perhaps a driver that was stopped while it wrote; end it, "
                f"then go on with: {resume}"
            )
        else:
            raise
        raise StorageError(message) from error


def _is_disk_full(error: BaseException | None) -> bool:
    """In the words of the system's or of SQLite's."""
    return _says(error, "disk is full") or _says(error, os.strerror(errno.ENOSPC))


def _database_error(error: BaseException | None) -> DatabaseError | None:
    """The one behind an error, where Optuna has put one of its own in front of it."""
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__cause__ or error.__context__
    return error


def _says(error: BaseException | None, text: str) -> bool:
    """Whether an error or one behind it has this text."""
    while error is not None:
        if text in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _escaped(error: BaseException) -> tuple[StudyState, str]:
    """The state and the reason of a study that an error has ended."""
    if isinstance(error, KeyboardInterrupt):
        return StudyState.INTERRUPTED, "interrupted"
    return StudyState.FAILED, f"{type(error).__name__}: {error}"


def _trial_plan(plan: Plan, objective: Objective, folder: StudyFolder) -> TrialPlan:
    spec = plan.spec
    return TrialPlan(
        objective=objective,
        resources=plan.resources,
        epochs=spec.budget.epochs,
        metric=spec.objective.metric,
        maximize=spec.objective.mode == "max",
        target=spec.budget.target,
        checkpoints=folder.checkpoints,
        rungs=plan.waits_at,
        compared_at=plan.rungs,
        logs=folder.logs,
    )


@contextmanager
def _mirrored(plan: Plan, row: StudyRow, settings: Settings) -> Iterator[Mirror]:
    """The study's way to MLflow; whatever escapes ends its run there too, unless the study is no longer ours."""
    spec = plan.spec
    complete_spool(settings, replace(row, state=StudyState.RUNNING), patience_seconds=0.0)
    mirror = Mirror(OutputFolder(settings.out).study(row.id).spool, *mlflow_target(settings))
    rungs = ", ".join(map(str, plan.rungs)) or "none"
    params: dict[str, Scalar] = {**params_of(spec), "rungs": rungs, "concurrency": plan.concurrency}
    mirror.study_started(row.id, spec.name, params, {"spec": to_yaml(spec)})
    mirror.start()
    try:
        yield mirror
    except FencedError:
        mirror.abandon()
        raise
    except BaseException as error:
        if not _is_disk_full(error):
            state, reason = _escaped(error)
            mirror.study_ended(state.value, reason, {}, {}, [])
        mirror.close(INTERRUPTED_MIRROR_SECONDS)
        raise


def _keep(
    ending: Ending,
    plan: Plan,
    records: Sequence[TrialRecord],
    study_id: str,
    settings: Settings,
    seconds: float,
) -> Result:
    """The result, and the best configuration as a file; the checkpoints of trials that never go on are removed."""
    spec, out = plan.spec, OutputFolder(settings.out)
    for record in records:
        if record.state in (TrialState.STOPPED, TrialState.DIVERGED, TrialState.FAILED):
            shutil.rmtree(out.study(study_id).checkpoints / f"{record.number:04d}", ignore_errors=True)
    file = out.study(study_id).best_config
    paths = paths_of(settings)
    result = summarize(
        spec,
        study_id,
        ending.state.value,
        records,
        looks=ending.looks,
        range_tests=plan.calibration.epochs if plan.calibration is not None else 0.0,
        seconds=seconds,
        paths=paths,
        reason=ending.reason,
    )
    if (best := result.best) is not None:
        result = replace(result, paths={**paths, "best_config": str(file)})
        write_best_config(file, spec, records[best.trial], result)
    return result


def _end_mirror(
    mirror: Mirror,
    spec: StudySpec,
    result: Result,
    records: Sequence[TrialRecord],
    folder: StudyFolder,
) -> None:
    mirror.ended(ending_of(spec, result, records, folder, None))


def _close_mirror(mirror: Mirror, result: Result, listener: Listener) -> None:
    """Give MLflow a while to get all of it."""
    interrupted = result.state == StudyState.INTERRUPTED
    if not mirror.close(INTERRUPTED_MIRROR_SECONDS if interrupted else MIRROR_SECONDS) and not interrupted:
        listener.note(f"MLflow lags by {mirror.lag()} events; they are kept on disk and are still being written")
