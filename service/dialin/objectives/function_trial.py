"""The `trial` argument of a person's own training function, and the way of its reports.

    def train(config, trial):
        model = Model(config["width"], seed=trial.seed)
        if (folder := trial.checkpoint.load()) is not None:
            model.load(folder / "model.npz")
        for epoch in range(trial.epoch + 1, trial.epochs + 1):
            accuracy = model.train_one_epoch(config["lr"])
            with trial.checkpoint.save(epoch) as folder:
                model.save(folder / "model.npz")
            trial.report(epoch, accuracy)
            if trial.should_stop:
                return

The function calls dialin to report, while dialin calls a `Run` for its next epoch. So the function runs in a thread of
its own, and of the two threads one is always waiting for the other.
"""

from __future__ import annotations

import math
import numbers
import operator
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialin.objectives.base import Metrics

_METRIC_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ ./-]{0,249}")  # what MLflow takes


class TrialStoppedError(BaseException):
    """Raised in a function that reports after the end of its trial.

    It is not an Exception, so that an `except Exception` around a training step does not catch it.
    """


@dataclass(frozen=True)
class Report:
    """What the function reported of one epoch."""

    epoch: int
    """From 1."""
    metrics: Metrics
    """The value that the study optimizes, and what the function reported beside it."""


class Exchange:
    """Passes reports from the function's thread to the run's, one at a time. Thread safe.

    The function waits until its next report is wanted, or the trial is over.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._report: Report | None = None
        self._taken = False  # whether the run has the report; a report that comes early waits
        self._ended = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the trial is over."""
        return self._closed

    def hand_over(self, report: Report) -> None:
        """Pass a report, and wait until the next is wanted. Raises TrialStoppedError when the trial was over before."""
        with self._changed:
            if self._closed:
                raise TrialStoppedError("this trial is over; look at trial.should_stop after each report")
            self._report = report
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._report is None or self._closed)

    def end(self) -> None:
        """Say that the function has returned or raised."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def next(self) -> Report | None:
        """Let the function continue, and return its next report; None when it has ended without one."""
        with self._changed:
            if self._taken:
                self._report, self._taken = None, False
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._report is not None or self._ended)
            self._taken = self._report is not None
            return self._report

    def close(self) -> None:
        """Say that no more reports are wanted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Checkpoint:
    """The state of a trial as a folder of files, which the function writes and reads.

    Save before the report of an epoch: what was saved by then is kept with that epoch.
    """

    def __init__(self, scratch: Path, kept: Path | None = None, epoch: int = 0) -> None:
        self._scratch = scratch
        self._newest, self._epoch = kept, epoch
        self._reported: int | None = None  # the last epoch reported by this call of the function
        self._began = epoch
        self.was_loaded = False

    @contextmanager
    def save(self, epoch: int) -> Iterator[Path]:
        """Yield an empty folder for the state after `epoch`. At the end of the block it replaces what was saved before.

        When the block raises, what was saved before stays. Raises ValueError for an epoch that is not the current one.
        """
        epoch, wanted = _epoch(epoch), self.expected()
        if epoch not in (wanted - 1, wanted):
            raise ValueError(f"trial.checkpoint.save({epoch}): the next epoch to report is {wanted}")
        folder = Path(tempfile.mkdtemp(prefix="state-", dir=self._scratch))
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            yield folder
            undo.pop_all()
        before, self._newest, self._epoch = self._newest, folder, epoch
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def load(self) -> Path | None:
        """Return the folder with the state after `trial.epoch` epochs; None when there is none."""
        self.was_loaded = self._newest is not None
        return self._newest

    def newest(self) -> tuple[int, Path | None]:
        """Return epoch and folder of what was saved last; 0 and None before the first."""
        return self._epoch, self._newest

    def expected(self) -> int:
        """Return the epoch to report next. A function that loads no state starts again from the first."""
        if self._reported is not None:
            return self._reported + 1
        return self._began + 1 if self.was_loaded else 1

    def reported(self, epoch: int) -> None:
        """Note that an epoch was reported."""
        self._reported = epoch


class FunctionTrial:
    """The second argument of a person's training function."""

    def __init__(self, seed: int, epochs: int, metric: str, checkpoint: Checkpoint, exchange: Exchange) -> None:
        self.seed = seed % 2**32
        """Seed of the trial, from 0 to 2**32 - 1, which every library accepts."""
        self.epoch = checkpoint.newest()[0]
        """Epochs behind the state to load; 0 when there is none."""
        self.epochs = epochs
        """The most epochs to train."""
        self.checkpoint = checkpoint
        """Saves and loads the state."""
        self._metric = metric
        self._exchange = exchange

    def report(self, epoch: int, value: float, **metrics: float) -> None:
        """Report an epoch: the value that the study optimizes, and further metrics to be shown beside it.

        Epochs count from 1, and none may be left out. Returns when the study has decided; `should_stop` says how.
        Raises ValueError for an epoch out of turn or a name that no metric can have, TypeError for what is no number.
        """
        report = Report(_epoch(epoch), self._numbers(value, metrics))
        if (wanted := self.checkpoint.expected()) != report.epoch and not self.should_stop:
            raise ValueError(f"trial.report: epoch {report.epoch}, and {wanted} comes next{self._hint(report.epoch)}")
        self.checkpoint.reported(report.epoch)
        self._exchange.hand_over(report)

    @property
    def should_stop(self) -> bool:
        """Whether the trial is over or paused. The function then returns; what it has saved is kept."""
        return self._exchange.closed

    def _hint(self, epoch: int) -> str:
        if epoch == 1 and self.checkpoint.was_loaded:
            return f", for a state was loaded: start with range(trial.epoch + 1, ...), trial.epoch is {self.epoch}"
        if self.epoch and epoch == self.epoch + 1 and not self.checkpoint.was_loaded:
            return ", for no state was loaded: call trial.checkpoint.load()"
        return ""

    def _numbers(self, value: float, metrics: Metrics) -> Metrics:
        if self._metric in metrics:
            raise ValueError(f"trial.report: {self._metric!r} is the value itself, the second argument")
        wrong = next((name for name in metrics if not _METRIC_NAME.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError(f"trial.report: {wrong!r} is no name of a metric; allowed: letters, digits and _ - . / ")
        every = {self._metric: value, **metrics}
        return {name: number(name, given) for name, given in every.items()}


def number(name: str, value: object) -> float:
    """Return a metric as a float: from a number, or from an array or tensor of one. Raises TypeError otherwise."""
    held = _held(value)
    if isinstance(held, bool) or not isinstance(held, numbers.Real):
        raise TypeError(f"trial.report: {name} is {_short(value)}, which is no number")
    try:
        return float(held)
    except OverflowError:
        return math.inf  # a whole number beyond all floats; the trial diverges, as with other infinite values


def _held(value: Any) -> object:
    """The number in an array or tensor of one; any other value as it is."""
    try:
        return value.item()
    except (AttributeError, TypeError, ValueError, RuntimeError):
        return value


def _epoch(epoch: object) -> int:
    try:
        if isinstance(epoch, bool):
            raise TypeError
        return operator.index(epoch)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"trial.report: the epoch is {_short(epoch)}, which is no whole number") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
