"""What happens in a study, as typed events. The study's event log holds one of them a line, in the order of time.

The log is the only description of a study's course besides the storage of its search: the recorder replays it into
MLflow, and the server streams it to those who watch. Times are in milliseconds since 1970, as MLflow keeps them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from dialin.search.decision import Decision
from dialin.specification.domains import Scalar


def now_milliseconds() -> int:
    """The time now, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True)
class StudyStarted:
    """A driver began a study, or continued one. It is the first event of a log.

    study: the study's id.
    name: the study's name, which is the name of its MLflow experiment.
    params: what MLflow shows as the parameters of the study.
    tags: what MLflow shows as its tags.
    time: milliseconds since 1970.
    rebuilt: whether the events that follow were made from the search's storage; MLflow may have them at other times.
    """

    kind: ClassVar[str] = "study_started"
    study: str
    name: str
    params: Mapping[str, Scalar]
    tags: Mapping[str, str]
    time: int = field(default_factory=now_milliseconds)
    rebuilt: bool = False


@dataclass(frozen=True)
class TrialStarted:
    """A trial began to train, or continued after a pause.

    trial: its number.
    params: its configuration.
    epochs: how many epochs it had trained before.
    time: milliseconds since 1970.
    """

    kind: ClassVar[str] = "trial_started"
    trial: int
    params: Mapping[str, Scalar]
    epochs: int = 0
    time: int = field(default_factory=now_milliseconds)


@dataclass(frozen=True)
class EpochReported:
    """A trial reported the metrics of an epoch. A trial that restarts from a checkpoint reports some epochs again.

    trial: its number.
    epoch: counted from 1.
    metrics: every metric by name; a value may be NaN or infinite.
    value: the metric that the study optimizes; None where it, or another metric of the epoch, is not finite.
    time: milliseconds since 1970.
    """

    kind: ClassVar[str] = "epoch"
    trial: int
    epoch: int
    metrics: Mapping[str, float]
    value: float | None = None
    time: int = field(default_factory=now_milliseconds)


@dataclass(frozen=True)
class TrialDecided:
    """What was decided after an epoch, and why.

    trial: the trial's number.
    epoch: the epoch after which this was decided.
    decision: its fields stand beside the others in the log, with `stop` and the sentence as `reason`.
    time: milliseconds since 1970.
    """

    kind: ClassVar[str] = "decision"
    trial: int
    epoch: int
    decision: Decision
    time: int = field(default_factory=now_milliseconds)


@dataclass(frozen=True)
class TrialEnded:
    """A trial stopped training: it ended, was paused at a rung, or its study was interrupted.

    trial: its number.
    state: one of `search.records.State`, or "interrupted"; "waiting" means that it is paused and may continue.
    reason: why, as a sentence.
    tags: what MLflow shows as tags of the trial, such as the doctor's findings.
    time: milliseconds since 1970.
    """

    kind: ClassVar[str] = "trial_ended"
    trial: int
    state: str
    reason: str
    tags: Mapping[str, str] = field(default_factory=dict)
    time: int = field(default_factory=now_milliseconds)


@dataclass(frozen=True)
class StudyEnded:
    """A study ended, or was interrupted.

    state: one of `lifecycle.StudyState`.
    reason: why, as a sentence; may be empty.
    metrics: what MLflow shows as metrics of the study.
    tags: what MLflow shows as its tags.
    artifacts: paths of files to copy to MLflow.
    time: milliseconds since 1970.
    """

    kind: ClassVar[str] = "study_ended"
    state: str
    reason: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    time: int = field(default_factory=now_milliseconds)


@dataclass(frozen=True)
class Note:
    """A message to those who watch the study.

    text: the message.
    time: milliseconds since 1970.
    """

    kind: ClassVar[str] = "note"
    text: str
    time: int = field(default_factory=now_milliseconds)


Event = StudyStarted | TrialStarted | EpochReported | TrialDecided | TrialEnded | StudyEnded | Note
_TYPES: tuple[type[Event], ...] = (
    StudyStarted,
    TrialStarted,
    EpochReported,
    TrialDecided,
    TrialEnded,
    StudyEnded,
    Note,
)
_NAMES: Mapping[type, tuple[str, ...]] = {each: tuple(one.name for one in fields(each)) for each in _TYPES}


def event_data(event: Event) -> dict[str, Any]:
    """An event as a mapping, as a line of the log has it."""
    data = {"kind": event.kind, **{name: getattr(event, name) for name in _NAMES[type(event)]}}
    if isinstance(event, TrialDecided):
        decision: Decision = data.pop("decision")
        spoken = {"stop": not decision.continues, "reason": decision.text()}
        return {**decision.to_data(), **data, **spoken}
    return data


def parse_event(data: Any, metric: str = "") -> Event:
    """The event in a decoded line of a log. Unknown fields are ignored, and characters that databases refuse are
    replaced. Raises ValueError when it is not an event.

    metric: the metric that the study optimizes; read where an epoch does not repeat it as `value`, as older logs.
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or kind not in _BY_KIND:
        raise ValueError("not an event: its `kind` is missing or unknown")
    of, shape = _BY_KIND[kind]
    values = _values(data, shape)
    if of is TrialDecided:
        values["decision"] = _decision(data)
    if of is EpochReported and "value" not in values:
        # Logs of versions before there was one log: only the recorder read them, and MLflow needs no value.
        values["value"] = finite(values["metrics"].get(metric, math.nan))
    event: Event = of(**values)
    return event


def _values(data: Mapping[str, Any], shape: _Shape) -> dict[str, Any]:
    missing = next((name for name, (_, required) in shape.items() if required and name not in data), None)
    if missing is not None:
        raise ValueError(f"event {data['kind']} has no {missing!r}")
    return {name: read(data[name]) for name, (read, _) in shape.items() if name in data}


def finite(value: float) -> float | None:
    """The value, or None where it is NaN or infinite, which JSON cannot express."""
    return value if math.isfinite(value) else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is not a text")
    # Databases refuse lone surrogates and NUL on every attempt, so that a retry would never succeed.
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _whole(most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"{value!r:.80} is not a whole number from 0 to {most}")
        return value

    return read


def _number(value: Any) -> float:
    # JSON has no NaN: the log holds it as a text.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r:.80} is not a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _finite_or_none(value: Any) -> float | None:
    return None if value is None else finite(_number(value))


def _scalar(value: Any) -> Scalar:
    return value if value is None or isinstance(value, bool | int | float) else _text(value)


def _decision(data: Mapping[str, Any]) -> Decision:
    try:
        return Decision.from_data(data)
    except TypeError as error:
        raise ValueError(f"not a decision: {error}") from error


def _flag(value: Any) -> bool:
    return value is True


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.80} is not a list")
    return tuple(_text(each) for each in value)


def _named(read: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def read_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.80} is not an object")
        return {_text(name): read(each) for name, each in value.items()}

    return read_all


_Shape = Mapping[str, tuple[Callable[[Any], Any], bool]]  # field -> how it is read, and whether it is required
_TIME, _COUNT, _TEXT = (_whole(253_402_300_799_999), True), (_whole(2**31 - 1), True), (_text, True)  # time: year 9999
_TAGS, _PARAMS, _METRICS = (_named(_text), True), (_named(_scalar), True), (_named(_number), True)
# Fields that are not required are absent from logs of older versions.
_SHAPES: Mapping[type[Event], _Shape] = {
    StudyStarted: {
        "study": _TEXT,
        "name": _TEXT,
        "params": _PARAMS,
        "tags": _TAGS,
        "time": _TIME,
        "rebuilt": (_flag, False),
    },
    TrialStarted: {"trial": _COUNT, "params": _PARAMS, "epochs": (_COUNT[0], False), "time": _TIME},
    EpochReported: {
        "trial": _COUNT,
        "epoch": _COUNT,
        "metrics": _METRICS,
        "value": (_finite_or_none, False),
        "time": _TIME,
    },
    TrialDecided: {"trial": _COUNT, "epoch": _COUNT, "time": _TIME},  # and the fields of the decision
    TrialEnded: {"trial": _COUNT, "state": _TEXT, "reason": _TEXT, "tags": (_TAGS[0], False), "time": _TIME},
    StudyEnded: {
        "state": _TEXT,
        "reason": _TEXT,
        "metrics": _METRICS,
        "tags": _TAGS,
        "artifacts": (_texts, True),
        "time": _TIME,
    },
    Note: {"text": _TEXT, "time": _TIME},
}
_BY_KIND: Mapping[str, tuple[Any, _Shape]] = {of.kind: (of, shape) for of, shape in _SHAPES.items()}
