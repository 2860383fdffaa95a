"""Events as those who watch a study receive them, from a server or from the study's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from dialin.events.log import bounded_json
from dialin.events.types import EpochReported, Event, Note, TrialDecided, TrialEnded, TrialStarted, event_data, finite
from dialin.lifecycle import TrialState

MOST_DATA_BYTES = 1 << 16  # of an event, as JSON; longer ones have their texts cut
TEXT_CHARACTERS = 500  # at most, of such a text
_SERVED = (TrialStarted, EpochReported, TrialDecided, TrialEnded, Note)
_NOT_SERVED = ("kind", "metrics", "tags")


def served_data(event: Event, further: Sequence[str] = ()) -> dict[str, Any] | None:
    """The fields of an event as clients receive them: times are in seconds since 1970, and texts are cut where there
    is too much to show. None for an event that only concerns the recorder.

    `further`: the names of what counts beside the study's first metric; a report has their values as `others`.
    """
    if not isinstance(event, _SERVED) or (isinstance(event, TrialEnded) and event.state not in list(TrialState)):
        return None
    data = {name: value for name, value in event_data(event).items() if name not in _NOT_SERVED}
    data["time"] = event.time / 1000
    data |= _others(event, further)
    if len(json.dumps(data)) <= MOST_DATA_BYTES:
        return data
    bounded: dict[str, Any] = json.loads(bounded_json(data, MOST_DATA_BYTES, (TEXT_CHARACTERS,)))
    return bounded


def _others(event: Event, further: Sequence[str]) -> dict[str, Any]:
    """What counts of a report beside its value; nothing for one metric without constraints."""
    if not further or not isinstance(event, EpochReported):
        return {}
    return {"others": {name: finite(event.metrics[name]) for name in further if name in event.metrics}}
