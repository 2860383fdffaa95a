"""Trains one trial of any objective, epoch by epoch, and saves its state. Every executor uses it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dialin.errors import DataError
from dialin.execution.checkpoints import (
    checkpoint_folder,
    checkpoint_name,
    epoch_of,
    keep_newest,
    load_checkpoint,
    newest_first,
    save_checkpoint,
)
from dialin.execution.trial_log import TrialLog
from dialin.objectives.base import Metrics, NoMoreEpochsError, Objective, Run
from dialin.planning.plan import Resources
from dialin.search.records import Report, Trial, trial_log_name
from dialin.specification.domains import Scalar

RangeTestJob = tuple[Mapping[str, Scalar], int]
"""A configuration, and the seed of one run of its range test."""

_LOG = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 10.0
"""Minimum time between two checkpoints that are not required by a rung, the target or the last epoch."""
CHECKPOINT_FRACTION = 0.05
"""Maximum fraction of a trial's time for such checkpoints."""
TOGETHER_SECONDS = 0.5
"""Epochs are reported together if all of them take no longer than this."""


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a study have in common. Picklable, because it is sent to the workers."""

    objective: Objective
    resources: Resources
    """The processors and GPUs that one trial may use."""
    epochs: int
    """Epochs of a full trial."""
    metric: str
    """Metric that the study optimizes."""
    maximize: bool
    """Whether higher values of it are better."""
    target: float | None
    """Value of the metric at which the study ends; None: there is no such value."""
    checkpoints: Path
    """Folder of the study's checkpoints, which every node sees."""
    rungs: tuple[int, ...] = ()
    """Epochs after which a trial may be paused; its state is saved there, after the last epoch and at the target."""
    compared_at: tuple[int, ...] = ()
    """Epochs after which a trial may be stopped."""
    logs: Path | None = None
    """Folder for what trials print, which every node sees; None: that is not kept."""


@dataclass(frozen=True)
class TrialStep:
    """The result of one step of a trial."""

    reports: list[Report]
    """The epochs since the previous step."""
    error: Exception | None = None
    """The exception of the training, if it was raised before an epoch of this step was complete."""


class TrialRun:
    """A trial in training. It starts with its first step, so that an error of its start is an error of the trial."""

    def __init__(self, plan: TrialPlan, trial: Trial) -> None:
        self._plan = plan
        self._trial = trial
        self._run: Run | None = None
        self._saved_at = time.monotonic()
        self._save_seconds = 0.0
        self._metrics: Metrics = {}
        self._raised: Exception | None = None
        self._log = None if plan.logs is None else TrialLog(plan.logs / trial_log_name(trial.number))
        self.epoch = trial.epochs_done
        """The last epoch that is complete."""

    def step(self) -> list[Report]:
        """Return the reports of one `advance`, or raise what the training raised."""
        step = self.advance()
        if step.error is not None:
            raise step.error
        return step.reports

    def advance(self) -> TrialStep:
        """Train one more epoch, and further ones that fit into `TOGETHER_SECONDS`.

        The step ends with the first epoch after which the driver has to decide: at a rung, at the last epoch, if the
        target is reached, after a metric that is not finite, and after a finding. If the training raises, the step
        returns the epochs before that, and the next step returns the exception. The output of the training goes to the
        trial's log.
        """
        with self._captured():
            reports = self._train_until_decision()
        return TrialStep(reports) if reports else TrialStep([], self._raised)

    def _train_until_decision(self) -> list[Report]:
        began = time.monotonic()
        reports: list[Report] = []
        while self._raised is None:
            try:
                reports.append(self._next())
            except Exception as error:  # noqa: BLE001  a user's training code may raise anything
                _LOG.debug("the training of trial %s raised", self._trial.number, exc_info=True)
                self._raised = error
                break
            spent = time.monotonic() - began
            next_is_late = spent * (len(reports) + 1) / len(reports) > TOGETHER_SECONDS
            if next_is_late or self._wants_decision(reports[-1]):
                break
        return reports

    def _next(self) -> Report:
        if self._run is None:
            self._run = self._start()
        try:
            metrics = self._run.epoch()
        except NoMoreEpochsError as end:
            return Report(self.epoch, self._metrics, ended=str(end))
        self._metrics = metrics
        self.epoch += 1
        checkpoint = self._save(self._run) if self._due(metrics) else None
        return Report(self.epoch, metrics, checkpoint, tuple(self._run.findings()))

    def _wants_decision(self, report: Report) -> bool:
        compared = report.epoch >= self._plan.epochs or report.epoch in self._plan.compared_at
        finite = all(math.isfinite(value) for value in report.metrics.values())
        return compared or not finite or bool(report.findings or report.ended) or self._reached_target(report.metrics)

    def close(self) -> None:
        """End the run and release what it holds."""
        if self._run is not None:
            with self._captured():
                self._run.close()
            self._run = None

    def _captured(self) -> AbstractContextManager[None]:
        return self._log.captured() if self._log is not None else nullcontext()

    def _start(self) -> Run:
        run = self._plan.objective.start(self._trial.params, self._trial.seed, self._plan.resources)
        self.epoch = 0
        for folder in newest_first(self._plan.checkpoints, self._trial.checkpoint):
            try:
                load_checkpoint(run, folder)
            except DataError as error:
                # A damaged checkpoint must not fail the trial: the previous one is loaded, or training starts again.
                _LOG.warning(
                    "%s; trial %s continues from the previous checkpoint, or from the start if there is none",
                    error,
                    self._trial.number,
                )
                run.close()
                run = self._plan.objective.start(self._trial.params, self._trial.seed, self._plan.resources)
            else:
                self.epoch = epoch_of(folder)
                break
        self._saved_at = time.monotonic()
        return run

    def _due(self, metrics: Metrics) -> bool:
        value = metrics.get(self._plan.metric, math.nan)
        if not math.isfinite(value):
            return False
        pause = max(CHECKPOINT_SECONDS, self._save_seconds / CHECKPOINT_FRACTION)
        asked = self._reached_target(metrics) or self.epoch >= self._plan.epochs or self.epoch in self._plan.rungs
        return asked or time.monotonic() - self._saved_at >= pause

    def _reached_target(self, metrics: Mapping[str, float]) -> bool:
        target, value = self._plan.target, metrics.get(self._plan.metric, math.nan)
        return target is not None and (value >= target if self._plan.maximize else value <= target)

    def _save(self, run: Run) -> str:
        began = time.monotonic()
        name = checkpoint_name(self._trial.number, self.epoch)
        target = self._plan.checkpoints / name
        save_checkpoint(run, target)
        keep_newest(target.parent)
        self._saved_at = time.monotonic()
        self._save_seconds = self._saved_at - began
        return name


def evaluate_checkpoint(plan: TrialPlan, trial: Trial, checkpoint: str) -> Metrics:
    """Return the metrics on the test split of the best epoch's weights in a checkpoint.

    Nothing else in a study reads the test split. Raises DataError for a damaged checkpoint.
    """
    run = plan.objective.start(trial.params, trial.seed, plan.resources)
    try:
        load_checkpoint(run, checkpoint_folder(plan.checkpoints, checkpoint))
        return run.test()
    finally:
        run.close()
