"""What a driver says of its study, in one place: each event goes to the event log and to whoever listens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from dialin.events.log import EventLog
from dialin.events.types import Event, Note
from dialin.planning.plan import Plan
from dialin.search.records import TrialRecord


class Listener(Protocol):
    """Listens to a driver within its process: the terminal's progress, a test. Must not raise."""

    def note(self, text: str) -> None:
        """Show a message."""

    def planned(self, study_id: str, plan: Plan, trials: Sequence[TrialRecord]) -> None:
        """A study begins, or continues with the trials that it has."""

    def receive(self, event: Event) -> None:
        """An event was written to the study's log."""


class Publisher:
    """Writes events to a study's log, then tells the listener. Thread safe as the log and the listener are."""

    def __init__(self, log: EventLog, listener: Listener) -> None:
        self._log = log
        self._listener = listener

    def publish(self, *events: Event) -> None:
        """Write events with one system call. Raises OSError when the disk is full."""
        self._log.append(*events)
        for event in events:
            self._listener.receive(event)

    def note(self, text: str) -> None:
        """Tell everyone who watches something. A full disk is not reported here: the next event meets it, too."""
        with suppress(OSError):
            self._log.append(Note(text))
        self._listener.note(text)
