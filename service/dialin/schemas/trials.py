"""The models of a trial, of the best configuration and of the curve of the best value."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from dialin.lifecycle import StudyState, TrialState
from dialin.schemas.common import Mode, Page, Params, is_none
from dialin.schemas.studies import TestScores


class TrialFinding(BaseModel):
    """Something that the doctor saw in the training of a trial."""

    code: str = Field(description="The doctor's rule.")
    epoch: int
    evidence: dict[str, Any] = Field(description="The figures that led to it.")
    layer: str = Field("", description="The layer that it is about; empty if it is about all.")
    severity: str
    cause: str = Field(description="The likely cause.")
    remedy: str = Field(description="What to try.")
    source: str = Field(description="Where the rule comes from.")
    text: str = Field(description="The finding in a sentence.")

    model_config = ConfigDict(extra="allow")


class Trial(BaseModel):
    """One configuration and how its training went."""

    trial: int = Field(description="Its number in the study, from 0.")
    state: TrialState
    reason: str = Field(description="Why it ended; `decision` in words.")
    decision: dict[str, Any] | None = Field(
        None,
        description="Why it ended, by the fields that apply: `action` and `cause`, and where ASHA decided `rung`, "
        "`rank`, `of`, `quota`, `cutoff`; null while it has not ended.",
    )
    continues: int | None = Field(description="The trial whose training it continues, in a study that was extended.")
    value: float | None = Field(description="Its best value of the metric; of several metrics, of the first.")
    best_epoch: int | None = Field(description="The first epoch that reached `value`.")
    metrics: dict[str, float] | None = Field(
        None,
        exclude_if=is_none,
        description="With several metrics or with constraints: each metric, and what the constraints bound, after "
        "`best_epoch`, by name; left out otherwise, and while there is no value.",
    )
    violated: list[str] | None = Field(
        None,
        exclude_if=is_none,
        description="The constraints that it violates, by name; left out without constraints or without a value.",
    )
    loss: float | None = Field(description="val_loss after its last epoch, where it is measured; it breaks ties.")
    epochs: int = Field(description="How many epochs it has trained.")
    values: dict[str, float | None] = Field(
        description="The metric by epoch, of several the first; null for a number that is not finite."
    )
    others: dict[str, dict[str, float | None]] | None = Field(
        None,
        exclude_if=is_none,
        description="The further metrics, and what constraints bound, by name and epoch; left out without any.",
    )
    params: Params
    seed: int
    started_at: float | None
    ended_at: float | None
    findings: list[TrialFinding]
    link: str | None = Field(
        None, description="Its run in MLflow, once it is there: a path of this server, or an address."
    )

    @property
    def is_feasible(self) -> bool | None:
        """Whether it meets the constraints; None without constraints, or before it has a value."""
        return None if self.violated is None else not self.violated


class TrialPage(Page):
    """A part of the trials of a study."""

    trials: list[Trial]


class Best(TestScores):
    """The best configuration so far; with several metrics one of the Pareto front."""

    trial: int
    value: float = Field(description="The metric; of several, the first.")
    epoch: int = Field(description="The first epoch that reached `value`.")
    expected: float | None = Field(
        None,
        description="What the metric is expected to be, without the luck that noise explains; null while no trial is "
        "complete, for few epochs, and for several metrics.",
    )
    params: Params
    metric: str
    mode: Mode
    values: dict[str, float] | None = Field(
        None,
        exclude_if=is_none,
        description="With several metrics: each of them after `epoch`, by name; left out for one.",
    )
    bounded: dict[str, float] | None = Field(
        None,
        exclude_if=is_none,
        description="What the constraints bound, after `epoch`, by name; left out without constraints.",
    )
    state: StudyState = Field(description="The study's state.")


class CurvePoint(BaseModel):
    """One report of a trial, on the curve of the best value."""

    trial: int
    epoch: int
    epochs_total: int = Field(description="Epochs that all trials together had trained by then.")
    trials_total: int = Field(description="Trials that had reported by then.")
    seconds: float = Field(description="Since the first report.")
    value: float
    best: float = Field(description="The best value so far, this one included.")


class BestCurve(BaseModel):
    """How the best value grew: every report that improved it, from complete trials or not, and the last report.

    With several metrics it is the hypervolume of what was reported so far: `metric` is `hypervolume`, and the `value`
    of a point is the study's first metric in that report.
    """

    metric: str
    mode: Mode
    reference: dict[str, float] | None = Field(
        None,
        exclude_if=is_none,
        description="With several metrics: the hypervolume is the dominated share of the box from this point to the "
        "best value of each metric. The point lies beyond the worst of the front, by a tenth of the front's range.",
    )
    points: list[CurvePoint]
    left_out: int = Field(0, description="How many improvements are not among the points, where there are thousands.")
