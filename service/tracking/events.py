"""What the driver tells the mirror: one JSON object a line in the study's spool, in the order in which it happened.

The spool is the hand-over: the driver appends and goes on at once; the recorder, another process, reads from its own
position and writes to MLflow whenever MLflow is there. Times are in milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NotRequired, TypedDict

from service.spec.domains import Scalar


class StudyStarted(TypedDict):
    kind: Literal["study_started"]
    study: str  # id
    name: str  # the MLflow experiment
    time: int
    params: Mapping[str, Scalar]
    tags: Mapping[str, str]


class TrialStarted(TypedDict):
    kind: Literal["trial_started"]
    trial: int
    time: int
    params: Mapping[str, Scalar]


class EpochReported(TypedDict):
    kind: Literal["epoch"]
    trial: int
    epoch: int  # the step of every metric in it
    time: int
    metrics: Mapping[str, float]


class TrialEnded(TypedDict):
    kind: Literal["trial_ended"]
    trial: int
    time: int
    state: str  # of search.records.State, or "interrupted"
    reason: str
    tags: NotRequired[Mapping[str, str]]


class StudyEnded(TypedDict):
    kind: Literal["study_ended"]
    time: int
    state: str  # of store.studies.StudyState
    reason: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    artifacts: list[str]  # files to put on the parent run


Event = StudyStarted | TrialStarted | EpochReported | TrialEnded | StudyEnded
