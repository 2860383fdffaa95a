"""What happens in a study while it is driven, one JSON object a line: for those who watch from another process.

It is told nothing that the study's storage does not know, or would not know again: a reader may miss its last line
after a crash, and a study may tell the same epoch twice.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.search.decision import Decision
from dialin.search.records import Trial, TrialRecord
from dialin.texts import MOST_VALUE, shorten

MOST_BYTES = 2**20  # of what is read at a time
MOST_LINE_BYTES = 2**16  # of a line that is written; in a longer one texts are cut


class Listener(Protocol):
    """Who watches a study: the terminal's progress, a test. Must not raise."""

    def note(self, text: str) -> None: ...
    def planned(self, study_id: str, plan: Plan, trials: Sequence[TrialRecord]) -> None: ...
    def trial_started(self, trial: Trial) -> None: ...
    def epoch_done(self, trial: Trial, epoch: int, value: float) -> None: ...
    def decided(self, trial: Trial, epoch: int, decision: Decision) -> None: ...
    def trial_ended(self, trial: Trial, decision: Decision) -> None: ...


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
        about = {"decision": decision.to_data(), "reason": decision.text()}
        self._write("decision", {"trial": trial.number, "epoch": epoch, **about})
        self._listener.decided(trial, epoch, decision)

    def trial_ended(self, trial: Trial, decision: Decision) -> None:
        about = {"state": decision.state.value, "decision": decision.to_data(), "reason": decision.text()}
        self._write("trial_ended", {"trial": trial.number, **about})
        self._listener.trial_ended(trial, decision)

    def _write(self, kind: str, data: Mapping[str, Any]) -> None:
        event = {"kind": kind, "time": round(time.time(), 3), **data}
        line = _encoded(event)
        if len(line) > MOST_LINE_BYTES:
            line = _encoded(_cut(event, MOST_VALUE))
        if len(line) > MOST_LINE_BYTES:  # a great many values, none of them long
            line = _encoded({name: value for name, value in event.items() if not isinstance(value, dict | list)})
        try:
            self._file.write(line + b"\n")
        except OSError:
            return


def _encoded(event: Mapping[str, Any]) -> bytes:
    return json.dumps(event, allow_nan=False).encode()


def _cut(value: Any, most: int) -> Any:
    """The same data, no text in it longer than `most` characters."""
    if isinstance(value, str):
        return shorten(value, most)
    if isinstance(value, dict):
        return {shorten(str(name), most): _cut(inner, most) for name, inner in value.items()}
    return [_cut(inner, most) for inner in value] if isinstance(value, list | tuple) else value


def read_journal(path: Path, offset: int) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """The events from a byte offset on, each with the offset behind it, and the offset to go on from. Empty lines and
    damaged ones are left out; in place of a line that is longer than any writer's stands a note that says so."""
    if not path.exists():
        return [], offset
    events: list[tuple[int, dict[str, Any]]] = []
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(MOST_BYTES)
        whole, newline, _ = data.rpartition(b"\n")
        if not newline and len(data) == MOST_BYTES:
            return _pass_over(file, offset)
    for line in whole.split(b"\n") if newline else ():
        offset += len(line) + 1
        event = _event_of(line)
        if event is not None:
            events.append((offset, event))
    return events, offset


def _pass_over(file: BinaryIO, offset: int) -> tuple[list[tuple[int, dict[str, Any]]], int]:
    """A line longer than what is read at a time: a note in its place, once its end is there."""
    end = offset + MOST_BYTES
    while data := file.read(MOST_BYTES):
        found = data.find(b"\n")
        if found >= 0:
            end += found + 1
            text = f"[a line of {end - offset:,} bytes in the study's journal is left out]"
            return [(end, {"kind": "note", "time": 0.0, "text": text})], end
        end += len(data)
    return [], offset


def _event_of(line: bytes) -> dict[str, Any] | None:
    """The event in a line; None for what is none: not JSON, of no kind, or without what its kind has to have."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
        return None
    return event if all(fits(event.get(name)) for name, fits in _NEEDED.get(event["kind"], {}).items()) else None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


_ALWAYS: Mapping[str, Callable[[object], bool]] = {"trial": _is_count, "time": _is_number}
# What readers take for granted of an event, by its kind.
_NEEDED: Mapping[str, Mapping[str, Callable[[object], bool]]] = {
    "note": {"text": _is_text},
    "trial_started": {**_ALWAYS, "params": lambda value: isinstance(value, dict)},
    "epoch": {**_ALWAYS, "epoch": _is_count, "value": lambda value: value is None or _is_number(value)},
    "decision": {**_ALWAYS, "epoch": _is_count, "reason": _is_text},
    "trial_ended": {**_ALWAYS, "state": lambda value: value in list(TrialState), "reason": _is_text},
}
