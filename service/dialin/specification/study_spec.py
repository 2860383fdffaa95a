"""The records of a specification: one pydantic model a section, frozen, checked when it is made.

The models take what a person may write (`asha: off`, `trials: 1e3`, one value where a list is meant) and hold what it
means. Their field descriptions are also those of the JSON schema (`dialin.specification.schema`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    SkipValidation,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dialin.errors import did_you_mean
from dialin.specification.domains import Domain, StatedPrior
from dialin.specification.functions import split_function
from dialin.specification.metrics import (
    METRIC_NAME,
    VALIDATION,
    BoundSpec,
    Metric,
    MetricSpec,
    Mode,
    OwnMetricSpec,
    accept_metrics,
    check_mode,
    check_names,
    is_loss,
)
from dialin.specification.section import Section as Section
from dialin.specification.section import as_whole
from dialin.texts import show_value

VERSION: Final = 1
"""The version of the language that this dialin writes; `versions.upgrade` brings older ones to it."""

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "synthetic")
PATH_PREFIXES = ("npz:", "folder:")
"""How the data set of a path begins."""

LEAST_REDUCTION, MOST_RUNGS = 1.1, 50  # every rung costs time in a plan and a row on the study's page
LEAST_SHARE = 1e-4  # Ray counts resources in ten thousandths

Precision = Literal["auto", "float32", "bfloat16"]
WrittenScalar = str | int | float | bool
_OFF = Literal["off", "none"] | Literal[False] | None


def is_off(value: Any) -> bool:
    """Whether a value switches something off: `off`, `none`, false or nothing. 0 does not; it is a mistake."""
    # YAML 1.1 tools write `off` as false; 1.2, which is read here, takes it as a word.
    return value is None or value is False or (isinstance(value, str) and value in ("off", "none"))


def _scalar(value: Any) -> WrittenScalar:
    if not isinstance(value, WrittenScalar):
        raise ValueError(f"{show_value(value)} is not a number, text, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return as_whole(value)  # type: ignore[no-any-return]


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _asha_off(value: Any) -> Any:
    return None if is_off(value) else value


def _early_stopping_off(value: Any) -> Any:
    return {"asha": None, "doctor": "off"} if is_off(value) else value


def _no_limit(value: Any) -> Any:
    return 0 if value is not None and is_off(value) else value


# The two defaults of `mode` are one function, so that a metric means the same to a network and to a function.
def _mode_of(data: Mapping[str, Any]) -> Mode:
    """Losses are minimized, everything else is maximized."""
    return "min" if is_loss(data["metric"]) else "max"


def _kind_of(objective: Any) -> str:
    own = isinstance(objective, PythonSpec) or (isinstance(objective, dict) and "python" in objective)
    return "<python>" if own else "<dataset>"


Value = Annotated[WrittenScalar, PlainValidator(_scalar, json_schema_input_type=WrittenScalar)]
"""One value of a knob, as it is written."""

Values = Annotated[list[Value], BeforeValidator(_as_list, json_schema_input_type=WrittenScalar | list[WrittenScalar])]
"""A list of values, or one value in place of a list of one."""

_Minutes = Annotated[float, Field(ge=0)]
Minutes = Annotated[_Minutes, BeforeValidator(_no_limit, json_schema_input_type=_Minutes | _OFF)]
"""A time limit in minutes; `off` is 0."""


_SEVERAL = (
    "several metrics instead of `metric`, each with its name and mode; the study looks for the Pareto front, and a "
    "trial counts with its metrics at the epoch that is best by the first of them"
)


class ObjectiveSpec(Section):
    """What is optimized: the validation metric of an image classifier."""

    dataset: str = Field(
        description="digits, mnist, fashion_mnist, cifar10, cifar100, synthetic (a closed form that behaves like "
        "training), npz:PATH or folder:PATH"
    )
    metric: Literal["val_accuracy", "val_loss"] = Field(
        "val_accuracy", description="the metric of the validation split"
    )
    mode: Mode = Field(default_factory=_mode_of, description="follows from the metric when it is left out")
    metrics: list[MetricSpec] = Field(default_factory=list, description=_SEVERAL)
    validation_fraction: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="the fraction of each class's training images that becomes the validation split",
    )
    samples: int | None = Field(
        None, ge=20, description="the number of training images to use, validation split included; default: all"
    )
    split_seed: int = Field(
        0, ge=0, le=2**31 - 1, description="the seed that decides which images are used and which of them validate"
    )
    epoch_seconds: float = Field(0.0, ge=0, le=3600, description="the duration of an epoch of `synthetic`, in seconds")
    compile: bool = Field(False, description="whether torch compiles each trial's network; takes seconds a trial")
    precision: Precision = Field(
        "auto",
        description="of the network's arithmetic; the weights are always float32. auto: bfloat16 on a GPU and on a CPU "
        "with matrix units (AMX) for images of 12 pixels a side and more; otherwise float32",
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_metrics(cls, data: Any) -> Any:
        data = accept_metrics(data)
        if isinstance(data, dict) and data.get("metrics"):
            if data.get("metric") not in VALIDATION:
                data.pop("metric", None)
            data.pop("mode", None)
        return data

    @field_validator("dataset")
    @classmethod
    def _is_known(cls, dataset: str) -> str:
        if dataset in PATH_PREFIXES:
            raise ValueError(f"{dataset!r} names no path after {dataset!r}")
        if dataset not in DATASETS and not dataset.startswith(PATH_PREFIXES):
            near = did_you_mean(dataset, (*DATASETS, *(f"{prefix}PATH" for prefix in PATH_PREFIXES)))
            raise ValueError(f"unknown data set {dataset!r}; {near}")
        return dataset

    @field_validator("mode")
    @classmethod
    def _suits_the_metric(cls, mode: Mode, info: ValidationInfo) -> Mode:
        if "metric" in info.data:
            check_mode(info.data["metric"], mode)
        return mode

    @field_validator("metrics")
    @classmethod
    def _begin_with_validation(cls, metrics: list[MetricSpec]) -> list[MetricSpec]:
        check_names([metric.name for metric in metrics])
        if metrics and metrics[0].name not in VALIDATION:
            either = " or ".join(VALIDATION)
            raise ValueError(
                f"{metrics[0].name!r} comes first; the first one is {either}, which tells a trial's best epoch"
            )
        return metrics

    @property
    def subject(self) -> str:
        """What is tuned, in a word: the data set."""
        return self.dataset


class PythonSpec(Section):
    """What is optimized: the value that a person's own training function reports. Its knobs have any names."""

    python: str = Field(
        description="the function as FILE.py:FUNCTION, the file relative to the specification; once read, absolute"
    )
    metric: str = Field("value", pattern=METRIC_NAME, description="the name of the value that the function reports")
    mode: Mode = Field(
        default_factory=_mode_of, description="min for `loss` and names that end in `_loss`, otherwise max"
    )
    metrics: list[OwnMetricSpec] = Field(default_factory=list, description=_SEVERAL)

    @model_validator(mode="before")
    @classmethod
    def _accept_metrics(cls, data: Any) -> Any:
        return accept_metrics(data)

    @field_validator("metrics")
    @classmethod
    def _differ(cls, metrics: list[OwnMetricSpec]) -> list[OwnMetricSpec]:
        check_names([metric.name for metric in metrics])
        return metrics

    @property
    def subject(self) -> str:
        """What is tuned, in a word: the function and its file."""
        return f"{self.file.name}:{self.function}"

    @property
    def file(self) -> Path:
        """The file of the function."""
        return Path(split_function(self.python)[0])

    @property
    def function(self) -> str:
        """The name of the function in its file."""
        return split_function(self.python)[1]


class SearchSpec(Section):
    """How configurations are suggested."""

    sampler: Literal["auto", "gp", "tpe", "random", "grid"] = Field(
        "auto",
        description="gp: a Gaussian process over the learning curves of all trials; tpe: Optuna's; grid: every "
        "combination of a space of lists in turn; auto: gp",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="the seed of the sampler, and of every trial's own seed")
    trial_seed: int | None = Field(
        None, ge=0, le=2**63 - 1, description="the one seed that all trials train with, to reproduce one of them"
    )
    enqueue: list[dict[str, Value]] = Field(
        default_factory=list,
        max_length=10_000,
        description="configurations to try first; the sampler suggests what one of them leaves out",
    )
    warm_start: list[str] = Field(
        default_factory=list,
        max_length=100,
        description="finished studies, by id or name, whose trials the sampler learns from too",
    )


class AshaSpec(Section):
    """Asynchronous successive halving (Li et al. 2020): one trial in `reduction_factor` continues beyond each rung."""

    type: Literal["promotion", "stopping"] = Field(
        "promotion",
        description="promotion: a trial pauses at a rung until it is among the best there; stopping: a trial that is "
        "not among the best at a rung ends",
    )
    grace_epochs: int | None = Field(
        None, ge=1, description="the epoch of the first rung; default: a twelfth of budget.epochs, at least 1"
    )
    reduction_factor: float = Field(
        3.0,
        ge=LEAST_REDUCTION,
        le=100,
        description="one trial in this many continues; also the ratio of two rungs",
    )
    rungs: list[int] | None = Field(
        None, max_length=MOST_RUNGS, description="the epochs of all rungs, instead of grace_epochs"
    )

    @field_validator("rungs")
    @classmethod
    def _exclude_grace(cls, rungs: list[int] | None, info: ValidationInfo) -> list[int] | None:
        if rungs is not None and info.data.get("grace_epochs") is not None:
            raise ValueError("grace_epochs says where the rungs begin; name either")
        return rungs


class EarlyStoppingSpec(Section):
    """Which trials end before their last epoch."""

    asha: Annotated[AshaSpec | None, BeforeValidator(_asha_off, json_schema_input_type=AshaSpec | _OFF)] = Field(
        AshaSpec(), description="the comparison of trials at rungs; off: every trial trains all its epochs"
    )
    doctor: Literal["off", "warn", "stop"] = Field(
        "stop", description="what to do with a trial that cannot recover: stop it, only warn, or do not look at all"
    )


class BudgetSpec(Section):
    """When the study, and each of its trials, ends."""

    trials: int = Field(30, ge=1, le=1_000_000, description="the number of trials")
    epochs: int = Field(9, ge=1, le=1_000_000, description="the epochs of one trial, at most")
    hours: float | None = Field(None, gt=0, description="the duration of the whole study, in hours of wall-clock time")
    epoch_minutes: Minutes | None = Field(
        None,
        description="a trial that takes longer than this for one epoch fails and loses its worker. off: no limit; "
        "default: 20 times the slowest epoch so far, at least 30 minutes",
    )
    target: float | None = Field(None, description="the study ends when the metric reaches this value")
    failures: int = Field(10, ge=0, description="the study ends when more trials than this have failed")

    def reached(self, value: float, mode: str) -> bool:
        """Whether a value of the metric meets the target."""
        return self.target is not None and (value >= self.target if mode == "max" else value <= self.target)


class ResourcesSpec(Section):
    """What one trial takes, and how many run at a time."""

    cpus: float = Field(1.0, ge=LEAST_SHARE, description="the CPU cores of one trial")
    gpus: float | None = Field(
        None, ge=0, description="the GPUs of one trial, or a fraction of one; default: the trials share what is there"
    )
    concurrency: int | None = Field(
        None, ge=1, description="the number of trials at a time, at most; default: what fits"
    )

    @field_validator("gpus")
    @classmethod
    def _can_be_shared(cls, gpus: float | None) -> float | None:
        if gpus is not None and 0 < gpus < LEAST_SHARE:
            raise ValueError(f"{gpus:g} is below {LEAST_SHARE:g}, the least share")
        if gpus is not None and gpus > 1 and not gpus.is_integer():
            raise ValueError(f"{gpus:g} is neither a share of one GPU nor a whole number of them")
        return gpus


class ClaimSpec(Section):
    """A claim about knobs that the study puts to the test: trials that match `better` do better than those that match
    `than`."""

    says: str = Field(description="the claim in a sentence")
    article: str = Field("", description="the article that makes the claim")
    read: str = Field("", description="how the claim is read off this search space")
    better: dict[str, Values] = Field(description="the knobs and their values that are claimed to be better")
    than: dict[str, Values] = Field(description="the knobs and their values to compare with")
    metric: str | None = Field(
        None, description="a metric of a trial's last epoch to compare by; default: the best value of the objective's"
    )
    direction: Literal["higher", "lower"] = Field("higher", description="which values of `metric` are better")


Objective = Annotated[
    Annotated[ObjectiveSpec, Tag("<dataset>")] | Annotated[PythonSpec, Tag("<python>")], Discriminator(_kind_of)
]
"""Tags of unions stand in <>, so that the path of a problem can leave them out."""


class StudySpec(Section):
    """One study: a search space and how to search it."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="a-z, 0-9, - and _; studies are called NAME-xxxxxx"
    )
    objective: Objective = Field(description="what is optimized: a classifier on `dataset`, or a function, `python`")
    constraints: dict[str, BoundSpec] = Field(
        default_factory=dict,
        description="bounds of what trials measure, by name: a metric; parameters, epoch_seconds and memory (MiB) of a "
        "classifier; any value that a function reports",
    )
    # Read by `read_space`, which needs to know whose knobs they are; pydantic would copy the domains once more.
    space: SkipValidation[Mapping[str, Domain]] = Field(
        description="the knobs, each with its values, in the order in which they were written"
    )
    # Read by `read_prior`, for the same reason.
    prior: SkipValidation[StatedPrior] = Field(
        StatedPrior(),
        description="where good values of the knobs are believed to lie, in place of what the catalogue says; off: no "
        "belief",
    )
    search: SearchSpec = Field(SearchSpec(), description="how configurations are suggested")
    early_stopping: Annotated[
        EarlyStoppingSpec,
        BeforeValidator(_early_stopping_off, json_schema_input_type=EarlyStoppingSpec | _OFF),
    ] = Field(EarlyStoppingSpec(), description="which trials end before their last epoch; off: none")
    budget: BudgetSpec = Field(BudgetSpec(), description="when the study, and each of its trials, ends")
    resources: ResourcesSpec = Field(ResourcesSpec(), description="what one trial takes")
    claim: ClaimSpec | None = Field(None, description="a claim that the study puts to the test")
    version: Literal[1] = Field(VERSION, description="the version of this language; the newest when it is left out")

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What is optimized: one metric, or several."""
        objective = self.objective
        several = tuple(Metric(metric.name, metric.mode) for metric in objective.metrics)
        return several or (Metric(objective.metric, objective.mode),)

    @property
    def further(self) -> tuple[str, ...]:
        """What the search needs of each epoch beside the first metric: the other metrics, then what is bounded."""
        first, *others = (metric.name for metric in self.metrics)
        return tuple(dict.fromkeys(name for name in (*others, *self.constraints) if name != first))

    @property
    def has_front(self) -> bool:
        """Whether there are several metrics, so that the best is a Pareto front."""
        return len(self.metrics) > 1

    @property
    def data_objective(self) -> ObjectiveSpec:
        """The objective of a study over a data set. Raises TypeError for one over a person's own function."""
        if not isinstance(self.objective, ObjectiveSpec):
            raise TypeError(f"{self.objective.subject} is a function, not a data set")
        return self.objective
