"""What a driver holds while it works on a study: the lease, the storage, the event log, the mirror.

`open_place` opens what is the same for every study of a process, `open_session` what belongs to one study.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dialin.errors import DatabaseError, FencedError, NotFoundError
from dialin.events.publisher import Listener, Publisher
from dialin.execution.executor import Executor
from dialin.execution.trial_run import TrialPlan
from dialin.paths import OutputFolder, StudyFolder
from dialin.planning.plan import Plan
from dialin.search.storage import BaseStorage, fence, opened_storage
from dialin.search.trial_rows import read_study
from dialin.settings import Settings
from dialin.specification import to_yaml
from dialin.specification.study_spec import StudySpec
from dialin.store.leases import Lease, acquire
from dialin.store.output_folder import open_output
from dialin.store.storage_errors import StorageErrors, is_disk_full
from dialin.store.studies import Studies, StudyRow
from dialin.study_flow.ending import end_of_error, on_error
from dialin.study_flow.mirror import mirrored
from dialin.study_flow.prepare import Prepared
from dialin.study_flow.signals import Interrupts
from dialin.tracking.mirror import Mirror

INLINE_LIMITS = (
    "without Ray a trial cannot be ended from outside: budget.hours is checked between epochs, and "
    "budget.epoch_minutes is not checked"
)


def _no_allowance() -> int | None:
    return None


def _ignore_starvation(_starved: bool) -> None:
    return None


@dataclass(frozen=True)
class Control:
    """How a server steers a driver. The defaults are those of a study that a person runs from the command line."""

    job: str = ""
    """The server's job that this process is; empty: none."""
    allowance: Callable[[], int | None] = _no_allowance
    """How many trials may run at a time now, because other studies share the cluster; None: as many as planned."""
    starved: Callable[[bool], None] = _ignore_starvation
    """Is called with True when every running trial waits for a worker, and with False when that is over."""


@dataclass(frozen=True)
class Place:
    """Where studies run and who takes part; the same for every study of a process."""

    settings: Settings
    studies: Studies
    listener: Listener
    """Hears what happens: the terminal, a log."""
    executor: Executor
    """Where trials are trained."""
    control: Control
    interrupts: Interrupts

    def create_study(self, spec: StudySpec) -> StudyRow:
        """Store a new study, in state running."""
        return self.studies.create(spec.name, to_yaml(spec))


@dataclass(frozen=True)
class Session:
    """One driver's time with one study: all that it holds until it lets the study go."""

    place: Place
    row: StudyRow
    """The study as it was stored when the driver came."""
    folder: StudyFolder
    lease: Lease
    storage: BaseStorage
    events: Publisher
    """Writes the study's event log, and tells the listener of the place."""
    mirror: Mirror
    trial_plan: TrialPlan
    started: float
    """When the study would have started had it run without a break, by `time.monotonic`."""

    @contextmanager
    def executor_connected(self) -> Iterator[None]:
        """Connect the executor while the block runs. Raises ClusterError when its cluster cannot be reached."""
        with self.place.executor.connected():
            self.place.interrupts.install()  # Ray takes SIGTERM for itself when it starts
            yield


@contextmanager
def open_place(
    settings: Settings,
    listener: Listener,
    executor: Executor,
    control: Control | None = None,
    *,
    make_folder: bool = False,
) -> Iterator[Place]:
    """Open the output folder and the table of studies, and take the signals while the block runs.

    Raises NotFoundError where there is no output folder and `make_folder` is false: no study can be there.
    """
    if make_folder or settings.out.exists():
        open_output(settings, listener.note)
    elif settings.database_url is None:
        raise NotFoundError(f"there is no study in {settings.out}")
    with Interrupts() as interrupts, Studies(settings.database) as studies:
        yield Place(settings, studies, listener, executor, control or Control(), interrupts)


@contextmanager
def open_session(row: StudyRow, prepared: Prepared, place: Place) -> Iterator[Session]:
    """Take the lease of a study and open everything that driving it needs; close it all at the end.

    An error that leaves the block is stored as the study's end, in the database and in MLflow, unless another driver
    has taken the study over. Raises ConflictError while another driver holds the lease, and StorageError for a full
    disk or a locked database.
    """
    settings, plan = place.settings, prepared.plan
    folder, url = OutputFolder(settings.out).study(row.id), settings.database
    started = time.monotonic() - float(row.summary.get("seconds", 0.0))
    with (
        StorageErrors(settings.command(f"resume {row.id}")),
        acquire(url, row.id, place.control.job) as lease,
        _marked_running(row, to_yaml(plan.spec), place.studies, lease),
        opened_storage(url) as storage,
    ):
        fence(storage, lease.check_within)
        records = read_study(storage, row.id)
        place.listener.planned(row.id, plan, records)
        with mirrored(plan, row, records, settings, place.listener) as (events, mirror):
            _announce(plan, place, events)
            trial_plan = _trial_plan(prepared, folder)
            yield Session(place, row, folder, lease, storage, events, mirror, trial_plan, started)


def _announce(plan: Plan, place: Place, events: Publisher) -> None:
    place.interrupts.announce = lambda: events.note(
        "the study is ending; trials that are being trained can continue later"
    )
    if place.executor.is_inline and (plan.spec.budget.hours or plan.spec.budget.epoch_minutes):
        events.note(INLINE_LIMITS)


@contextmanager
def _marked_running(row: StudyRow, spec: str, studies: Studies, lease: Lease) -> Iterator[None]:
    """The study's row says that it runs. An error that leaves the block is stored there as its end."""
    studies.mark_running(row.id, spec, read=row.spec)

    def store_end(error: BaseException) -> None:
        # When nothing can be written the row keeps saying that the study runs, and nobody drives it: `resume` works.
        if isinstance(error, FencedError) or is_disk_full(error):
            return
        try:
            lease.check()
            studies.end(row.id, *end_of_error(error), dict(row.summary))
        except DatabaseError as lost:
            raise lost from error

    with on_error(store_end):
        yield


def _trial_plan(prepared: Prepared, folder: StudyFolder) -> TrialPlan:
    plan, spec = prepared.plan, prepared.plan.spec
    return TrialPlan(
        objective=prepared.objective,
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
