"""The models of a study, in short and in full."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from dialin.lifecycle import ENDED, TRIAL_ENDED, StudyState, TrialState
from dialin.schemas.common import Mode, Page, Params, is_none


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


class Metric(BaseModel):
    """One of several metrics that a study optimizes."""

    name: str
    mode: Mode


class Bound(BaseModel):
    """A constraint on what trials measure."""

    min: float | None = None
    max: float | None = None


class Study(BaseModel):
    """A study in short."""

    id: str
    name: str
    state: StudyState
    reason: str = Field(description="Why it ended, or what it waits for: its turn, another driver, a worker.")
    unreadable: str = Field("", description="Which stored parts cannot be read, and why; empty if all can be read.")
    owner: str | None = Field(description="Whose token submitted it; null for a study that was run without a server.")
    priority: int = Field(description="Studies of a higher priority start first.")
    metric: str = Field(description="The metric that is optimized; of several, the first.")
    mode: Mode = Field(description="Whether the metric is maximized or minimized.")
    metrics: list[Metric] | None = Field(
        None, exclude_if=is_none, description="All metrics, where it optimizes several; left out for one."
    )
    constraints: dict[str, Bound] | None = Field(
        None,
        exclude_if=is_none,
        description="What trials must keep to, by the name of what they measure; left out where there is nothing.",
    )
    best: float | None = Field(
        description="The observed value of the best trial: a complete one, or any while none is complete. Only trials "
        "that meet the constraints count."
    )
    front: int | None = Field(
        None,
        exclude_if=is_none,
        description="How many trials are on the Pareto front of several metrics; left out for one metric.",
    )
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
        if self.front is not None:
            parts.append(f"{self.front} on the Pareto front")
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


class ParetoPoint(BaseModel):
    """A trial of the Pareto front: no other trial is at least as good in every metric and better in one."""

    trial: int
    values: dict[str, float] = Field(description="Each metric after `epoch`, by name.")
    bounded: dict[str, float] | None = Field(
        None, description="What the constraints bound, after `epoch`, by name; null without constraints."
    )
    epoch: int = Field(description="The epoch that counts: the first that was best by the first metric.")
    params: Params
    link: str | None = Field(
        None,
        description="The configuration: a path of the server, which answers with JSON, or with the specification that "
        "trains it again for `Accept: application/yaml`.",
    )


class StudyInFull(Study, TestScores):
    """A study with its specification and what was found out about it."""

    spec: str = Field(description="The specification, as YAML.")
    pareto: list[ParetoPoint] | None = Field(
        None,
        exclude_if=is_none,
        description="The Pareto front of several metrics, from the best by the first one to the worst: of the complete "
        "trials that meet the constraints, or while there is none, of the others; left out for one metric.",
    )
    violations: dict[str, int] | None = Field(
        None,
        exclude_if=is_none,
        description="How many trials violate each constraint, by its name; left out without constraints.",
    )
    best_trial: int | None = Field(None, description="The number of the best trial; null while there is none.")
    expected: float | None = Field(
        None, description="What the best trial's metric is expected to be, without the luck that noise explains."
    )
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
