"""What a person's own training function is handed, and how its reports reach the trial that it runs in.

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

The function runs in a thread of its own and pushes; a `Run` is pulled. Of the two one is always waiting.
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
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialin.objectives.base import Metrics

_METRIC_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ ./-]{0,249}")  # what MLflow takes


class TrialStoppedError(BaseException):
    """The trial is over, and its function reported once more. Not an Exception, so that `except Exception` around a
    training step does not swallow it."""


@dataclass(frozen=True)
class Report:
    """What the function said of one epoch."""

    epoch: int
    metrics: Metrics


class Exchange:
    """Hands reports from the function's thread to the run's, one at a time: the function waits until the next is wanted
    or the trial is over. Thread safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._report: Report | None = None
        self._taken = False  # by the run; one that comes before it is asked for has to wait
        self._ended = False
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def hand_over(self, report: Report) -> None:
        """Give a report, and wait. Raises TrialStoppedError when the trial was over before."""
        with self._changed:
            if self._closed:
                raise TrialStoppedError("this trial is over; look at trial.should_stop after each report")
            self._report = report
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._report is None or self._closed)

    def end(self) -> None:
        """The function has returned or raised."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def next(self) -> Report | None:
        """Let the function go on, and wait for its next report; None when it has ended without one."""
        with self._changed:
            if self._taken:
                self._report, self._taken = None, False
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._report is not None or self._ended)
            self._taken = self._report is not None
            return self._report

    def close(self) -> None:
        """No more reports are wanted."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Checkpoint:
    """The state of a trial as a folder of files, which the function writes and reads. Save before you report: what was
    saved by then is kept with the epoch."""

    def __init__(self, scratch: Path, kept: Path | None = None, epoch: int = 0) -> None:
        self._scratch = scratch
        self._newest, self._epoch = kept, epoch
        self._reported: int | None = None  # in this session
        self._began = epoch
        self.was_loaded = False

    @contextmanager
    def save(self, epoch: int) -> Iterator[Path]:
        """An empty folder for the state after `epoch`. What it holds at the end of the block takes the place of what
        was saved before; when the block raises, nothing does. Raises ValueError for an epoch that is not this one."""
        epoch, wanted = _epoch(epoch), self.expected()
        if epoch not in (wanted - 1, wanted):
            raise ValueError(f"trial.checkpoint.save({epoch}): the next epoch to report is {wanted}")
        folder = Path(tempfile.mkdtemp(prefix="state-", dir=self._scratch))
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        before, self._newest, self._epoch = self._newest, folder, epoch
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def load(self) -> Path | None:
        """The folder with the state after `trial.epoch` epochs; None for a trial that starts at its beginning."""
        self.was_loaded = self._newest is not None
        return self._newest

    def newest(self) -> tuple[int, Path | None]:
        """What was saved last: its epoch and its folder; 0 and None while nothing was."""
        return self._epoch, self._newest

    def expected(self) -> int:
        """The epoch that comes next. Whoever does not load a state starts again from the first."""
        if self._reported is not None:
            return self._reported + 1
        return self._began + 1 if self.was_loaded else 1

    def reported(self, epoch: int) -> None:
        """Take in that an epoch was reported."""
        self._reported = epoch


class FunctionTrial:
    """The second argument of a person's training function.

    `seed`: 0 to 2**32 - 1, as every library takes it. `epoch`: how many epochs the state to load has behind it, 0 where
    there is none. `epochs`: how many there are to train at most. `checkpoint`: saves and loads that state.
    """

    def __init__(self, seed: int, epochs: int, metric: str, checkpoint: Checkpoint, exchange: Exchange) -> None:
        self.seed = seed % 2**32
        self.epoch = checkpoint.newest()[0]
        self.epochs = epochs
        self.checkpoint = checkpoint
        self._metric = metric
        self._exchange = exchange

    def report(self, epoch: int, value: float, **metrics: float) -> None:
        """Say what an epoch, from 1 on and none left out, came to: the value that is searched for, and more to be shown
        beside it. Returns when the search has decided; `should_stop` says how.

        Raises ValueError or TypeError for a wrong epoch or what is no number.
        """
        report = Report(_epoch(epoch), self._numbers(value, metrics))
        if (wanted := self.checkpoint.expected()) != report.epoch and not self.should_stop:
            raise ValueError(f"trial.report: epoch {report.epoch}, and {wanted} comes next{self._hint(report.epoch)}")
        self.checkpoint.reported(report.epoch)
        self._exchange.hand_over(report)

    @property
    def should_stop(self) -> bool:
        """Whether the trial is over, or paused: return, and nothing is lost that was saved."""
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
    """A metric as a float: of a number, or of an array or tensor that holds one. Raises TypeError."""
    held = _held(value)
    if isinstance(held, bool) or not isinstance(held, numbers.Real):
        raise TypeError(f"trial.report: {name} is {_short(value)}, which is no number")
    try:
        return float(held)
    except OverflowError:
        return math.inf  # a whole number beyond all floats: as with other infinite values, the trial diverges


def _held(value: Any) -> object:
    """The one number in an array or a tensor; any other value as it is."""
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
