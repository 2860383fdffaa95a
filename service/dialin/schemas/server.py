"""The models of events, plans and bundles, and of what a server says of itself."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dialin.lifecycle import Role
from dialin.schemas.common import is_none
from dialin.schemas.studies import Bound


class Event(BaseModel):
    """Something that happened in a study, as the event stream tells it."""

    id: str = Field(description="Its place in the stream, for Last-Event-ID; empty for one not read from a stream.")
    kind: str = Field(description="trial_started, epoch, decision, trial_ended, note, or study (its new state).")
    data: dict[str, Any]


class PlannedKnob(BaseModel):
    """A knob of a search space, in words."""

    domain: str
    when: str = Field(description="The condition under which it applies; empty if it always does.")


class PlannedPrior(BaseModel):
    """Where good values of a knob are believed to lie, in words."""

    centre: str = Field(description="The value about which the search begins; it may depend on other knobs.")
    spread: str = Field(description="One standard deviation: a factor or a difference; empty: a quarter of the range.")
    source: str = Field(description="Where the belief comes from.")


class PlannedTrial(BaseModel):
    """One of the first trials of a search that has a prior."""

    trial: int = Field(description="Its number.")
    params: dict[str, Any] = Field(description="Its searched knobs, without a learning rate that is range-tested.")
    given: dict[str, Any] = Field(
        description="The value of a choice for which it is tried; empty for the centres of the prior."
    )


class PlannedResources(BaseModel):
    """What one trial takes of the cluster."""

    cpus: float
    gpus: float


class LintWarning(BaseModel):
    """Something in a specification that is allowed and probably not meant."""

    path: str
    message: str


class Plan(BaseModel):
    """What a specification would do."""

    name: str
    objective: dict[str, Any]
    constraints: dict[str, Bound] | None = Field(
        None, exclude_if=is_none, description="What trials must keep to, by name; left out where there is nothing."
    )
    knobs: dict[str, PlannedKnob]
    trials: int
    epochs: int = Field(description="Epochs of a trial at its full length.")
    rungs: list[int] = Field(description="The epochs after which trials are compared.")
    concurrency: int = Field(description="How many trials would run at a time.")
    sampler: str
    prior: dict[str, PlannedPrior] = Field(
        {}, description="By knob; empty: the search has none, or its sampler uses none."
    )
    first_trials: list[PlannedTrial] = Field(
        [],
        description="The first trials that the prior decides, every second one after those that are enqueued: the "
        "centres of the prior, then the same beside other values of the choices on which knobs depend. Those between "
        "them come from the whole space. Empty without a prior, and with a warm start, whose trials a plan does not "
        "read.",
    )
    resources: PlannedResources
    most_epochs: int = Field(description="Epochs of all trials if none were stopped early.")
    likely_epochs: int = Field(description="Epochs of all trials with early stopping, estimated.")
    warnings: list[LintWarning]


class Extension(BaseModel):
    """A larger budget: new numbers, or `+N`."""

    trials: int | str | None = Field(None, examples=["+10"])
    epochs: int | str | None = Field(None, examples=[27])

    model_config = ConfigDict(extra="forbid")


class Bundle(BaseModel):
    """Files that were sent for a user's training function."""

    bundle: str = Field(description="The SHA-256 of what was sent; the specification is submitted with it.")
    files: int


class SearchSpace(BaseModel):
    """A search space that comes with dialin."""

    name: str
    summary: str
    yaml: str


class Knob(BaseModel):
    """A knob of the catalogue."""

    name: str
    group: str
    values: str = Field(description="The values that it may take, in words.")
    typical: str | None = Field(description="A typical range, in words.")
    applies: dict[str, list[Any]] = Field(description="Values of other knobs, one of which is needed for this one.")
    summary: str
    source: str
    default: str = Field("", description="The value that it takes where a search space does not name it, in words.")
    start: str = Field("", description="The value about which a search over it begins, in words.")
    start_source: str = Field("", description="Where that value comes from.")


class Session(BaseModel):
    """The caller."""

    name: str
    role: Role


class Health(BaseModel):
    """The server answers."""

    status: Literal["ok"]


class Readiness(BaseModel):
    """Whether the server can work. Each part is `ok` or says what is wrong with it."""

    status: Literal["ok", "degraded", "unavailable"] = Field(
        description="degraded: only MLflow, the mirror, is not there; studies run all the same."
    )
    database: str
    ray: str
    mlflow: str
    warnings: list[str] = Field(description="Studies that cannot be read, so are not scheduled; the others are.")
