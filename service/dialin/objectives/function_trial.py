"""The `trial` argument of a user's training function, and how its reports reach dialin.

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

The function calls dialin to report, while dialin calls a `Run` for its next epoch. Therefore the function runs in
another thread, and at any time one of the two threads waits for the other.
"""

from __future__ import annotations

import math
import numbers
import operator
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialin.objectives.base import Metrics

_METRIC_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ ./-]{0,249}")  # what MLflow accepts


class TrialStoppedError(BaseException):
    """Raised in a function that reports after the end of its trial.

    It is not an Exception, so that an `except Exception` around a training step does not catch it.
    """


@dataclass(frozen=True)
class Report:
    """The function's report of one epoch."""

    epoch: int
    """The first epoch is 1."""
    metrics: Metrics
    """The value that the study optimizes, and the other metrics of the report."""


class Exchange:
    """Passes reports from the function's thread to the run's, one at a time. Thread safe.

    The function waits in `hand_over` until the run asks for the next report or the trial is over.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._report: Report | None = None
        self._taken = False  # whether the run has received `_report`
        self._ended = False
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the trial is over."""
        return self._closed

    def hand_over(self, report: Report) -> None:
        """Pass a report, and wait until the run asks for the next one. Raises TrialStoppedError if the trial is
        over."""
        with self._changed:
            if self._closed:
                raise TrialStoppedError(
                    "this trial is over; check trial.should_stop after each report, and return if it is true"
                )
            self._report = report
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._report is None or self._closed)

    def end(self) -> None:
        """Record that the function has returned or raised."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def next(self) -> Report | None:
        """Let the function continue, and return its next report; None if it has ended without another report."""
        with self._changed:
            if self._taken:
                self._report, self._taken = None, False
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._report is not None or self._ended)
            self._taken = self._report is not None
            return self._report

    def close(self) -> None:
        """Record that the trial is over, which makes the function's next report raise TrialStoppedError."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Checkpoint:
    """Saves and loads the state of a trial, a folder with files that the function writes and reads.

    Call `save` before the report of an epoch: the state is then stored with that epoch.
    """

    def __init__(self, scratch: Path, kept: Path | None = None, epoch: int = 0) -> None:
        self._scratch = scratch
        self._newest, self._epoch = kept, epoch
        self._reported: int | None = None  # the last epoch reported by this call of the function
        self._began = epoch
        self.was_loaded = False

    @contextmanager
    def save(self, epoch: int) -> Iterator[Path]:
        """Yield an empty folder for the state after `epoch`. At the end of the block it replaces the previous state.

        If the block raises, the previous state stays. Raises ValueError for an epoch that is not the current one.
        """
        epoch, wanted = _epoch(epoch), self.expected()
        if epoch not in (wanted - 1, wanted):
            raise ValueError(
                f"trial.checkpoint.save({epoch}): allowed are the next epoch to report, {wanted}, and the one before it"
            )
        folder = Path(tempfile.mkdtemp(prefix="state-", dir=self._scratch))
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            yield folder
            undo.pop_all()
        before, self._newest, self._epoch = self._newest, folder, epoch
        if before is not None:
            shutil.rmtree(before, ignore_errors=True)

    def load(self) -> Path | None:
        """Return the folder with the state after `trial.epoch` epochs; None if no state was saved."""
        self.was_loaded = self._newest is not None
        return self._newest

    def newest(self) -> tuple[int, Path | None]:
        """Return the epoch and the folder of the last saved state; 0 and None if no state was saved."""
        return self._epoch, self._newest

    def expected(self) -> int:
        """Return the epoch to report next. It is 1 for a function that has not loaded the state."""
        if self._reported is not None:
            return self._reported + 1
        return self._began + 1 if self.was_loaded else 1

    def record_report(self, epoch: int) -> None:
        """Record that an epoch was reported."""
        self._reported = epoch


@dataclass(frozen=True)
class WantedValues:
    """What each report of a function has to hold."""

    metrics: tuple[str, ...]
    """Names of the values that the study optimizes, one or several."""
    bounded: tuple[str, ...] = ()
    """Names of the values that constraints bound."""

    @property
    def text(self) -> str:
        """The names of the metrics, as in a sentence."""
        return " and ".join(filter(None, (", ".join(self.metrics[:-1]), self.metrics[-1])))


class FunctionTrial:
    """The second argument of a user's training function."""

    def __init__(
        self, seed: int, epochs: int, wanted: WantedValues, checkpoint: Checkpoint, exchange: Exchange
    ) -> None:
        self.seed = seed % 2**32
        """Seed of the trial, from 0 to 2**32 - 1, which every library accepts."""
        self.epoch = checkpoint.newest()[0]
        """Epochs after which the state to load was saved; 0 if there is no state."""
        self.epochs = epochs
        """The maximum number of epochs to train."""
        self.checkpoint = checkpoint
        """Saves and loads the state."""
        self._wanted = wanted
        self._exchange = exchange

    def report(self, epoch: int, value: float | Mapping[str, float], **metrics: float) -> None:
        """Report an epoch: the value that the study optimizes, and further metrics to show beside it. For several
        metrics, `value` is a mapping with a number for each, by name; it may hold further metrics too.

        Epochs count from 1, and none may be left out. Returns when the study has decided whether the trial continues;
        `should_stop` is the decision. Raises ValueError for an epoch that is not the next one, for a name that is not
        allowed and for a value that the study needs and that is missing, and TypeError for what is not a number.
        """
        report = Report(_epoch(epoch), self._numbers(value, metrics))
        if (wanted := self.checkpoint.expected()) != report.epoch and not self.should_stop:
            raise ValueError(
                f"trial.report: epoch {report.epoch}; the next epoch is {wanted}{self._hint(report.epoch)}"
            )
        self.checkpoint.record_report(report.epoch)
        self._exchange.hand_over(report)

    @property
    def should_stop(self) -> bool:
        """Whether the trial is over or paused. The function has to return then; its saved state is kept."""
        return self._exchange.closed

    def _hint(self, epoch: int) -> str:
        if epoch == 1 and self.checkpoint.was_loaded:
            return f", because a state was loaded: start with range(trial.epoch + 1, ...); trial.epoch is {self.epoch}"
        if self.epoch and epoch == self.epoch + 1 and not self.checkpoint.was_loaded:
            return ", because no state was loaded: call trial.checkpoint.load()"
        return ""

    def _numbers(self, value: float | Mapping[str, float], metrics: Metrics) -> Metrics:
        every = self._several(value, metrics) if len(self._wanted.metrics) > 1 else self._one(value, metrics)
        wrong = next((name for name in every if not _is_metric_name(name)), None)
        if wrong is not None:
            raise ValueError(
                f"trial.report: {wrong!r} cannot be the name of a metric; allowed: up to 250 letters, digits, spaces "
                "and _ - . /, the first a letter, a digit or _"
            )
        missing = [name for name in self._wanted.bounded if name not in every]
        if missing:
            raise ValueError(
                f"trial.report: {missing[0]!r} is missing, which the study's constraints bound; report it as a further "
                f"metric: trial.report(epoch, value, {missing[0]}=...)"
            )
        return {name: number(name, given) for name, given in every.items()}

    def _one(self, value: Any, metrics: Metrics) -> dict[str, Any]:
        (metric,) = self._wanted.metrics
        if metric in metrics:
            raise ValueError(
                f"trial.report: {metric!r} is the value that the study optimizes; pass it as the second argument only"
            )
        return {metric: value, **metrics}

    def _several(self, value: Any, metrics: Metrics) -> dict[str, Any]:
        wanted = self._wanted
        example = "trial.report(epoch, {" + ", ".join(f'"{name}": ...' for name in wanted.metrics) + "})"
        if not isinstance(value, Mapping):
            raise TypeError(
                f"trial.report: {_short(value)} is not a mapping; the study optimizes {wanted.text}: call {example}"
            )
        twice = [name for name in value if name in metrics]
        if twice:
            raise ValueError(f"trial.report: {twice[0]!r} is reported twice; pass it in the mapping only")
        missing = [name for name in wanted.metrics if name not in value]
        if missing:
            raise ValueError(
                f"trial.report: {missing[0]!r} is missing; the study optimizes {wanted.text}: call {example}"
            )
        return {**value, **metrics}


def _is_metric_name(name: object) -> bool:
    return isinstance(name, str) and _METRIC_NAME.fullmatch(name) is not None


def number(name: str, value: object) -> float:
    """Return a metric as a float. The value is a number, or an array or tensor with one element; else raises
    TypeError."""
    held = _held(value)
    if isinstance(held, bool) or not isinstance(held, numbers.Real):
        raise TypeError(f"trial.report: {name} is {_short(value)}, which is not a number")
    try:
        return float(held)
    except OverflowError:
        return math.inf  # an integer too large for a float; the trial counts as diverged, as for any infinite value


def _held(value: Any) -> object:
    """Return the number in an array or tensor with one element; any other value unchanged."""
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
        raise TypeError(f"trial.report: the epoch is {_short(epoch)}, which is not an integer") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
