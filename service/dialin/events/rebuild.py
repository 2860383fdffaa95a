"""Rebuilds a study's event log from the storage of its search, where lines of the log are lost or damaged.

The storage has every trial's parameters and state, and of every epoch the study's metrics and what its constraints
bound; the other metrics it has of the last epoch only. Rebuilt events follow the lines that exist, and the recorder
leaves out what MLflow has already.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dialin.events.log import FILE, EventLog, encode, read_events
from dialin.events.types import (
    EpochReported,
    Event,
    Note,
    StudyEnded,
    StudyStarted,
    TrialEnded,
    TrialStarted,
    finite,
)
from dialin.lifecycle import TrialState
from dialin.search.records import TrialRecord
from dialin.specification.findings import Finding

_ENDS = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.DIVERGED, TrialState.FAILED)


@dataclass(frozen=True)
class Survey:
    """What an event log contains.

    empty: whether it has no line.
    begun: whether its first readable event says which study it belongs to.
    damaged: how many lines cannot be read, since the log was rebuilt.
    ended: whether its last event, apart from notes, is the end of the study.
    """

    empty: bool = True
    begun: bool = False
    damaged: int = 0
    ended: bool = False

    @property
    def whole(self) -> bool:
        """Whether nothing has to be rebuilt."""
        return self.begun and not self.damaged


def survey(folder: Path) -> Survey:
    """Read a whole event log. A missing one is empty."""
    found, offset, first = Survey(), 0, True
    while True:
        part = read_events(folder, offset)
        if part.offset == offset:
            return found
        events = [event for event in part.events if not isinstance(event, Note)]
        if events:
            if first:
                found = replace(found, begun=isinstance(events[0], StudyStarted))
            first = False
            restarts = isinstance(events[0], StudyStarted) and events[0].rebuilt
            found = replace(found, ended=isinstance(events[-1], StudyEnded), damaged=0 if restarts else found.damaged)
        found = replace(found, empty=False, damaged=found.damaged + part.damaged)
        offset = part.offset


def rebuild(folder: Path, started: StudyStarted, metric: str, records: Sequence[TrialRecord]) -> None:
    """Append to an event log what the storage knows of the study's trials; the log is made if it is missing. If the
    line that says which study it is cannot be read, it is written again in front. No recorder may run meanwhile."""
    found = survey(folder)
    if not found.empty and not found.begun:
        _put_in_front(folder / FILE, encode(started))
    append(folder, rebuilt_events(started, metric, records))


def append(folder: Path, events: Iterable[Event]) -> None:
    """Append events to a log that has no other writer."""
    with EventLog(folder) as log:
        for event in events:
            log.append(event)


def rebuilt_events(started: StudyStarted, metric: str, records: Sequence[TrialRecord]) -> Iterator[Event]:
    """The events that the study's driver would have written, in the order of the trials. The times of epochs are
    spread evenly over the trial's."""
    yield replace(started, rebuilt=True)
    for record in records:
        began = milliseconds(record.started_at, started.time)
        ended = max(began, milliseconds(record.ended_at, began + len(record.values)))
        yield TrialStarted(record.number, record.params, record.began, time=began)
        for place, (epoch, value) in enumerate(sorted(record.values.items()), 1):
            others = {name: curve[epoch] for name, curve in record.others.items() if epoch in curve}
            metrics = {**(record.metrics if epoch == record.epochs_done else {}), **others, metric: value}
            time = began + (ended - began) * place // len(record.values)
            yield EpochReported(record.number, epoch, metrics, finite(value), time)
        if record.state in _ENDS:
            yield TrialEnded(record.number, record.state.value, record.reason, finding_tags(record.findings), ended)


def finding_tags(findings: Iterable[Finding]) -> dict[str, str]:
    """What MLflow shows of the doctor's findings, as tags of the trial's run."""
    return {f"dialin.finding.{finding.code}": f"{finding.text()}; try {finding.rule.remedy}" for finding in findings}


def milliseconds(seconds: float | None, otherwise: int = 0) -> int:
    """A time in seconds since 1970, in milliseconds."""
    return otherwise if seconds is None else int(seconds * 1000)


def _put_in_front(path: Path, line: bytes) -> None:
    partial = path.with_name(f"{FILE}.partial")
    with path.open("rb") as before, partial.open("wb") as after:
        after.write(line)
        shutil.copyfileobj(before, after)
    partial.replace(path)
