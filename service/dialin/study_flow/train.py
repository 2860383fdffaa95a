"""The ask-and-tell loop of a study, and the evaluation of the best trial on the test split at its end."""

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

HANG_SECONDS = 300.0
"""A driver whose loop has not completed a round for this long counts as hung, and another driver may take its study.

Within a round the loop may wait for a locked database (at most a minute for each statement), for a suggestion of the
sampler (seconds) and for the disk.
"""


def train(plan: Plan, session: Session) -> Ending:
    """Search until the budget is spent or the study is interrupted, then evaluate the best trial on the test split.

    Raises what the executor raises, such as ClusterError when the cluster is lost, and FencedError when another driver
    has taken the study over.
    """
    others = read_finished(session.storage, plan.spec.search.warm_start)
    # Prefetched suggestions depend on timing. The inline executor goes without, so that a seed fixes all its trials;
    # with parallel trials the order of the reports depends on timing anyway.
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
            state, reason, looks = _ending(plan, driver, study, looks, session)
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
    """A context that gives up the lease if the loop hangs. Rounds of the inline executor may take any time."""
    return nullcontext() if session.place.executor.is_inline else session.lease.watched(HANG_SECONDS)


def _ending(
    plan: Plan, driver: StudyDriver, study: Study, looks: Sequence[Look], session: Session
) -> tuple[StudyState, str, Sequence[Look]]:
    """The state, the reason and the evaluations on the test split of a study that was not interrupted."""
    if driver.broken is not None:
        return StudyState.FAILED, driver.broken, looks
    best = study.best()
    if best is None:
        return StudyState.FAILED, _joined(driver.over, _why_no_best(plan, study.trials())), looks
    front = [placed.record for placed in study.front()] if plan.spec.has_front else [best]
    looks, untested = _test_all(front, looks, session)
    exhausted = "every configuration of the space has been tried" if study.exhausted else ""
    return StudyState.COMPLETE, _joined(driver.over, exhausted, untested), looks


def _test_all(records: Sequence[TrialRecord], looks: Sequence[Look], session: Session) -> tuple[Sequence[Look], str]:
    """The looks, with one for each of these trials that had none; and the reason if one could not be evaluated. Every
    point of a Pareto front is evaluated: which of them a person takes is not known here."""
    untested = ""
    for record in records:
        if look_at(looks, record.number) is None:
            metrics, untested = _test(record, session)
            looks = [*looks, Look(record.number, metrics)] if metrics else looks
    return looks, untested


def _joined(*reasons: str | None) -> str:
    return "; ".join(filter(None, reasons))


def _why_no_best(plan: Plan, records: Sequence[TrialRecord]) -> str:
    """Why there is no best trial: the cause of the failures, if there were any; else that no trial was trained to its
    full length, or that none of those meets the constraints."""
    ended = [record for record in records if record.state is not TrialState.WAITING]
    failed = [record.reason for record in ended if record.state is TrialState.FAILED]
    if any(record.state is TrialState.COMPLETE for record in ended) and plan.spec.constraints:
        names = ", ".join(plan.spec.constraints)
        return f"no trial that was trained to its full length meets the constraints ({names})"
    return failures_text(failed, len(ended)) or "no trial was trained to its full length"


def _test(best: TrialRecord, session: Session) -> tuple[Metrics, str]:
    """The best trial's metrics on the test split, and the reason if they could not be computed."""
    if best.checkpoint is None:
        return {}, ""
    trial = Trial(best.number, best.params, best.seed, best.epochs_done, best.checkpoint)
    try:
        return session.place.executor.evaluate(session.trial_plan, trial, best.checkpoint), ""
    except DataError as error:
        return {}, f"the best trial could not be tested: {error}"
