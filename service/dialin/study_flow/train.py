"""The loop: trials are asked for, trained, reported and decided on until the study is over; then the best is tested."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext

from dialin.errors import DataError
from dialin.lifecycle import StudyState, TrialState
from dialin.objectives.base import Metrics
from dialin.planning.plan import Plan
from dialin.results.looks import Look, look_at, looks_of
from dialin.search.failures import failures_text
from dialin.search.records import Trial, TrialRecord
from dialin.search.study import Study
from dialin.search.trial_rows import read_finished
from dialin.study_flow.driver import DriverControl, StudyDriver
from dialin.study_flow.ending import Ending
from dialin.study_flow.session import Session

# A driver whose loop has not come round for so long hangs, and another driver may take its study. The loop waits for a
# locked database (at most a minute a statement), for a suggestion of the model (seconds) and for the disk.
HANG_SECONDS = 300.0


def train(plan: Plan, session: Session) -> Ending:
    """Search until the budget is spent or the study is interrupted, and test the best trial.

    Raises what the executor raises: ClusterError when the cluster goes away, FencedError when another driver has taken
    the study over.
    """
    others = read_finished(session.storage, plan.spec.search.warm_start)
    # In this process the same seed gives the same trials; trials side by side come in no fixed order anyway.
    prefetch = not session.place.executor.is_inline
    with closing(Study.open(plan, session.storage, session.row.id, others, prefetch=prefetch)) as study:
        driver = _driver(plan, study, session)
        looks: Sequence[Look] = looks_of(session.row.summary)
        try:
            with _watched(session):
                session.place.executor.train(
                    driver, session.trial_plan, concurrency=plan.concurrency, folder=session.folder.root / "ray"
                )
            driver.finish()
            state, reason, looks = _ending(driver, study, looks, session)
        except KeyboardInterrupt:
            driver.interrupt()
            state, reason = StudyState.INTERRUPTED, "interrupted"
        return Ending(state, reason, study.trials(), looks)


def _driver(plan: Plan, study: Study, session: Session) -> StudyDriver:
    control = DriverControl(
        fence=session.lease.check,
        allowance=session.place.control.allowance,
        progress=session.lease.record_progress,
        starved=session.place.control.starved,
        last_trial_ended=session.mirror.hurry,
    )
    return StudyDriver(plan, study, session.events, session.folder.logs, session.place.interrupts, control)


def _watched(session: Session) -> AbstractContextManager[None]:
    """In this process an epoch of any length keeps the loop waiting, so that its silence says nothing."""
    return nullcontext() if session.place.executor.is_inline else session.lease.watched(HANG_SECONDS)


def _ending(
    driver: StudyDriver, study: Study, looks: Sequence[Look], session: Session
) -> tuple[StudyState, str, Sequence[Look]]:
    """The state, the reason and the looks at the test split of a study whose loop has ended by itself."""
    if driver.broken is not None:
        return StudyState.FAILED, driver.broken, looks
    best = study.best()
    if best is None:
        return StudyState.FAILED, _joined(driver.over, _why_no_best(study.trials())), looks
    untested = ""
    if look_at(looks, best.number) is None:
        metrics, untested = _test(best, session)
        looks = [*looks, Look(best.number, metrics)] if metrics else looks
    exhausted = "every configuration of the space has been tried" if study.exhausted else ""
    return StudyState.COMPLETE, _joined(driver.over, exhausted, untested), looks


def _joined(*reasons: str | None) -> str:
    return "; ".join(filter(None, reasons))


def _why_no_best(records: Sequence[TrialRecord]) -> str:
    """Why no trial was trained to its full length: the cause of the failures, where there were any."""
    ended = [record for record in records if record.state is not TrialState.WAITING]
    failed = [record.reason for record in ended if record.state is TrialState.FAILED]
    return failures_text(failed, len(ended)) or "no trial was trained to its full length"


def _test(best: TrialRecord, session: Session) -> tuple[Metrics, str]:
    """The best trial's metrics on the test split, and why there are none where something went wrong."""
    if best.checkpoint is None:
        return {}, ""
    trial = Trial(best.number, best.params, best.seed, best.epochs_done, best.checkpoint)
    try:
        return session.place.executor.evaluate(session.trial_plan, trial, best.checkpoint), ""
    except DataError as error:
        return {}, f"the best trial could not be tested: {error}"
