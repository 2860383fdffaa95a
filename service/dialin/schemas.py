"""What the API answers with, for its description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

EXAMPLE_SPEC = """\
name: digits-small
objective: {dataset: digits}
space:
  optimizer: sgd
  lr: {min: 1e-3, max: 1.0, log: true}
  batch_size: {min: 16, max: 256, log: true}
budget: {trials: 30, epochs: 9}
"""


class ProblemItem(BaseModel):
    path: str
    line: int | None = Field(description="In the specification, from 1.")
    message: str


class ProblemDocument(BaseModel):
    """An error (RFC 9457). `code` names its kind."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[ProblemItem] = Field(description="Everything wrong with a specification, by path and line.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "code": "invalid_spec",
                "detail": "line 4: space.lr.min: 0 is not above 0, as a log range must be",
                "errors": [{"path": "space.lr.min", "line": 4, "message": "0 is not above 0, as a log range must be"}],
            }
        }
    )


StudyStateName = Literal["queued", "running", "complete", "failed", "interrupted"]
TrialStateName = Literal["waiting", "running", "complete", "stopped", "diverged", "failed"]


class TrialCounts(BaseModel):
    complete: int
    stopped: int
    diverged: int
    failed: int
    running: int
    waiting: int
    budget: int = Field(description="How many there will be at most.")


class Links(BaseModel):
    self: str
    trials: str
    best: str
    curve: str
    events: str
    logs: str
    page: str
    mlflow: str | None = Field(
        description="The study's run in MLflow, once it is there: a path of this server, or an address."
    )


class Study(BaseModel):
    """A study in short. Times are in seconds since 1970."""

    id: str
    name: str
    state: StudyStateName
    reason: str = Field(description="Why it ended, or what it waits for: its turn, another driver, a worker.")
    unreadable: str = Field(description="What of it cannot be read as it is stored, and why; empty: all of it can.")
    owner: str | None = Field(description="Whose token submitted it; null: it was run without the server.")
    priority: int
    metric: str
    mode: Literal["max", "min"]
    best: float | None = Field(description="Of the trials that are complete; of all while none is.")
    trials: TrialCounts
    seconds: float = Field(description="That drivers have spent on it, as of its last end.")
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempts: int = Field(description="Drivers that it has had.")
    concurrency: int | None = Field(description="Trials that may run at a time now: its share of the cluster.")
    mirror_lag: int = Field(description="Events that MLflow has not got yet.")
    mirror_note: str = Field(description="How far MLflow lags and why, in words; empty when it has everything.")
    archived: bool
    links: Links

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "digits-small-4f7k2m",
                "name": "digits-small",
                "state": "running",
                "reason": "",
                "unreadable": "",
                "owner": "ana",
                "priority": 0,
                "metric": "val_accuracy",
                "mode": "max",
                "best": 0.9688,
                "trials": {
                    "complete": 3,
                    "stopped": 9,
                    "diverged": 1,
                    "failed": 0,
                    "running": 2,
                    "waiting": 4,
                    "budget": 30,
                },
                "seconds": 0.0,
                "created_at": 1795250000.0,
                "started_at": 1795250004.0,
                "ended_at": None,
                "attempts": 1,
                "concurrency": 2,
                "mirror_lag": 0,
                "mirror_note": "",
                "archived": False,
                "links": {
                    "self": "/api/v1/studies/digits-small-4f7k2m",
                    "trials": "/api/v1/studies/digits-small-4f7k2m/trials",
                    "best": "/api/v1/studies/digits-small-4f7k2m/best",
                    "curve": "/api/v1/studies/digits-small-4f7k2m/curve",
                    "events": "/api/v1/studies/digits-small-4f7k2m/events",
                    "logs": "/api/v1/studies/digits-small-4f7k2m/logs",
                    "page": "/studies/digits-small-4f7k2m",
                    "mlflow": None,
                },
            }
        }
    )


class EpochCounts(BaseModel):
    trained: int
    repeated: int = Field(description="Trained again after a crash, from an older checkpoint.")
    range_tests: float = Field(description="What range tests of the learning rate took.")
    full: int = Field(description="What all trials would have taken at their full length.")
    saved: int = Field(description="What trials were spared that early stopping ended; of no other trials.")
    saved_share: float = Field(description="saved / (trained + repeated + range_tests + saved).")


class TestLook(BaseModel):
    """One look at the test split: the metrics of one trial's model. There is one look at a trial at most."""

    trial: int
    values: dict[str, float]


TEST = "The best trial's metrics on the test split, read once for each best trial; null: not read for this one."
LOOKS = "Every look at the test split, the first one first: more than one where an extension found another best trial."


class StudyInFull(Study):
    spec: str = Field(description="YAML.")
    test: dict[str, float] | None = Field(description=TEST)
    test_trial: int | None = Field(description="The trial that `test` belongs to.")
    test_looks: list[TestLook] = Field(description=LOOKS)
    epochs: EpochCounts
    seconds_left: float | None = Field(description="An estimate, of a study that runs; null while there is none.")
    claim: str | None
    history: list[str] = Field(description="Why earlier drivers are gone, a line each, the oldest first.")
    calibration: list[str]
    doctor: list[str] = Field(description="What the doctor saw in several trials, and what they have in common.")


class StudyPage(BaseModel):
    studies: list[Study]
    next: str | None = Field(description="The cursor of the page behind this one.")


class Trial(BaseModel):
    trial: int
    state: TrialStateName
    reason: str
    decision: dict[str, Any] | None = Field(
        description="Why it ended, by fields: `action`, `cause`, and where ASHA decided `rung`, `rank`, `of`, `quota`, "
        "`cutoff`; null: it has not ended. `reason` is the same in words."
    )
    continues: int | None = Field(description="The trial whose training it goes on with.")
    value: float | None = Field(description="Its best.")
    best_epoch: int | None = Field(description="The first epoch that reached it.")
    loss: float | None = Field(description="val_loss after its last epoch, where that was measured: it breaks ties.")
    epochs: int
    values: dict[str, float | None] = Field(description="By epoch; null: not a finite number.")
    params: dict[str, str | int | float | bool | None]
    seed: int
    started_at: float | None
    ended_at: float | None
    findings: list[dict[str, Any]]
    link: str | None = Field(description="Its run in MLflow, once it is there: a path of this server, or an address.")


class TrialPage(BaseModel):
    trials: list[Trial]
    next: str | None


class Best(BaseModel):
    trial: int
    value: float
    epoch: int
    params: dict[str, str | int | float | bool | None]
    metric: str
    mode: Literal["max", "min"]
    test: dict[str, float] | None = Field(description=TEST)
    test_trial: int | None = Field(description="The trial that `test` belongs to.")
    test_looks: list[TestLook] = Field(description=LOOKS)
    state: StudyStateName


class CurvePoint(BaseModel):
    trial: int
    epoch: int
    epochs_total: int
    trials_total: int
    seconds: float
    value: float
    best: float


class BestCurve(BaseModel):
    """Every new best value of any trial, complete or not, and the last value of all. `left_out`: how many of them are
    not among the points, where there are thousands."""

    metric: str
    mode: Literal["max", "min"]
    points: list[CurvePoint]
    left_out: int


class PlanDocument(BaseModel):
    name: str
    objective: dict[str, Any]
    knobs: dict[str, dict[str, str]]
    trials: int
    epochs: int
    rungs: list[int]
    concurrency: int
    resources: dict[str, float]
    most_epochs: int
    likely_epochs: int
    warnings: list[dict[str, str]]


class Extension(BaseModel):
    """A larger budget: new numbers, or `+N`."""

    trials: int | str | None = Field(None, examples=["+10"])
    epochs: int | str | None = Field(None, examples=[27])

    model_config = ConfigDict(extra="forbid")


class Bundle(BaseModel):
    bundle: str = Field(description="The SHA-256 of what was sent: name it with the specification.")
    files: int


class SearchSpace(BaseModel):
    name: str
    summary: str
    yaml: str


class KnobDocument(BaseModel):
    name: str
    group: str
    values: str
    typical: str | None
    applies: dict[str, list[Any]]
    summary: str
    source: str


class Session(BaseModel):
    name: str
    role: Literal["viewer", "submitter", "admin"]


class Health(BaseModel):
    status: Literal["ok"]


class Readiness(BaseModel):
    """Each part: `ok`, or what is wrong with it. Degraded: nothing is wrong but the mirror, MLflow. `warnings`: what
    is wrong with single studies, which are then not scheduled; the server is ready all the same."""

    status: Literal["ok", "degraded", "unavailable"]
    database: str
    ray: str
    mlflow: str
    warnings: list[str]
