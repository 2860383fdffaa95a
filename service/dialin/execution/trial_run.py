"""One trial of any objective: its epochs, and when its state is saved. Shared by the in-process runner and Ray's."""

from __future__ import annotations

import math
import sys
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

CHECKPOINT_SECONDS = 10.0
TOGETHER_SECONDS = 0.5  # epochs that take no longer than that are reported together
CHECKPOINT_SHARE = 0.05  # of a trial's time, at most


@dataclass(frozen=True)
class TrialPlan:
    """What all trials of a study have in common. Picklable.

    `checkpoints` is a folder that every node sees, `logs` another one, for what trials print; None: that is not kept.
    The state is saved at `rungs`, where a trial may have to wait, after the last epoch, and when `target` is met. At
    `compared_at` a trial may have to stop.
    """

    objective: Objective
    resources: Resources
    epochs: int
    metric: str
    maximize: bool
    target: float | None
    checkpoints: Path
    rungs: tuple[int, ...] = ()
    compared_at: tuple[int, ...] = ()
    logs: Path | None = None


class TrialRun:
    """A trial under way. Starts on the first epoch, so that whatever goes wrong goes wrong inside the trial."""

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

    def step(self) -> list[Report]:
        """One more epoch, and those after it that fit into `TOGETHER_SECONDS`, up to the next one that something has to
        be decided after: a rung, the end, a target that is met, a number that is none, a finding.

        What a person's code raises comes after the epochs before it were handed out: at the next call. What it prints
        goes to the trial's log.
        """
        with self._captured():
            return self._step()

    def _step(self) -> list[Report]:
        if self._raised is not None:
            raise self._raised
        began, reports = time.monotonic(), [self._next()]
        while not self._wants_decision(reports[-1]):
            spent = time.monotonic() - began
            if spent * (len(reports) + 1) / len(reports) > TOGETHER_SECONDS:
                break
            try:
                reports.append(self._next())
            except Exception as error:  # noqa: BLE001  a person's training code
                self._raised = error
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
        return compared or not finite or bool(report.findings or report.ended) or self._met(report.metrics)

    def close(self) -> None:
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
                # A damaged one costs epochs, not the trial: the one before is tried, then the beginning.
                print(f"{error}; going back to the one before", file=sys.stderr)
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
        pause = max(CHECKPOINT_SECONDS, self._save_seconds / CHECKPOINT_SHARE)
        asked = self._met(metrics) or self.epoch >= self._plan.epochs or self.epoch in self._plan.rungs
        return asked or time.monotonic() - self._saved_at >= pause

    def _met(self, metrics: Mapping[str, float]) -> bool:
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
    """Metrics on the test split of the best epoch's weights in a checkpoint. Reads the test split."""
    run = plan.objective.start(trial.params, trial.seed, plan.resources)
    try:
        load_checkpoint(run, checkpoint_folder(plan.checkpoints, checkpoint))
        return run.test()
    finally:
        run.close()
