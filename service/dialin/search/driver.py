"""What an executor needs of a study's driver. An executor knows this, and nothing of storage or MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from dialin.search.decision import Decision
from dialin.search.records import Report, Trial


class Driver(Protocol):
    """One study being driven: the executor trains; the driver decides, stores and reports to MLflow. All methods are
    for one thread."""

    def ask(self) -> Trial | None:
        """The next trial to train. None: there is none now; once `finished` is true there is none later either."""

    @property
    def finished(self) -> bool:
        """Whether there is no trial to ask for, now or later."""

    def report(self, trial: Trial, reports: Sequence[Report]) -> Decision:
        """Take in one or more epochs of a trial, all of which are stored when it returns. A decision that ends or
        pauses the trial is carried out; reports after the epoch of that decision are dropped."""

    def fail(self, trial: Trial, traceback: str) -> None:
        """End a trial whose training raised. The exception of the traceback becomes the reason."""

    def report_lost_worker(self, trial: Trial, reason: str) -> None:
        """The worker of a trial has died: the trial continues from its checkpoint, unless that happened too often."""

    def report_progress(self) -> None:
        """The executor's loop has completed another round."""

    def report_working(self, trial: Trial) -> None:
        """A worker is training the trial, which may have waited for one until now. Calling it again changes nothing."""

    def find_overdue(self) -> Sequence[tuple[Trial, str]]:
        """The trials that have been at one epoch for too long, each with a sentence that says for how long. Their
        workers are to be killed; an executor that cannot kill a worker never calls this."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the study is over and trials have had their time to report once more: all are to be stopped."""

    @property
    def over(self) -> str | None:
        """Why no more is trained (a limit, a failure that trials share); None while the study continues."""
