"""The records that a search returns and takes. All are frozen; none knows Optuna, Ray or torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dialin.lifecycle import TrialState
from dialin.search.decision import Decision
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding


def trial_log_name(number: int) -> str:
    """The name of a trial's file among the logs of its study: what it prints, and the traceback if it fails."""
    return f"trial-{number:04d}.log"


@dataclass(frozen=True)
class Trial:
    """One configuration to train, or whose training continues."""

    number: int
    """Counts the trials of a study from 0."""
    params: Mapping[str, Scalar]
    """Every active knob."""
    seed: int
    """The seed of its training."""
    epochs_done: int = 0
    """The epoch after which training starts."""
    checkpoint: str | None = None
    """Where the state after that epoch lies; None: training starts from the beginning."""


@dataclass(frozen=True)
class Report:
    """What a trial reports after an epoch."""

    epoch: int
    """Counts from 1."""
    metrics: Mapping[str, float]
    """Every metric of the epoch, by name."""
    checkpoint: str | None = None
    """Where the state after the epoch was saved, if it was."""
    findings: tuple[Finding, ...] = ()
    """What the doctor has newly found."""
    ended: str | None = None
    """Why the trial has no more epochs to train; `epoch` and `metrics` are then those of its last epoch again."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial as its storage has it: what results, charts and the command line read."""

    number: int
    """Counts the trials of a study from 0."""
    state: TrialState
    params: Mapping[str, Scalar]
    """Every active knob."""
    seed: int
    """The seed of its training."""
    values: Mapping[int, float] = field(default_factory=dict)
    """The reported values of the study's metric, by epoch from 1; they may be NaN or infinite. With several metrics:
    those of the first."""
    decision: Decision | None = None
    """The decision that ended it; None while it has not ended."""
    checkpoint: str | None = None
    """Where its newest checkpoint lies."""
    checkpoint_epoch: int = 0
    """The epoch after which that was saved."""
    findings: tuple[Finding, ...] = ()
    """What the doctor has found in it, the first of each code."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Every finite metric of its last epoch, by name."""
    started_at: float | None = None
    """When its training began, in seconds since 1970."""
    ended_at: float | None = None
    """When it ended, in seconds since 1970."""
    continues: int | None = None
    """The trial whose training it continues, in a study that was extended."""
    began: int = 0
    """The epochs that that trial had done."""
    repeated: int = 0
    """Epochs that were trained again, from a checkpoint, after they had been reported."""
    others: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """What else the search needs of each epoch, by name and epoch: further metrics, and what constraints bound."""

    @property
    def reason(self) -> str:
        """Why the trial ended, in one sentence; empty while it has not ended."""
        return "" if self.decision is None else self.decision.text()

    @property
    def epochs_done(self) -> int:
        """The last epoch that was reported, those of the trial that it continues included."""
        return max(self.values, default=self.began)


@dataclass(frozen=True)
class Observation:
    """A trial as a sampler sees it. It never changes: a report makes a new one, so a thread may keep it."""

    params: Mapping[str, Scalar]
    """Every active knob."""
    values: Mapping[int, float]
    """The reported values by epoch, from 1."""
    state: TrialState
    others: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    """The curves of what else was measured and matters to the search, by name: further metrics to optimize, and the
    quantities that constraints bound."""

    def at(self, epoch: int) -> Mapping[str, float]:
        """The values of `others` at an epoch, by name."""
        return {name: curve[epoch] for name, curve in self.others.items() if epoch in curve}


Observations = Mapping[int, Observation]
"""Observations by trial number."""
