"""The metrics of an objective, one or several, and the constraints on what a trial measures.

With one metric a specification says `metric` and `mode`; with several it says `metrics`, a list. A list of one entry is
the same as `metric`. Whoever reads a specification uses `StudySpec.metrics`, which has one entry or several.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dialin.specification.section import Section
from dialin.texts import show_value

Mode = Literal["max", "min"]

VALIDATION = ("val_accuracy", "val_loss")
"""The metrics of the validation split, one of which is the first metric of a study over a data set."""
MEASURED = ("parameters", "epoch_seconds", "memory")
"""What a trial over a data set measures of itself where the specification names it: the number of its trainable
parameters; the duration of an epoch in seconds, the median of those so far; the peak of its memory in MiB."""
MOST_METRICS = 4
"""Beyond a few metrics nearly every trial lies on the Pareto front, and ranks say nothing any more."""
METRIC_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
"""What a value of a person's own function may be called."""


class Metric(NamedTuple):
    """One metric that is optimized."""

    name: str
    mode: Mode

    @property
    def sign(self) -> float:
        """1 where more is better, -1 where less is: the value times this is larger for a better trial."""
        return 1.0 if self.mode == "max" else -1.0


def is_loss(name: str) -> bool:
    """Whether a metric is a loss, by its name."""
    return name == "loss" or name.endswith("_loss")


def likely_mode(name: str) -> Mode:
    """Losses, and what a trial costs, are minimized; everything else is maximized."""
    return "min" if is_loss(name) or name in MEASURED else "max"


def _mode_of(data: Mapping[str, Any]) -> Mode:
    return likely_mode(data["name"])


def check_mode(name: str, mode: Mode) -> None:
    """Raise ValueError for a mode that would search for the worst value of a metric of a data set."""
    if mode != (wanted := likely_mode(name)):
        raise ValueError(f"{mode!r} of {name} finds the worst; use {wanted!r}")


class OwnMetricSpec(Section):
    """One of several metrics that a person's own function reports."""

    name: str = Field(pattern=METRIC_NAME, description="the name of a value that the function reports")
    mode: Mode = Field(
        default_factory=_mode_of,
        description="min for losses and for parameters, epoch_seconds and memory, otherwise max",
    )

    @model_validator(mode="before")
    @classmethod
    def _is_a_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data


class MetricSpec(Section):
    """One of several metrics of an image classifier."""

    name: Literal["val_accuracy", "val_loss", "parameters", "epoch_seconds", "memory"] = Field(
        description="a metric of the validation split, or what the trial costs: its trainable parameters, the seconds "
        "of an epoch (the median of those so far), the peak of its memory in MiB"
    )
    mode: Mode = Field(default_factory=_mode_of, description="follows from the name when it is left out")

    @model_validator(mode="before")
    @classmethod
    def _is_a_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data

    @field_validator("mode")
    @classmethod
    def _suits_the_name(cls, mode: Mode, info: ValidationInfo) -> Mode:
        if "name" in info.data:
            check_mode(info.data["name"], mode)
        return mode


class BoundSpec(Section):
    """The bounds of one quantity that trials measure. A trial beyond them is never among the best."""

    min: float | None = Field(None, description="the least value that is allowed")
    max: float | None = Field(None, description="the greatest value that is allowed")

    @model_validator(mode="after")
    def _bounds_something(self) -> BoundSpec:
        if self.min is None and self.max is None:
            raise ValueError("names no bound; write min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}")
        return self

    def excess(self, value: float) -> float:
        """How far a value lies outside, in its own unit; 0 or less inside, the distance to the nearer bound."""
        above = value - self.max if self.max is not None else -float("inf")
        below = self.min - value if self.min is not None else -float("inf")
        return max(above, below)


def accept_metrics(data: Any) -> Any:
    """The data of an objective, whose list `metrics` stands for `metric` and `mode` too: those of its first entry. A
    list of one entry becomes these two. Raises ValueError where both are written."""
    if not isinstance(data, dict):
        return data
    rest = {key: value for key, value in data.items() if key != "metrics"}
    if data.get("metrics") in (None, []):
        return rest
    rest = _without_one_metric(rest)
    entries = _entries_of(data["metrics"])
    if not entries or not _is_plain(entries[0]):
        return {**rest, "metrics": data["metrics"]}  # what is wrong with it is said by the models above
    first = {"metric": entries[0]["name"], "mode": entries[0].get("mode", likely_mode(entries[0]["name"]))}
    if len(entries) == 1:
        return {**rest, **first}
    # A first entry that is refused is refused once, in the list.
    return {**rest, "metrics": entries, **(first if _is_allowed(first) else {})}


def _without_one_metric(data: Mapping[str, Any]) -> dict[str, Any]:
    """The data of an objective that has a list `metrics`. Raises ValueError where it names one metric beside it."""
    if both := [key for key in ("metric", "mode") if data.get(key) is not None]:
        raise ValueError(f"{' and '.join(both)} beside metrics; name either one metric, or all of them in metrics")
    # `--set objective.metric=null` takes the file's one metric away.
    return {key: value for key, value in data.items() if key not in ("metric", "mode")}


def _entries_of(metrics: Any) -> list[Any]:
    """The entries of a list of metrics, a name alone as an entry with that name; none where it is no list."""
    if not isinstance(metrics, list):
        return []
    return [{"name": one} if isinstance(one, str) else one for one in metrics]


def _is_allowed(metric: Mapping[str, Any]) -> bool:
    return re.fullmatch(METRIC_NAME, metric["metric"]) is not None and metric["mode"] in ("max", "min")


def _is_plain(entry: Any) -> bool:
    """Whether an entry has a name and nothing but what an entry may have."""
    return isinstance(entry, dict) and isinstance(entry.get("name"), str) and entry.keys() <= {"name", "mode"}


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for a metric that is named twice, and for too many."""
    if len(names) > MOST_METRICS:
        raise ValueError(f"{len(names)} of them; at most {MOST_METRICS} are taken")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"{show_value(twice[0])} is named twice")
