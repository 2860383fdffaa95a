"""The flow of a study from its specification to its result.

    spec -> plan -> calibrate -> [ ask -> train -> report -> decide ]* -> finish

Each stage is a module: `prepare` (the plan and the data), `calibrate` (range tests), `train` (the loop) and `finish`
(the result). `session` holds what a driver needs for one study from its lease to its end.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from dialin.events.publisher import Listener
from dialin.execution.executor import Executor, executor_of
from dialin.settings import Settings
from dialin.specification.study_spec import StudySpec
from dialin.store.studies import StudyRow
from dialin.study_flow.calibrate import run_range_tests
from dialin.study_flow.extend import extended_spec, resolve_warm_start, unfinished_spec
from dialin.study_flow.finish import finish
from dialin.study_flow.prepare import Prepared, prepare
from dialin.study_flow.session import Control, Place, open_place, open_session
from dialin.study_flow.snapshot import StudySnapshot
from dialin.study_flow.train import train


def run_study(
    spec: StudySpec, settings: Settings, listener: Listener, executor: str | Executor = "ray"
) -> StudySnapshot:
    """Search the space of a specification, and return the study at its end, when all of it is stored.

    `executor`: "ray" or "inline" for this machine, or an executor of the caller. Ctrl-C and SIGTERM end the study
    cleanly: its state is then `interrupted`, the best configuration so far is kept, and `resume_study` continues it.

    Raises, before anything is stored, DataError for a data set that is not available, SpecError for resources that the
    machine does not have, and NotFoundError for an unknown study in `search.warm_start`.
    """
    trainer = executor_of(executor)
    spec = resolve_warm_start(spec, settings)
    prepared = prepare(spec, settings, trainer.shape, listener.note)
    with open_place(settings, listener, trainer, make_folder=True) as place:
        return _drive(place.create_study(spec), prepared, place)


def resume_study(
    reference: str,
    settings: Settings,
    listener: Listener,
    executor: str | Executor = "ray",
    control: Control | None = None,
) -> StudySnapshot:
    """Continue a study whose driver was interrupted, has died or has failed.

    Unfinished trials continue from their last checkpoint; then the rest of the budget is spent. `control`: callbacks by
    which a server controls this driver.

    Raises NotFoundError, and ConflictError for a study that is complete or has another driver.
    """
    place = open_place(settings, listener, executor_of(executor), control)
    return _continue(reference, place, lambda row: unfinished_spec(row, settings))


def extend_study(
    reference: str,
    settings: Settings,
    listener: Listener,
    executor: str | Executor = "ray",
    *,
    trials: str | None = None,
    epochs: str | None = None,
) -> StudySnapshot:
    """Enlarge the budget of a study and continue it. `trials`, `epochs`: the new number, or `+N` to add N.

    When trials become longer, the best of those that were complete at the old length continue, each as a new trial.

    Raises as `resume_study`, and UsageError for a budget that is not larger.
    """
    place = open_place(settings, listener, executor_of(executor))
    return _continue(reference, place, lambda row: extended_spec(row, trials, epochs))


def _continue(
    reference: str, opening: AbstractContextManager[Place], next_spec: Callable[[StudyRow], StudySpec]
) -> StudySnapshot:
    with opening as place:
        row = place.studies.find(reference)
        prepared = prepare(next_spec(row), place.settings, place.executor.shape, place.listener.note)
        return _drive(row, prepared, place)


def _drive(row: StudyRow, prepared: Prepared, place: Place) -> StudySnapshot:
    """Drive a study from the lease to the result."""
    with open_session(row, prepared, place) as session:
        with session.executor_connected():
            plan = run_range_tests(prepared.plan, session)
            ending = train(plan, session)
        return finish(ending, plan, session)
