"""How far MLflow is behind a study, and why, as it is shown where a person looks.

The recorder, and whoever starts it, leave the last thing that went wrong in a file beside the spool; it is gone once
something has been written since.
"""

from __future__ import annotations

import os
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
LOCK = "recorder.lock"  # held by the recorder at work
PROGRESS = "recorder.progress"  # its time is that of the recorder's last successful call
MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Lag:
    """`events` that MLflow has not got yet; `damaged` lines of the spool that were left out, which the study's storage
    can replace; `cause`: the last error of what writes them, one line, empty when nothing went wrong; `unknown`: the
    spool of a study that has ended is gone."""

    events: int = 0
    damaged: int = 0
    cause: str = ""
    unknown: bool = False

    def __bool__(self) -> bool:
        return bool(self.events or self.damaged or self.unknown)

    def text(self) -> str:
        """As a sentence; empty when MLflow has everything."""
        if self.unknown:
            return "the study's spool is gone, so that nobody knows whether MLflow has everything"
        if not self:
            return ""
        parts = [f"MLflow lags by {self.events} event{'' if self.events == 1 else 's'}"] if self.events else []
        if self.damaged:
            lines = "1 line of its spool is" if self.damaged == 1 else f"{self.damaged} lines of its spool are"
            parts.append(f"{lines} damaged and left out of MLflow")
        return ", ".join(parts) + (f" ({self.cause})" if self.cause else "")


def read_lag(folder: Path) -> Lag:
    """That of a spool folder; none where there is no spool."""
    position = read_cursor(folder)
    events = count_events(folder, position.offset)
    cause = ""
    if events:
        with suppress(OSError), (folder / FILE).open(errors="replace") as file:
            cause = one_line(file.read(4 * MOST_CHARACTERS))
    return Lag(events, position.damaged, cause)


def lag_of(folder: Path) -> int:
    """Events in a spool folder that MLflow has not got yet."""
    return count_events(folder, read_cursor(folder).offset)


@contextmanager
def recorder_lock(folder: Path, patience_seconds: float) -> Iterator[None]:
    """The recorder's turn with a spool folder, for who changes what recorders read. Raises filelock's Timeout while one
    is at work."""
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / LOCK).acquire(timeout=patience_seconds):
        yield


def has_trouble(folder: Path) -> bool:
    """Whether something went wrong since a recorder last got something done, or began."""
    try:
        return (folder / FILE).stat().st_mtime >= moved_at(folder)
    except OSError:
        return False


def note_progress(folder: Path) -> None:
    """A recorder got something done."""
    with suppress(OSError):
        (folder / PROGRESS).touch()


def moved_at(folder: Path) -> float:
    """When a recorder last got something done, in seconds since 1970; 0 when none ever began."""
    try:
        return (folder / PROGRESS).stat().st_mtime
    except OSError:
        return 0.0


def heard_at(folder: Path) -> float:
    """When a recorder last got something done or said what went wrong, in seconds since 1970; 0 when none ever did."""
    with suppress(OSError):
        return max(moved_at(folder), (folder / FILE).stat().st_mtime)
    return moved_at(folder)


def note_trouble(folder: Path, text: str) -> None:
    """Say what went wrong. Where that cannot be written, it is not."""
    with suppress(OSError):
        partial = folder / f"{FILE}.partial"
        partial.write_text(one_line(text), errors="replace")
        os.replace(partial, folder / FILE)  # noqa: PTH105  the atomic one, by name


def clear_trouble(folder: Path) -> None:
    with suppress(OSError):
        (folder / FILE).unlink()


def cause_of(error: BaseException) -> str:
    """An error as one line that begins with what it came of: a refused connection reaches us within four others."""
    root = error
    while (before := root.__cause__ or (None if root.__suppress_context__ else root.__context__)) is not None:
        root = before
    said = f"{type(root).__name__}: {root}"
    # MLflow repeats all of what it came of behind these words.
    where = str(error).partition(" failed with exception ")[0]
    return one_line(said if root is error else f"{one_line(said)}; {where}")


def one_line(text: str) -> str:
    """The first line of an error, printable and short, without the password in an address."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    return texts.one_line(re.sub(r"//[^/@\s]+@", "//***@", line), MOST_CHARACTERS)
