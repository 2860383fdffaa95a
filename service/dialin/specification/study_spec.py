"""What a person asks for: one frozen record, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dialin.specification.domains import Domain
from dialin.specification.functions import split_function

Precision = Literal["auto", "float32", "bfloat16"]


class Section(BaseModel):
    """A part of a specification: no unknown keys, no silent conversions, never changed after it was made."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, arbitrary_types_allowed=True
    )


class ObjectiveSpec(Section):
    """What is measured. `dataset` is a name, `npz:PATH` or `folder:PATH`; `synthetic` is a closed form.

    `samples`: use so many of the training images, before the validation split is cut from them. `split_seed` decides
    which. `epoch_seconds`: of the closed form, how long an epoch takes. `compile`: have torch compile each trial's
    network, which takes seconds before its steps are faster. `precision` of the network's arithmetic, its weights being
    float32 always; `auto`: bfloat16 on a GPU, and on a CPU with matrix units (AMX) for images of 12 pixels a side and
    more; float32 elsewhere.
    """

    dataset: str
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"
    mode: Literal["max", "min"] = "max"
    validation_fraction: float = Field(0.1, gt=0, lt=1)
    samples: int | None = Field(None, ge=20)
    split_seed: int = Field(0, ge=0, le=2**31 - 1)
    epoch_seconds: float = Field(0.0, ge=0, le=3600)
    compile: bool = False
    precision: Precision = "auto"

    @property
    def subject(self) -> str:
        """What is tuned, in a word."""
        return self.dataset


class PythonSpec(Section):
    """A person's own training function as what is measured: `python` is `FILE.py:NAME`, the file by its whole path.
    `metric` is the name that the value which it reports shall have. Its knobs are no catalogue's."""

    python: str
    metric: str = Field("value", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    mode: Literal["max", "min"] = "max"

    @property
    def subject(self) -> str:
        """What is tuned, in a word."""
        return f"{self.file.name}:{self.function}"

    @property
    def file(self) -> Path:
        return Path(split_function(self.python)[0])

    @property
    def function(self) -> str:
        return split_function(self.python)[1]


class SearchSpec(Section):
    """How configurations are proposed: `gp` by a model of all learning curves, `tpe` by Optuna's, `auto` by the one of
    them that suits the space, `grid` takes every combination of a space of lists in turn. `trial_seed`: every trial
    trains with this seed, to reproduce one. `enqueue`: configurations to try first, of each what is known; the rest is
    proposed. `warm_start`: finished studies (an id, or a name) whose trials are learnt from too."""

    sampler: Literal["auto", "gp", "tpe", "random", "grid"] = "auto"
    seed: int = Field(0, ge=0, le=2**31 - 1)
    trial_seed: int | None = Field(None, ge=0, le=2**63 - 1)
    enqueue: list[dict[str, str | int | float | bool]] = Field(default_factory=list, max_length=10_000)
    warm_start: list[str] = Field(default_factory=list, max_length=100)


LEAST_REDUCTION, MOST_RUNGS = 1.1, 50  # a plan and a page cost what the rungs do


class AshaSpec(Section):
    """One in `reduction_factor` passes each rung; the first is at `grace_epochs` (None: a twelfth of the budget, at
    least 1). `type`: in `promotion` a trial waits at a rung until it is among those, in `stopping` it ends when it is
    not. `rungs`: their epochs, where they are not to be computed from the grace."""

    type: Literal["promotion", "stopping"] = "promotion"
    grace_epochs: int | None = Field(None, ge=1)
    reduction_factor: float = Field(3.0, ge=LEAST_REDUCTION, le=100)
    rungs: list[int] | None = Field(None, max_length=MOST_RUNGS)


class EarlyStoppingSpec(Section):
    """`asha` None: every trial runs to its end. `doctor`: watch no trial, only say what is found, or also stop a trial
    that cannot recover."""

    asha: AshaSpec | None = AshaSpec()
    doctor: Literal["off", "warn", "stop"] = "stop"


class BudgetSpec(Section):
    """`epochs` of one trial; `hours` of the whole study, by the clock; the study ends when the metric reaches `target`,
    and when more than `failures` trials have failed. A trial that has been at one epoch for `epoch_minutes` fails and
    loses its worker; 0: there is no such limit; None: it follows from what epochs took so far."""

    trials: int = Field(30, ge=1, le=1_000_000)
    epochs: int = Field(9, ge=1, le=1_000_000)
    hours: float | None = Field(None, gt=0)
    epoch_minutes: float | None = Field(None, ge=0)
    target: float | None = None
    failures: int = Field(10, ge=0)

    def reached(self, value: float, mode: str) -> bool:
        """Whether a value of the metric meets the target."""
        return self.target is not None and (value >= self.target if mode == "max" else value <= self.target)


LEAST_SHARE = 1e-4  # Ray counts resources in ten thousandths


class ResourcesSpec(Section):
    """Of one trial. `gpus` None: a share of what is there. `concurrency`: at most so many trials at a time; None: as
    many as fit."""

    cpus: float = Field(1.0, ge=LEAST_SHARE)
    gpus: float | None = Field(None, ge=0)
    concurrency: int | None = Field(None, ge=1)


class ClaimSpec(Section):
    """A claim about knobs that a study puts to the test: trials that match `better` do better than those that match
    `than`. `metric` None: the objective's; else a metric of the last epoch, better when it is `direction`."""

    says: str
    article: str = ""
    read: str = ""
    better: dict[str, list[str | int | float | bool]]
    than: dict[str, list[str | int | float | bool]]
    metric: str | None = None
    direction: Literal["higher", "lower"] = "higher"


class StudySpec(Section):
    """One study: a search space and how to search it. `space` keeps the order in which it was written."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    objective: ObjectiveSpec | PythonSpec
    space: Mapping[str, Domain]
    search: SearchSpec = SearchSpec()
    early_stopping: EarlyStoppingSpec = EarlyStoppingSpec()
    budget: BudgetSpec = BudgetSpec()
    resources: ResourcesSpec = ResourcesSpec()
    claim: ClaimSpec | None = None

    @property
    def data_objective(self) -> ObjectiveSpec:
        """The objective, of a study over a data set. Raises TypeError for one over a person's own function."""
        if not isinstance(self.objective, ObjectiveSpec):
            raise TypeError(f"{self.objective.subject} is no data set")
        return self.objective


SECTIONS: Mapping[str, type[Section]] = {
    "objective": ObjectiveSpec,
    "search": SearchSpec,
    "early_stopping": EarlyStoppingSpec,
    "budget": BudgetSpec,
    "resources": ResourcesSpec,
    "claim": ClaimSpec,
}
