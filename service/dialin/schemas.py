"""One model for each noun of dialin: what the server answers with, the client returns and the commands print.

They are built from what is stored by `dialin.study_flow.schema_builder` alone. Times are in seconds since 1970, and a
number that is not finite is null. A reader ignores fields that it does not know: a newer server may have more.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from dialin.lifecycle import ENDED, TRIAL_ENDED, Role, StudyState, TrialState

Mode = Literal["max", "min"]
Params = dict[str, str | int | float | bool | None]


class Page(BaseModel):
    """A part of a long list."""

    next: str | None = Field(description="The cursor that the next page is asked for with; null on the last page.")


# Errors


class Problem(BaseModel):
    """One thing that is wrong with a specification."""

    path: str = Field(description="Where in the specification, such as space.lr.min.")
    line: int | None = Field(description="The line of the specification, from 1.")
    message: str


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 describes it; `code` and `errors` are dialin's own."""

    type: str
    title: str
    status: int
    code: str = Field(description="The kind of the error, such as invalid_spec or not_found.")
    detail: str = Field(description="What happened, to what, and what is allowed.")
    errors: list[Problem] = Field(description="Everything that is wrong with a specification, by path and line.")

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


# Studies


class TrialCounts(BaseModel):
    """How many trials of a study are in each state."""

    complete: int = 0
    stopped: int = 0
    diverged: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    budget: int = Field(0, description="The largest number of trials that the study may have.")

    @property
    def ended(self) -> int:
        """How many trials have ended, in any way."""
        return sum(int(getattr(self, state.value)) for state in TRIAL_ENDED)

    @property
    def begun(self) -> int:
        """How many trials there are, in any state."""
        return sum(int(getattr(self, state.value)) for state in TrialState)


class Links(BaseModel):
    """Where more about a study is found: paths of the server. Null for a study that was read without a server."""

    self: str | None = None
    trials: str | None = None
    best: str | None = None
    curve: str | None = None
    events: str | None = None
    logs: str | None = None
    page: str | None = None
    mlflow: str | None = Field(
        None, description="The study's run in MLflow, once it is there: a path of this server, or an address."
    )


class Study(BaseModel):
    """A study in short."""

    id: str
    name: str
    state: StudyState
    reason: str = Field(description="Why it ended, or what it waits for: its turn, another driver, a worker.")
    unreadable: str = Field("", description="Which stored parts cannot be read, and why; empty if all can be read.")
    owner: str | None = Field(description="Whose token submitted it; null for a study that was run without a server.")
    priority: int = Field(description="Studies of a higher priority start first.")
    metric: str = Field(description="The metric that is optimized.")
    mode: Mode = Field(description="Whether the metric is maximized or minimized.")
    best: float | None = Field(description="The best value among complete trials; among all while none is complete.")
    trials: TrialCounts
    seconds: float = Field(description="How long it has been driven so far, over all attempts.")
    created_at: float
    started_at: float | None
    ended_at: float | None
    attempts: int = Field(description="How many drivers it has had.")
    concurrency: int | None = Field(description="How many trials may run at a time now: its share of the cluster.")
    mirror_lag: int = Field(description="How many events MLflow lacks.")
    mirror_note: str = Field("", description="How far MLflow lags and why, in words; empty if it has everything.")
    archived: bool = Field(description="Whether the list of studies leaves it out.")
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

    @property
    def ended(self) -> bool:
        """Whether the study has ended, in any way; it may still be resumed or extended."""
        return self.state in ENDED

    def line(self) -> str:
        """Where the study stands, in one line for a terminal or a log."""
        parts = [f"{self.trials.ended}/{self.trials.budget} trials", f"{self.trials.running} running"]
        if self.best is not None:
            parts.append(f"best {self.metric} {self.best:.4g}")
        if self.ended:
            parts.append(f"{self.seconds:.0f} s")
        reason = f"unreadable: {self.unreadable}" if self.unreadable else self.reason
        why = f" ({reason})" if reason else ""
        return f"study {self.id} {self.state.value}{why}: {', '.join(parts)}"


class EpochCounts(BaseModel):
    """Where the epochs of a study went."""

    trained: int = 0
    repeated: int = Field(0, description="Trained again after a crash, from an older checkpoint.")
    range_tests: float = Field(0.0, description="Spent on learning-rate range tests.")
    full: int = Field(0, description="What all trials would have taken at their full length.")
    saved: int = Field(0, description="What early stopping saved: the epochs left of the trials that it stopped.")
    saved_share: float = Field(0.0, description="saved / (trained + repeated + range_tests + saved).")


class TestLook(BaseModel):
    """The metrics of one trial's model on the test split, which is read once a trial at most."""

    trial: int
    values: dict[str, float]


class TestScores(BaseModel):
    """What is known of the test split."""

    test: dict[str, float] | None = Field(
        None, description="The best trial's metrics on the test split; null if it was not read for that trial."
    )
    test_trial: int | None = Field(None, description="The trial that `test` belongs to.")
    test_looks: list[TestLook] = Field(
        default_factory=list,
        description="Every reading of the test split, oldest first: more than one if an extension changed the best.",
    )


class StudyInFull(Study, TestScores):
    """A study with its specification and what was found out about it."""

    spec: str = Field(description="The specification, as YAML.")
    epochs: EpochCounts = Field(default_factory=EpochCounts)
    seconds_left: float | None = Field(None, description="An estimate for a running study; null while there is none.")
    claim: str | None = Field(None, description="How the claim that the study puts to the test was judged.")
    history: list[str] = Field(default_factory=list, description="Why earlier drivers ended, oldest first.")
    calibration: list[str] = Field(default_factory=list, description="What the range tests found, a line each.")
    doctor: list[str] = Field(
        default_factory=list, description="Findings that several trials share, and what these have in common."
    )


class LocalStudy(StudyInFull):
    """A study that was read from a folder, without a server."""

    paths: dict[str, str | None] = Field(
        default_factory=dict,
        description="Where best_config, mlflow and storage lie: absolute paths or addresses; null for what is missing.",
    )


class StudyPage(Page):
    """A part of the list of studies, newest first."""

    studies: list[Study]


# Trials


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
    value: float | None = Field(description="Its best value of the metric.")
    best_epoch: int | None = Field(description="The first epoch that reached `value`.")
    loss: float | None = Field(description="val_loss after its last epoch, where it is measured; it breaks ties.")
    epochs: int = Field(description="How many epochs it has trained.")
    values: dict[str, float | None] = Field(description="The metric by epoch; null for a number that is not finite.")
    params: Params
    seed: int
    started_at: float | None
    ended_at: float | None
    findings: list[TrialFinding]
    link: str | None = Field(
        None, description="Its run in MLflow, once it is there: a path of this server, or an address."
    )


class TrialPage(Page):
    """A part of the trials of a study."""

    trials: list[Trial]


class Best(TestScores):
    """The best configuration so far."""

    trial: int
    value: float
    epoch: int = Field(description="The first epoch that reached `value`.")
    params: Params
    metric: str
    mode: Mode
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
    """How the best value grew: every report that improved it, from complete trials or not, and the last report."""

    metric: str
    mode: Mode
    points: list[CurvePoint]
    left_out: int = Field(0, description="How many improvements are not among the points, where there are thousands.")


# Events, plans, bundles


class Event(BaseModel):
    """Something that happened in a study, as the event stream tells it."""

    id: str = Field(description="Its place in the stream, for Last-Event-ID; empty for one not read from a stream.")
    kind: str = Field(description="trial_started, epoch, decision, trial_ended, note, or study (its new state).")
    data: dict[str, Any]


class PlannedKnob(BaseModel):
    """A knob of a search space, in words."""

    domain: str
    when: str = Field(description="The condition under which it applies; empty if it always does.")


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
    knobs: dict[str, PlannedKnob]
    trials: int
    epochs: int = Field(description="Epochs of a trial at its full length.")
    rungs: list[int] = Field(description="The epochs after which trials are compared.")
    concurrency: int = Field(description="How many trials would run at a time.")
    sampler: str
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


# The server


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
