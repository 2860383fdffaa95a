"""A study that another process of this machine drives: followed, stopped, its logs read."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console

from dialin.errors import ConflictError, NoResultError
from dialin.execution.local_cluster import local_shape
from dialin.lifecycle import ENDED, StudyState, TrialState
from dialin.paths import OutputFolder
from dialin.planning.plan import plan_study
from dialin.results.export import best_config
from dialin.search.decision import Decision
from dialin.search.records import Trial, TrialRecord
from dialin.settings import Settings
from dialin.store.leases import Owner, holder
from dialin.store.submissions import Submissions
from dialin.study_flow.progress import Progress, StudyClock
from dialin.study_flow.read_back import StudyReader, load_study, study_row
from dialin.study_flow.snapshot import StudySnapshot
from dialin.texts import read_tail

POLL_SECONDS = 1.0
STOP_POLL_SECONDS = 0.1


class TrialListener(Protocol):
    """Who hears of trials: the terminal's progress, a test."""

    def trial_started(self, trial: Trial) -> None: ...
    def epoch_done(self, trial: Trial, epoch: int, value: float) -> None: ...
    def trial_ended(self, trial: Trial, decision: Decision) -> None: ...


class Follower:
    """Tells a listener what is new in a study's records, each epoch and each change of state once; at first all."""

    def __init__(self, listener: TrialListener) -> None:
        self._listener = listener
        self._told: dict[int, TrialRecord] = {}

    def take(self, records: Sequence[TrialRecord]) -> None:
        for record in records:
            before = self._told.get(record.number)
            if before is not record and before != record:
                self._tell(before, record)
                self._told[record.number] = record

    def _tell(self, before: TrialRecord | None, now: TrialRecord) -> None:
        trial = _trial(now)
        new = [epoch for epoch in now.values if before is None or epoch not in before.values]
        was_running = before is not None and before.state is TrialState.RUNNING
        # It may have come and gone between two looks.
        if not was_running and (now.state is TrialState.RUNNING or new):
            self._listener.trial_started(trial)
        for epoch in new:
            self._listener.epoch_done(trial, epoch, now.values[epoch])
        if now.state is not TrialState.RUNNING and (before is None or before.state is not now.state or new):
            self._listener.trial_ended(trial, now.decision or Decision.of_state(now.state))


def watch_study(settings: Settings, reference: str, console: Console) -> StudySnapshot:
    """Show how a study goes until it has ended; how it then stands. Raises as `looks`."""
    back = load_study(settings, reference)
    if back.row.state in ENDED:
        return back
    clock = StudyClock(back.row.created_at)
    with Progress(console, clock, late=True) as progress:
        progress.planned(back.row.id, plan_study(back.spec, local_shape()), ())
        follower = Follower(progress)
        for look in looks(settings, back.row.id):
            back = look
            follower.take(back.trials)
            clock.run()
    return back


def looks(settings: Settings, study_id: str, sleep: Callable[[float], None] = time.sleep) -> Iterator[StudySnapshot]:
    """How a study stands, now and once a second until it has ended. Raises NotFoundError, and ConflictError when nobody
    drives it."""
    alone = 0
    with StudyReader(settings, study_id) as reader:
        while (back := reader.load(study_id)).row.state not in ENDED:
            # Nobody may hold the lease for a moment when a study has just begun or is just over.
            driven = back.row.state is not StudyState.RUNNING or holder(reader.studies.engine, study_id) is not None
            alone = 0 if driven else alone + 1
            if alone > 1:
                raise ConflictError(_nobody(settings, back.row.id))
            yield back
            sleep(POLL_SECONDS)
    yield back


def stop_study(settings: Settings, reference: str, sleep: Callable[[float], None] = time.sleep) -> StudySnapshot:
    """Have the process that drives a study end it, and wait until it has; how it then stands.

    Raises NotFoundError, and ConflictError when it has ended already, when nobody drives it, and when that process
    cannot be reached from here.
    """
    back = load_study(settings, reference)
    if back.row.state in ENDED:
        raise ConflictError(f"study {back.row.id} is {back.row.state.value} already; there is nothing to stop")
    with Submissions(settings.database) as submissions:
        if submissions.get(back.row.id).submission is not None:
            submissions.want(back.row.id, False)  # or its server would start it again
            back = load_study(settings, back.row.id)
        owner = holder(submissions.engine, back.row.id)
    if back.row.state in ENDED:
        return back
    if owner is None:
        raise ConflictError(_nobody(settings, back.row.id))
    _terminate(settings, owner, back.row.id)
    with StudyReader(settings, back.row.id) as reader:
        while (back := reader.load(back.row.id)).row.state not in ENDED:
            if owner.is_gone() and reader.load(back.row.id).row.state not in ENDED:
                raise ConflictError(f"process {owner.pid} has ended without a word; {_nobody(settings, back.row.id)}")
            sleep(STOP_POLL_SECONDS)
    return back


def study_logs(settings: Settings, reference: str, tail: int, trial: int | None = None) -> Mapping[str, str]:
    """The last lines of each log of a study, by the log's name: its driver's first, then those of trials that have
    printed something or have failed; of one trial where its number is given. Raises NotFoundError for an unknown study
    or trial."""
    row = study_row(settings, reference)
    folder = OutputFolder(settings.out).study(row.id)
    if trial is None:
        return {file.name: read_tail(file, tail) for file in _logs(folder.logs)}
    file = folder.trial_log(trial)
    if not file.exists():
        load_study(settings, row.id).find_trial(trial)
        return {}
    return {file.name: read_tail(file, tail)}


def best_yaml(settings: Settings, reference: str) -> str:
    """The best configuration of a study as a specification, as its trials have it now. Raises NotFoundError, and
    NoResultError while no trial has reported a finite value."""
    back = load_study(settings, reference)
    best = back.result.best
    if best is None:
        raise NoResultError(f"study {back.row.id} has no best configuration: no trial has reported a finite value yet")
    return best_config(back.spec, back.trials[best.trial], back.result)


def _terminate(settings: Settings, owner: Owner, study_id: str) -> None:
    if not owner.is_here():
        raise ConflictError(f"study {study_id} is driven by process {owner.pid} on {owner.host}; stop it there")
    try:
        os.kill(owner.pid, signal.SIGTERM)
    except ProcessLookupError:
        raise ConflictError(_nobody(settings, study_id)) from None
    except PermissionError:
        raise ConflictError(f"study {study_id} is driven by process {owner.pid} of another user") from None


def _nobody(settings: Settings, study_id: str) -> str:
    return f"nobody drives study {study_id}; go on with it: {settings.command(f'resume {study_id}')}"


def _trial(record: TrialRecord) -> Trial:
    return Trial(record.number, record.params, record.seed, record.epochs_done, record.checkpoint)


def _logs(folder: Path) -> Iterator[Path]:
    driver = folder / "driver.log"
    if driver.exists():
        yield driver
    yield from (file for file in sorted(folder.glob("*.log")) if file != driver)
