"""What the driver tells the mirror: one JSON object a line in the study's spool, in the order in which it happened.

The spool is the hand-over: the driver appends and goes on at once; the recorder, another process, reads from its own
position and writes to MLflow whenever MLflow is there. Times are in milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NotRequired, TypedDict, cast

from dialin.specification.domains import Scalar


class StudyStarted(TypedDict):
    kind: Literal["study_started"]
    study: str  # id
    name: str  # the MLflow experiment
    time: int
    params: Mapping[str, Scalar]
    tags: Mapping[str, str]
    rebuilt: NotRequired[bool]  # what follows was made from the study's storage: MLflow may have it with other times


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
    state: str  # of lifecycle.TrialState, or "interrupted"
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


def parse_event(data: Any) -> Event:
    """The event that a line of JSON holds; what is not known of it is left out, and what no database takes of its texts
    is replaced. Raises ValueError for what is no event."""
    shape = _SHAPES.get(data["kind"]) if isinstance(data, dict) and isinstance(data.get("kind"), str) else None
    if shape is None:
        raise ValueError("no event")
    event = {"kind": data["kind"]}
    for name, (read, optional) in shape.items():
        if name in data:
            event[name] = read(data[name])
        elif not optional:
            raise ValueError(f"an event {data['kind']} without {name!r}")
    return cast("Event", event)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80}; a text")
    # Databases refuse half a surrogate pair and NUL, and would do so for ever.
    return value.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def _whole(most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise ValueError(f"{value!r:.80}; a whole number from 0 to {most}")
        return value

    return read


def _number(value: Any) -> float:
    # What JSON has no number for, as nan, is a text.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{value!r:.80}; a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _scalar(value: Any) -> Scalar:
    if value is None or isinstance(value, bool | int | float):
        return value
    return _text(value)


def _flag(value: Any) -> bool:
    return value is True


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.80}; a list")
    return [_text(each) for each in value]


def _named(read: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def read_all(value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"{value!r:.80}; values by name")
        return {_text(name): read(each) for name, each in value.items()}

    return read_all


_TIME = (_whole(253_402_300_799_999), False)  # the end of the year 9999
_COUNT = (_whole(2**31 - 1), False)
_TEXT, _TAGS, _PARAMS, _METRICS = (
    (_text, False),
    (_named(_text), False),
    (_named(_scalar), False),
    (_named(_number), False),
)
_SHAPES: Mapping[str, Mapping[str, tuple[Callable[[Any], Any], bool]]] = {
    "study_started": {
        "study": _TEXT,
        "name": _TEXT,
        "time": _TIME,
        "params": _PARAMS,
        "tags": _TAGS,
        "rebuilt": (_flag, True),
    },
    "trial_started": {"trial": _COUNT, "time": _TIME, "params": _PARAMS},
    "epoch": {"trial": _COUNT, "epoch": _COUNT, "time": _TIME, "metrics": _METRICS},
    # Events of an older spool have no tags.
    "trial_ended": {"trial": _COUNT, "time": _TIME, "state": _TEXT, "reason": _TEXT, "tags": (_named(_text), True)},
    "study_ended": {
        "time": _TIME,
        "state": _TEXT,
        "reason": _TEXT,
        "metrics": _METRICS,
        "tags": _TAGS,
        "artifacts": (_texts, False),
    },
}
