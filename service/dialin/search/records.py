"""The records that a search hands out and takes in. All frozen; none knows Optuna, Ray or torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dialin.lifecycle import TrialState
from dialin.search.decision import Decision
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding


def trial_log_name(number: int) -> str:
    """The file, among a study's logs, with what a trial prints and the traceback of one that has failed."""
    return f"trial-{number:04d}.log"


@dataclass(frozen=True)
class Trial:
    """One configuration to train, or to go on training.

    `params` holds every active knob. Training starts after epoch `epochs_done`, from `checkpoint` where that is set.
    """

    number: int
    params: Mapping[str, Scalar]
    seed: int
    epochs_done: int = 0
    checkpoint: str | None = None


@dataclass(frozen=True)
class Report:
    """What a trial says after an epoch (from 1): its metrics, the checkpoint written after it if one was, and what the
    doctor newly found. `ended`: why it has no more epochs to train; then the epoch and its metrics are the last ones
    again."""

    epoch: int
    metrics: Mapping[str, float]
    checkpoint: str | None = None
    findings: tuple[Finding, ...] = ()
    ended: str | None = None


@dataclass(frozen=True)
class TrialRecord:
    """A trial as its storage has it: what results, figures and the command line read."""

    number: int
    state: TrialState
    params: Mapping[str, Scalar]
    seed: int
    values: Mapping[int, float] = field(default_factory=dict)
    decision: Decision | None = None  # that ended it; None: it has not ended
    checkpoint: str | None = None
    checkpoint_epoch: int = 0
    findings: tuple[Finding, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the last epoch
    started_at: float | None = None
    ended_at: float | None = None
    continues: int | None = None  # the trial whose training this one goes on with, in a study that was extended
    began: int = 0  # and the epochs that were done by then
    repeated: int = 0  # epochs that were trained again, from a checkpoint, after they had been reported

    @property
    def reason(self) -> str:
        """Why the trial ended, in one sentence; empty while it has not ended."""
        return "" if self.decision is None else self.decision.text()

    @property
    def epochs_done(self) -> int:
        return max(self.values, default=self.began)


@dataclass(frozen=True)
class Observation:
    """A trial as a sampler sees it. It never changes: a report makes a new one, so a thread may keep it."""

    params: Mapping[str, Scalar]
    """Every active knob."""
    values: Mapping[int, float]
    """The reported values by epoch, from 1."""
    state: TrialState


Observations = Mapping[int, Observation]
"""Observations by trial number."""
