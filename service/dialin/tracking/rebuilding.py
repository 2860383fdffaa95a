"""A spool made again from what the study's own storage knows, where its own lines are lost or damaged.

The storage has every trial's parameters, its state and the study's metric for every epoch; the other metrics it has of
the last epoch only. What is made again follows the lines that are there, and the recorder leaves out what MLflow has.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dialin.lifecycle import TRIAL_ENDED
from dialin.search.records import TrialRecord
from dialin.specification.domains import Scalar
from dialin.tracking.events import Event, StudyEnded, StudyStarted
from dialin.tracking.spool import FILE, Spool, encode, read_events


@dataclass(frozen=True)
class Survey:
    """What a spool says. `begun`: its first event that can be read says which study it is; `damaged`: lines that
    cannot be read, since it was rebuilt; `ended`: its last event is the study's end."""

    lines: int
    begun: bool
    damaged: int
    ended: bool

    @property
    def whole(self) -> bool:
        return self.begun and not self.damaged


def survey(folder: Path) -> Survey:
    """Reads all of a spool; a missing one has no lines."""
    lines = damaged = offset = 0
    begun = ended = False
    first = True  # no event could be read so far
    while True:
        part = read_events(folder, offset, 2000)
        if part.offset == offset:
            return Survey(lines, begun, damaged, ended)
        if part.events:
            begun = begun or (first and part.events[0]["kind"] == "study_started")
            first = False
            damaged = 0 if part.events[0].get("rebuilt") else damaged
            ended = part.events[-1]["kind"] == "study_ended"
        lines += len(part.events) + part.damaged
        damaged += part.damaged
        offset = part.offset


def rebuild(folder: Path, started: StudyStarted, metric: str, records: Sequence[TrialRecord]) -> None:
    """Append to a spool, made when it is missing, what the storage knows of a study's trials. Where the line that says
    which study it is cannot be read, it is put in front, too. No recorder may be at work meanwhile."""
    found = survey(folder)
    if found.lines and not found.begun:
        _put_in_front(folder / FILE, encode(started))
    append(folder, rebuilt_events(started, metric, records))


def append(folder: Path, events: Iterator[Event] | Sequence[Event]) -> None:
    """Put events behind those of a spool that nobody writes to."""
    spool = Spool(folder)
    try:
        for event in events:
            spool.append(event)
    finally:
        spool.close()


def rebuilt_events(started: StudyStarted, metric: str, records: Sequence[TrialRecord]) -> Iterator[Event]:
    """What a study's driver would have said, in the order of the trials."""
    yield {**started, "rebuilt": True}
    for record in records:
        began = _milliseconds(record.started_at, started["time"])
        ended = max(began, _milliseconds(record.ended_at, began + len(record.values)))
        yield {"kind": "trial_started", "trial": record.number, "time": began, "params": record.params}
        for place, (epoch, value) in enumerate(sorted(record.values.items()), 1):
            metrics = {**(record.metrics if epoch == record.epochs_done else {}), metric: value}
            time = began + (ended - began) * place // len(record.values)
            yield {"kind": "epoch", "trial": record.number, "epoch": epoch, "time": time, "metrics": metrics}
        if record.state in TRIAL_ENDED:
            tags = {
                f"dialin.finding.{finding.code}": f"{finding.text()}; try {finding.rule.remedy}"
                for finding in record.findings
            }
            yield {
                "kind": "trial_ended",
                "trial": record.number,
                "time": ended,
                "state": record.state.value,
                "reason": record.reason,
                "tags": tags,
            }


def study_started(study: str, name: str, seconds: float, params: Mapping[str, Scalar], spec: str) -> StudyStarted:
    """`seconds`: when it was made, since 1970."""
    time = _milliseconds(seconds, 0)
    return {
        "kind": "study_started",
        "study": study,
        "name": name,
        "time": time,
        "params": params,
        "tags": {"spec": spec},
    }


def study_ended(
    state: str, reason: str, seconds: float, metrics: Mapping[str, float], tags: Mapping[str, str], files: Sequence[str]
) -> StudyEnded:
    """`seconds`: when it ended, since 1970."""
    return {
        "kind": "study_ended",
        "time": _milliseconds(seconds, 0),
        "state": state,
        "reason": reason,
        "metrics": metrics,
        "tags": tags,
        "artifacts": list(files),
    }


def _milliseconds(seconds: float | None, otherwise: int) -> int:
    return otherwise if seconds is None else int(seconds * 1000)


def _put_in_front(path: Path, line: bytes) -> None:
    partial = path.with_name(f"{FILE}.partial")
    with path.open("rb") as before, partial.open("wb") as after:
        after.write(line)
        shutil.copyfileobj(before, after)
    os.replace(partial, path)  # noqa: PTH105  the atomic one, by name
