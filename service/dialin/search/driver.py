"""What a runner needs of a study's driver. A runner knows this, and nothing of storage or MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dialin.search.decision import Decision
from dialin.search.records import Report, Trial


class Driver(Protocol):
    """One study being driven. The runner trains; the driver decides, stores and shows."""

    def ask(self) -> Trial | None:
        """The next trial to train; None: there is none now, and none later either once `finished` is true."""

    @property
    def finished(self) -> bool:
        """Whether there is nothing to ask for, now and later."""

    def report(self, trial: Trial, reports: Sequence[Report]) -> Decision:
        """Take in one or more epochs of a trial; all are stored when it returns. Closes the trial when it stops; what
        was reported beyond the epoch of that decision is left out."""

    def fail(self, trial: Trial, traceback: str) -> None:
        """Close a trial that raised. The last line of the traceback becomes the reason."""

    def lost(self, trial: Trial, reason: str) -> None:
        """A trial's worker has died under it: the trial goes on from its checkpoint, unless that happens again and
        again."""

    def progress(self) -> None:
        """The runner's loop has come round once more."""

    def working(self, trial: Trial) -> None:
        """A worker is at work on the trial, which may have waited for one until now. May be said again."""

    def overdue(self) -> Sequence[tuple[Trial, str]]:
        """Trials that have been at one epoch for too long, and in words for how long: their workers are to be
        killed. A runner that cannot kill a worker never asks."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the study is over, and trials have had their time to report once more: all are to be stopped."""

    @property
    def over(self) -> str | None:
        """Why nothing more is to be trained (a limit, a shared failure); None while the study goes on."""
