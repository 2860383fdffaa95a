"""What a person asks for: one frozen record, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.spec.domains import Domain


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class ObjectiveSpec(_Section):
    """What is measured. `dataset` is a name, `npz:PATH` or `folder:PATH`; `synthetic` is a closed form in seconds."""

    dataset: str
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    mode: Literal["max", "min"] = "max"
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    samples: int | None = Field(None, ge=2)  # use so many of the training images, before the validation cut
    split_seed: int = Field(0, ge=0)
    epoch_seconds: float = Field(0.0, ge=0)  # synthetic only: how long an epoch takes


class SearchSpec(_Section):
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = Field(0, ge=0, le=2**31 - 1)
    trial_seed: int | None = Field(None, ge=0, le=2**63 - 1)  # every trial trains with this seed; to reproduce one


class AshaSpec(_Section):
    """`grace_epochs` None: a twelfth of the budget, at least 1."""

    grace_epochs: int | None = Field(None, ge=1)
    reduction_factor: float = Field(3.0, gt=1)


class EarlyStoppingSpec(_Section):
    """`asha` None: every trial runs to its end."""

    asha: AshaSpec | None = AshaSpec()


class BudgetSpec(_Section):
    trials: int = Field(30, ge=1)
    epochs: int = Field(9, ge=1)  # of one trial
    hours: float | None = Field(None, gt=0)  # of the whole study
    target: float | None = None  # the study ends when the metric reaches it
    failures: int = Field(10, ge=0)  # more failed trials than this end the study


class ResourcesSpec(_Section):
    """Of one trial. `gpus` None: a share of what is there; `concurrency` None: as many trials as fit."""

    cpus: float = Field(1.0, gt=0)
    gpus: float | None = Field(None, ge=0)
    concurrency: int | None = Field(None, ge=1)


class StudySpec(_Section):
    """One study: a search space and how to search it. `space` keeps the order in which it was written."""

    name: str
    objective: ObjectiveSpec
    space: Mapping[str, Domain]
    search: SearchSpec = SearchSpec()
    early_stopping: EarlyStoppingSpec = EarlyStoppingSpec()
    budget: BudgetSpec = BudgetSpec()
    resources: ResourcesSpec = ResourcesSpec()
