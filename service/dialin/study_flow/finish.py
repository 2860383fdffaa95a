"""The last stage: writes the result of a study to the database, to files and to MLflow."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace

from dialin.lifecycle import StudyState, TrialState
from dialin.planning.plan import Plan
from dialin.results.export import write_best_config, write_pareto
from dialin.results.summary import Result, Spent, summarize
from dialin.search.records import TrialRecord
from dialin.specification import to_yaml
from dialin.study_flow.ending import Ending
from dialin.study_flow.mirror import ending_event
from dialin.study_flow.result_files import draw_front
from dialin.study_flow.session import Session
from dialin.study_flow.snapshot import StudySnapshot, paths_of
from dialin.texts import one_line

MIRROR_SECONDS = 60.0  # longest wait for MLflow at the end of a study
INTERRUPTED_MIRROR_SECONDS = 0.3  # after Ctrl-C nobody should have to wait; the recorder's process continues alone


def finish(ending: Ending, plan: Plan, session: Session) -> StudySnapshot:
    """Store how a study ended, and return the study. Signals are delayed until everything is written.

    Raises FencedError, with nothing written, when another driver has taken the study over.
    """
    place, row = session.place, session.row
    with place.interrupts.shield():
        session.lease.check()
        _remove_checkpoints(ending.trials, session)
        result = _result(ending, plan, session)
        # The row comes last: until it is written the study can be resumed, and then all of this is done again.
        session.events.publish(ending_event(plan.spec, result, ending.trials, session.folder, None))
        ended_at = time.time()  # before the wait for MLflow, as the row has it
        place.studies.end(row.id, ending.state, ending.reason, result.to_data())
        _close_mirror(session, result)
        lag = session.mirror.standing()
        place.interrupts.finish()  # the study has ended; from here on an interrupt changes nothing
    return StudySnapshot(
        row=replace(
            row,
            state=ending.state,
            reason=one_line(ending.reason),
            spec=to_yaml(plan.spec),
            summary=result.to_data(),
            ended_at=ended_at,
        ),
        spec=plan.spec,
        trials=ending.trials,
        result=result,
        calibration=plan.calibration,
        mirror_lag=lag.events,
        mirror_note=lag.text(),
        history=row.history(),
    )


def _remove_checkpoints(records: Sequence[TrialRecord], session: Session) -> None:
    """Remove the checkpoints of trials that never continue. Complete trials may: an extension continues them."""
    for record in records:
        if record.state in (TrialState.STOPPED, TrialState.DIVERGED, TrialState.FAILED):
            shutil.rmtree(session.folder.checkpoints / f"{record.number:04d}", ignore_errors=True)


def _result(ending: Ending, plan: Plan, session: Session) -> Result:
    """Return the result of the study, and write the file of its best configuration, or those of its Pareto front."""
    paths = paths_of(session.place.settings)
    range_tests = plan.calibration.epochs if plan.calibration is not None else 0.0
    result = summarize(
        plan.spec,
        session.row.id,
        ending.state.value,
        ending.trials,
        looks=ending.looks,
        spent=Spent(range_tests, time.monotonic() - session.started),
    )
    result = replace(result, paths=paths, reason=ending.reason)
    if result.front:
        result = replace(result, paths={**paths, "pareto": str(session.folder.pareto)})
        write_pareto(session.folder.pareto, plan.spec, ending.trials, result)
        draw_front(plan.spec, result, ending.trials, session.folder.pareto_plot)
    elif (best := result.best) is not None:
        file = session.folder.best_config
        result = replace(result, paths={**paths, "best_config": str(file)})
        write_best_config(file, plan.spec, ending.trials[best.trial], result)
    return result


def _close_mirror(session: Session, result: Result) -> None:
    """Wait for MLflow to receive all events, up to a limit."""
    interrupted = result.state == StudyState.INTERRUPTED
    seconds = INTERRUPTED_MIRROR_SECONDS if interrupted else MIRROR_SECONDS
    if not session.mirror.close(seconds) and not interrupted:
        lag = session.mirror.lag()
        # The note goes to the listener only: in the event log it would be one more event that MLflow lacks.
        session.place.listener.note(f"MLflow lags by {lag} events; they are kept on disk and are still being written")
