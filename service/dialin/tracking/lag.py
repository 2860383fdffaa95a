"""How far MLflow is behind a study's event log, and why.

The recorder, and whoever starts it, keep the last failure in a file beside the log, which is removed once something
was written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from dialin import texts
from dialin.events.log import count_events
from dialin.tracking.cursor import read_cursor

FILE = "recorder.trouble"
LOCK = "recorder.lock"  # held by the recorder that writes the log
PROGRESS = "recorder.progress"  # the time of this file is that of the recorder's last successful call
MOST_CHARACTERS = 300  # of a cause


@dataclass(frozen=True)
class Lag:
    """How far MLflow is behind a study.

    events: how many events MLflow does not have yet.
    damaged: how many lines of the event log were left out; `dialin sync` makes them again from the study's storage.
    cause: the last error of the recorder, in one line; empty when nothing failed.
    unknown: whether the event log of a study that has ended is gone.
    """

    events: int = 0
    damaged: int = 0
    cause: str = ""
    unknown: bool = False

    def __bool__(self) -> bool:
        return bool(self.events or self.damaged or self.unknown)

    def text(self) -> str:
        """The lag as a sentence; empty when MLflow has everything."""
        if self.unknown:
            return "the study's event log is gone, so that it is not known whether MLflow has everything"
        if not self:
            return ""
        parts = [f"MLflow lags by {self.events} event{'' if self.events == 1 else 's'}"] if self.events else []
        if self.damaged:
            lines = "1 line" if self.damaged == 1 else f"{self.damaged} lines"
            are = "is" if self.damaged == 1 else "are"
            parts.append(f"{lines} of the study's event log {are} damaged and left out of MLflow")
        return ", ".join(parts) + (f" ({self.cause})" if self.cause else "")


def read_lag(folder: Path) -> Lag:
    """The lag of the event log in a folder; no lag where there is no log."""
    cursor = read_cursor(folder)
    events = count_events(folder, cursor.offset)
    cause = ""
    if events:
        with suppress(OSError), (folder / FILE).open(errors="replace") as file:
            cause = one_line(file.read(4 * MOST_CHARACTERS))
    return Lag(events, cursor.damaged, cause)


def lag_of(folder: Path) -> int:
    """How many events of the log in a folder MLflow does not have yet."""
    return count_events(folder, read_cursor(folder).offset)


@contextmanager
def recorder_lock(folder: Path, patience_seconds: float) -> Iterator[None]:
    """Keep recorders away from an event log while it is changed. Raises filelock's Timeout if one writes longer than
    `patience_seconds`."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK).acquire(timeout=patience_seconds):
        yield


def has_trouble(folder: Path) -> bool:
    """Whether something failed since a recorder last succeeded, or started."""
    try:
        return (folder / FILE).stat().st_mtime >= moved_at(folder)
    except OSError:
        return False


def note_progress(folder: Path) -> None:
    """Note that a call of the recorder succeeded."""
    with suppress(OSError):
        (folder / PROGRESS).touch()


def moved_at(folder: Path) -> float:
    """When a call of a recorder last succeeded, in seconds since 1970; 0 if none ever did."""
    try:
        return (folder / PROGRESS).stat().st_mtime
    except OSError:
        return 0.0


def heard_at(folder: Path) -> float:
    """When a recorder last succeeded or noted a failure, in seconds since 1970; 0 if none ever did."""
    with suppress(OSError):
        return max(moved_at(folder), (folder / FILE).stat().st_mtime)
    return moved_at(folder)


def note_trouble(folder: Path, text: str) -> None:
    """Note what failed. It is not an error if that cannot be written."""
    with suppress(OSError):
        partial = folder / f"{FILE}.partial"
        partial.write_text(one_line(text), errors="replace")
        partial.replace(folder / FILE)


def clear_trouble(folder: Path) -> None:
    """Forget what failed."""
    with suppress(OSError):
        (folder / FILE).unlink()


def cause_of(error: BaseException) -> str:
    """An error as one line that starts with its first cause: a refused connection arrives inside four other errors."""
    root = error
    while (before := root.__cause__ or (None if root.__suppress_context__ else root.__context__)) is not None:
        root = before
    said = f"{type(root).__name__}: {root}"
    # What follows these words in an error of MLflow repeats its causes.
    where = str(error).partition(" failed with exception ")[0]
    return one_line(said if root is error else f"{one_line(said)}; {where}")


def one_line(text: str) -> str:
    """The first line of an error, printable and short, without the password of an address."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return texts.one_line(re.sub(r"//[^/@\s]+@", "//***@", line), MOST_CHARACTERS)
