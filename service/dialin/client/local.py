"""The studies of an output folder on this machine, without a server.

The command line and `dialin.open_study` both read studies through `LocalStudies`; it answers with the models of
`dialin.schemas`, as a server does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from dialin import schemas
from dialin.errors import ConflictError, UnreadableError
from dialin.events.best_value_curve import curve_of
from dialin.events.log import metric_of, read_events
from dialin.events.served import served_data
from dialin.events.types import StudyStarted
from dialin.lifecycle import ENDED, Action, StudyState, check_possible
from dialin.paths import OutputFolder
from dialin.results.claims import judge
from dialin.results.diagnosis import diagnose
from dialin.results.export import best_config
from dialin.search.goals import Goals
from dialin.search.records import TrialRecord
from dialin.settings import Settings
from dialin.specification import damage_of, stored_spec
from dialin.store.entries import Entry
from dialin.store.leases import Owner, holder
from dialin.store.studies import StudyRow
from dialin.store.submissions import Submissions
from dialin.study_flow import schema_builder
from dialin.study_flow.read_back import StudyReader, list_rows, study_row
from dialin.study_flow.snapshot import StudySnapshot, keeps_luckiest, mirror_lag_of
from dialin.texts import read_tail
from dialin.tracking.lag import Lag

POLL_SECONDS = 1.0  # between two looks at a study that another process drives
STOP_POLL_SECONDS = 0.1  # between two looks at a study that was asked to stop


class LocalStudies:
    """The studies of `settings.out`. A context manager; its connections to the database are opened on first use.

    A `reference` is a study's id, a name (its newest study) or `last`. Every method that takes one raises NotFoundError
    for a study that does not exist, UnreadableError for one that is damaged or of another version, and DatabaseError
    where the database was lost. `sleep` waits for a number of seconds; tests pass in their own.
    """

    def __init__(self, settings: Settings, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._sleep = sleep
        self._out = OutputFolder(settings.out)
        self._reader: StudyReader | None = None
        self._kept: dict[str, StudySnapshot] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to the database."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def keep(self, snapshot: StudySnapshot) -> schemas.LocalStudy:
        """A study that this process has driven, as its driver left it: what is on disk need not be read again."""
        self._kept[snapshot.row.id] = snapshot
        return self.study(snapshot.row.id)

    def studies(self, states: Sequence[str] = ()) -> list[schemas.Study]:
        """The studies in these states, or all, newest first. A study that cannot be read says so in `unreadable`."""
        wanted = states or tuple(StudyState)
        return [self._short(row) for row in list_rows(self._settings) if row.state in wanted]

    def study(self, reference: str) -> schemas.LocalStudy:
        """A study in full."""
        snapshot = self._read(reference)
        spec, records = snapshot.spec, snapshot.trials
        full = schema_builder.study_in_full(
            self._short(snapshot.row, snapshot),
            snapshot.row,
            snapshot,
            claim=None if spec.claim is None else judge(spec, spec.claim, records).text(),
            doctor=[each.text(len(records)) for each in diagnose(records)],
            violated=schema_builder.violations(spec, records),
        )
        # The row of a study that was driven just now is as its driver read it; the result knows the time that it took.
        known = dict(full) | {"seconds": snapshot.result.seconds, "concurrency": self._concurrency(snapshot.row)}
        return schemas.LocalStudy(**known, paths=dict(snapshot.result.paths))

    def trials(self, reference: str) -> list[schemas.Trial]:
        """Every trial in the order of its number."""
        snapshot = self._read(reference)
        return [_trial(snapshot, record) for record in snapshot.trials]

    def trial(self, reference: str, number: int) -> schemas.Trial:
        """One trial. Raises NotFoundError for a number that the study does not have."""
        snapshot = self._read(reference)
        return _trial(snapshot, snapshot.find_trial(number))

    def best(self, reference: str, trial: int | None = None) -> schemas.Best:
        """The best configuration so far; with several metrics that of the Pareto front which is best by the first.

        `trial`: the trial of the front that is wanted. Raises NoResultError while no trial has reported a finite value
        or none meets the constraints, and UsageError for a trial that is not on the front.
        """
        return schema_builder.best(self._read(reference), trial)

    def pareto(self, reference: str) -> list[schemas.ParetoPoint]:
        """The Pareto front; with one metric the best trial alone. Empty while there is none."""
        return schema_builder.pareto(self._read(reference))

    def best_yaml(self, reference: str, trial: int | None = None) -> str:
        """The configuration of `best` as a specification that trains it again. Raises as that method."""
        snapshot = self._read(reference)
        found = schema_builder.best_trial(snapshot, trial)
        return best_config(snapshot.spec, snapshot.trials[found.trial], snapshot.result)

    def curve(self, reference: str) -> schemas.BestCurve:
        """How the best value improved over epochs, trials and seconds."""
        snapshot = self._read(reference)
        curve = curve_of(Goals.of(snapshot.spec)).read_on(self._out.study(snapshot.row.id).events)
        return schema_builder.best_curve(curve.shown())

    def logs(self, reference: str, tail: int, trial: int | None = None) -> Mapping[str, str]:
        """The last `tail` lines of each log, by the log's name: the driver's first, then those of trials that have
        printed something or have failed. `trial`: the log of this trial alone."""
        row = study_row(self._settings, reference)  # logs help most where the study itself cannot be read
        folder = self._out.study(row.id)
        if trial is None:
            return {file.name: read_tail(file, tail) for file in _log_files(folder.logs)}
        file = folder.trial_log(trial)
        if not file.exists():
            self.trial(row.id, trial)
            return {}
        return {file.name: read_tail(file, tail)}

    def events(self, reference: str) -> Iterator[schemas.Event]:
        """What happens in a study, from its start until it has ended; the last event is of kind `study`.

        Raises ConflictError when the process that drove the study is gone without having ended it.
        """
        snapshot = self._read(reference)
        study_id, further = snapshot.row.id, snapshot.spec.further
        folder = self._out.study(study_id).events
        offset, state, undriven = 0, ("", ""), 0
        while True:
            row = self._open(study_id).studies.get(study_id)
            if (row.state, row.reason) != state and row.state not in ENDED:
                state = (row.state, row.reason)
                yield self._study_event(study_id, offset)
            # The metric is asked for each time: the log may have been begun only after the first look.
            part = read_events(folder, offset, metric=metric_of(folder))
            for end, event in part.entries:
                if (data := served_data(event, further)) is not None:
                    yield schemas.Event(id=str(end), kind=event.kind, data=data)
            before, offset = offset, part.offset
            if offset > before:
                continue  # there may be more
            if row.state in ENDED:
                yield self._study_event(study_id, offset)
                return
            undriven = 0 if self._is_driven(row) else undriven + 1
            if undriven > 1:  # for a moment no process holds the lease when a study begins or ends
                raise ConflictError(self._not_driven(study_id))
            self._sleep(POLL_SECONDS)

    def stop(self, reference: str) -> schemas.LocalStudy:
        """Have the process that drives a study end it, and wait until it has.

        Raises ConflictError for a study that has ended already, for one that no process drives, and for one whose
        process cannot be reached from this machine.
        """
        row = self._read(reference).row
        check_possible(row.id, row.state, Action.STOP)
        with Submissions(self._settings.database) as submissions:
            if submissions.get(row.id).submission is not None:
                submissions.request_stop(row.id)  # or its server would start it again
            owner = holder(submissions.engine, row.id)
        if self._read(row.id).row.state in ENDED:
            return self.study(row.id)
        if owner is None:
            raise ConflictError(self._not_driven(row.id))
        self._terminate(owner, row.id)
        # The driver ends its trials and writes the result; that takes seconds with Ray.
        while self._read(row.id).row.state not in ENDED:
            if owner.is_gone() and self._read(row.id).row.state not in ENDED:
                raise ConflictError(
                    f"process {owner.pid} has ended without ending the study; {self._not_driven(row.id)}"
                )
            self._sleep(STOP_POLL_SECONDS)
        return self.study(row.id)

    def command(self, words: str) -> str:
        """A dialin command that works on these studies from the current folder."""
        return self._settings.command(words)

    def _open(self, reference: str) -> StudyReader:
        if self._reader is None:
            self._reader = StudyReader(self._settings, reference)
        return self._reader

    def _read(self, reference: str) -> StudySnapshot:
        # What a driver of this process has left is what it wrote to the disk: thousands of trials are not read twice.
        kept = self._kept.get(reference)
        return self._open(reference).load(reference) if kept is None else kept

    def _short(self, row: StudyRow, snapshot: StudySnapshot | None = None) -> schemas.Study:
        damage: list[str] = []
        lag, outcome = Lag(), schema_builder.NO_OUTCOME
        try:
            lag = mirror_lag_of(self._settings, row)
            outcome = schema_builder.outcome_in_summary(row) or self._outcome(row, snapshot)
        except UnreadableError as error:
            damage.append(str(error))
        return schema_builder.study(Entry(row, None), outcome, lag, damage=damage, now=time.time())

    def _outcome(self, row: StudyRow, snapshot: StudySnapshot | None) -> schema_builder.Outcome:
        records = self._open(row.id).trials(row.id) if snapshot is None else snapshot.trials
        spec = None if damage_of(row.spec) else stored_spec(row.spec)
        return schema_builder.outcome_of_trials(spec, records, luckiest=keeps_luckiest(row))

    def _concurrency(self, row: StudyRow) -> int | None:
        """How many trials of a running study are trained at a time, as its event log says it; None where it does not.

        A plan made here would say what this process could do, and the driver may have had other processors.
        """
        first = read_events(self._out.study(row.id).events, 0, 1).events if row.state is StudyState.RUNNING else []
        started = next((event for event in first if isinstance(event, StudyStarted)), None)
        found = None if started is None else started.params.get("concurrency")
        return found if isinstance(found, int) else None

    def _study_event(self, study_id: str, offset: int) -> schemas.Event:
        study = self._short(self._open(study_id).studies.get(study_id))
        return schemas.Event(id=str(offset), kind="study", data=study.model_dump(mode="json"))

    def _is_driven(self, row: StudyRow) -> bool:
        return row.state is not StudyState.RUNNING or holder(self._open(row.id).studies.engine, row.id) is not None

    def _not_driven(self, study_id: str) -> str:
        return f"no process drives study {study_id}; resume it with: {self.command(f'resume {study_id}')}"

    def _terminate(self, owner: Owner, study_id: str) -> None:
        if not owner.is_here():
            raise ConflictError(f"study {study_id} is driven by process {owner.pid} on {owner.host}; stop it there")
        try:
            os.kill(owner.pid, signal.SIGTERM)
        except ProcessLookupError:
            raise ConflictError(self._not_driven(study_id)) from None
        except PermissionError:
            raise ConflictError(f"study {study_id} is driven by process {owner.pid} of another user") from None


def _trial(snapshot: StudySnapshot, record: TrialRecord) -> schemas.Trial:
    return schema_builder.trial(record, Goals.of(snapshot.spec))


def _log_files(folder: Path) -> Iterator[Path]:
    driver = folder / "driver.log"
    if driver.exists():
        yield driver
    yield from (file for file in sorted(folder.glob("*.log")) if file != driver)
