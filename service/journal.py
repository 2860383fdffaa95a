"""What happens in a study while it is driven, one JSON object a line: for those who watch from another process.

It is told nothing that the study's storage does not know, or would not know again: a reader may miss its last line
after a crash, and a study may tell the same epoch twice.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from service.planning import Plan
from service.search.records import Decision, Outcome, Trial, TrialRecord

MOST_BYTES = 2**20  # of what is read at a time


class Listener(Protocol):
    """Who watches a study: the terminal's progress, a test. Must not raise."""

    def note(self, text: str) -> None: ...
    def planned(self, study_id: str, plan: Plan, trials: Sequence[TrialRecord]) -> None: ...
    def trial_started(self, trial: Trial) -> None: ...
    def epoch_done(self, trial: Trial, epoch: int, value: float) -> None: ...
    def decided(self, trial: Trial, epoch: int, decision: Decision) -> None: ...
    def trial_ended(self, trial: Trial, outcome: Outcome) -> None: ...


class Journal:
    """Listens to a driver, writes down what it hears, and passes it on. A context manager. A disk that takes no more
    is the study's to notice: here it is passed over."""

    def __init__(self, path: Path, listener: Listener) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._listener = listener

    def __enter__(self) -> Journal:
        if self._file.tell():
            self._file.write(b"\n")  # a driver that died while it wrote left half a line
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def note(self, text: str) -> None:
        self._write("note", {"text": text})
        self._listener.note(text)

    def planned(self, study_id: str, plan: Plan, trials: Sequence[TrialRecord]) -> None:
        self._write("planned", {"study": study_id, "concurrency": plan.concurrency, "rungs": list(plan.rungs)})
        self._listener.planned(study_id, plan, trials)

    def trial_started(self, trial: Trial) -> None:
        self._write("trial_started", {"trial": trial.number, "epochs": trial.epochs_done, "params": dict(trial.params)})
        self._listener.trial_started(trial)

    def epoch_done(self, trial: Trial, epoch: int, value: float) -> None:
        shown = value if math.isfinite(value) else None
        self._write("epoch", {"trial": trial.number, "epoch": epoch, "value": shown})
        self._listener.epoch_done(trial, epoch, value)

    def decided(self, trial: Trial, epoch: int, decision: Decision) -> None:
        about = {"stop": decision.stop, "reason": decision.reason}
        self._write("decision", {"trial": trial.number, "epoch": epoch, **about})
        self._listener.decided(trial, epoch, decision)

    def trial_ended(self, trial: Trial, outcome: Outcome) -> None:
        about = {"state": outcome.state.value, "reason": outcome.reason}
        self._write("trial_ended", {"trial": trial.number, **about})
        self._listener.trial_ended(trial, outcome)

    def _write(self, kind: str, data: Mapping[str, Any]) -> None:
        line = json.dumps({"kind": kind, "time": round(time.time(), 3), **data}, allow_nan=False).encode()
        try:
            self._file.write(line + b"\n")
        except OSError:
            return


def read_journal(path: Path, offset: int) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """The events from a byte offset on, each with the offset behind it, and the offset to go on from. Empty lines and
    damaged ones are left out."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(MOST_BYTES)
    events = []
    for line in data.splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        offset += len(line)
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("kind"), str):
            events.append((offset, event))
    return events, offset
