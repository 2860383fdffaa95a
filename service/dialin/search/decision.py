"""Why a trial trains on, pauses or ends, by fields. The sentence that people read is made of them, and never parsed."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from dialin.lifecycle import TrialState
from dialin.texts import mask_numbers, one_line

Action = Literal["continue", "pause", "complete", "stop", "diverge", "fail"]
"""The trial trains on, gives its worker back until it is promoted, or ends in one of four ways."""

Cause = Literal[
    "between_rungs",  # continue: there is no rung at this epoch
    "reported_before",  # continue: the epoch was reported before the trial went on from an older checkpoint
    "rung_cutoff",  # continue or stop: stopping ASHA compared the value with the cutoff of the rung
    "rung_rank",  # continue, pause or stop: promoting ASHA ranked the value among those of the rung
    "all_epochs",  # complete: the trial has trained for the whole budget
    "target_reached",  # complete: the value is as good as `budget.target`
    "no_more_epochs",  # complete: the objective itself says that it has no more epochs to train
    "not_finite",  # diverge: a metric was NaN or infinite
    "no_finite_value",  # diverge: the trial ended without one finite value
    "finding",  # diverge: the doctor saw a fatal fault of training
    "study_ended",  # stop: a limit of the study was reached while the trial trained or was paused
    "interrupted",  # pause: the driver of the study was stopped
    "exception",  # fail: the training raised
    "worker_lost",  # fail: workers died under the trial again and again
    "unreadable",  # fail: the stored attributes of the trial cannot be read
    "unknown",  # any: an older version stored a sentence only, or a newer version a cause that this one does not know
]

_STATES: Mapping[Action, TrialState] = {
    "continue": TrialState.RUNNING,
    "pause": TrialState.WAITING,
    "complete": TrialState.COMPLETE,
    "stop": TrialState.STOPPED,
    "diverge": TrialState.DIVERGED,
    "fail": TrialState.FAILED,
}
_ACTIONS = {state: action for action, state in _STATES.items()}
_CAUSES = frozenset(get_args(Cause))


@dataclass(frozen=True)
class Decision:
    """What happens to a trial after a report, or at its end, and why. `Study.report` returns one; `Study.tell` takes
    one that pauses or ends the trial and stores it with the trial.

    Only the fields that belong to `cause` are set; `text` reads them.
    """

    action: Action
    cause: Cause
    epoch: int | None = None
    """The epoch after which the decision was made, from 1."""
    metric: str = ""
    """The name of the metric that decided."""
    value: float | None = None
    """The value of that metric; it may be NaN or infinite."""
    rung: int | None = None
    """The epoch count at which ASHA compared."""
    rank: int | None = None
    """The trial's rank among the trials at the rung, from 1 for the best."""
    of: int | None = None
    """How many trials it was compared with (`rung_cutoff`), or ranked among, itself included (`rung_rank`)."""
    quota: int | None = None
    """How many of these trials may train beyond the rung."""
    cutoff: float | None = None
    """The value that was needed at the rung, or the target that was reached."""
    front: int | None = None
    """With several metrics or constraints: the trial's front among the trials at the rung, from 1 for those that none
    dominates. A trial that violates a constraint has no front."""
    fronts: int | None = None
    """How many fronts there are."""
    others: Mapping[str, float] | None = None
    """What decided beside `value`, by name: the further metrics, and the quantities that violate a constraint."""
    violated: str = ""
    """The names of the constraints that the trial violates, joined by ", "."""
    finding: str = ""
    """The code of the doctor's finding."""
    detail: str = ""
    """A text that comes from elsewhere: an exception, the finding in words, the limit that ended the study."""
    sentence: str = ""
    """The whole sentence, of a trial of an older version, which stored nothing else."""

    @property
    def state(self) -> TrialState:
        """The state of the trial once the decision has been carried out."""
        return _STATES[self.action]

    @property
    def continues(self) -> bool:
        """Whether the trial trains on; otherwise it gives its worker back."""
        return self.action == "continue"

    @property
    def is_early_stop(self) -> bool:
        """Whether ASHA ended the trial, not the trial itself or the end of the study."""
        return self.action == "stop" and self.cause in ("rung_cutoff", "rung_rank")

    def text(self) -> str:
        """The decision as one sentence for people, on one line."""
        if self.sentence:
            return one_line(self.sentence)
        if self.cause == "rung_cutoff":
            return _cutoff_text(self)
        if self.rank is not None:
            return _rank_text(self)
        return one_line(_SENTENCES.get(self.cause, "{d.detail}").format(d=self))

    def summary(self) -> str:
        """The decision without what differs from trial to trial: equal for trials that ended alike."""
        if self.cause in _SUMMARIES:
            return _SUMMARIES[self.cause].format(d=self)
        if self.cause == "study_ended" and self.rung is not None:
            return f"the study ended while the trial was paused at rung {self.rung}"
        return mask_numbers(self.text()) or "no reason given"

    def to_data(self) -> dict[str, Any]:
        """The fields that are set, as JSON knows them: a number that is not finite is the text "nan", "inf" or
        "-inf"."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: _json_value(value) for name, value in found.items() if value not in (None, "")}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Decision:
        """The inverse of `to_data`. Keys that this version does not know are dropped, a cause that it does not know is
        "unknown". Raises ValueError for an unknown action, and TypeError for data of another shape."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        if known.get("action") not in _STATES:
            raise ValueError(f"a decision's action is one of {', '.join(_STATES)}, not {known.get('action')!r}")
        if known.get("cause") not in _CAUSES:
            known |= {"cause": "unknown", "detail": known.get("detail") or str(known.get("cause", ""))}
        for name in ("value", "cutoff"):
            if name in known:
                known[name] = float(known[name])
        if "others" in known:
            known["others"] = {name: float(value) for name, value in known["others"].items()}
        return cls(**known)

    @classmethod
    def of_state(cls, state: TrialState, detail: str = "") -> Decision:
        """The decision of a trial of which only the state and a sentence are known."""
        return cls(_ACTIONS[state], "unknown", detail=detail)


def json_numbers(values: Mapping[str, float]) -> dict[str, object]:
    """Numbers by name as JSON knows them; `float` reads each back."""
    return {name: _json_value(value) for name, value in values.items()}


def _json_value(value: object) -> object:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# The sentence of each cause, of the fields of a decision `d`; the two causes of a rung have functions below.
_SENTENCES: Mapping[Cause, str] = {
    "between_rungs": "between rungs",
    "reported_before": "epoch {d.epoch} was reported before",
    "all_epochs": "trained all {d.epoch} epochs",
    "target_reached": "reached the target {d.cutoff:g} after epoch {d.epoch}",
    "no_more_epochs": "{d.detail}",
    "not_finite": "{d.metric} was {d.value} after epoch {d.epoch}",
    "no_finite_value": "no finite value was reported",
    "finding": "{d.detail}",
    "study_ended": "the study ended: {d.detail}",
    "interrupted": "the study was interrupted",
    "exception": "{d.detail}",
    "worker_lost": "{d.detail}",
    "unreadable": "the stored attributes of the trial cannot be read: {d.detail}",
    "unknown": "{d.detail}",
}
# The sentence of `_placed_text`, with what may stand before it.
_PLACED = re.compile(
    r"((?:^|.*; )(?:promoted: |paused: )?)[^;]+?: "
    r"(?:the constraints? on .+? (?:is|are) violated, )?((?:front \d+ of \d+, )?rank \d+ of \d+ at rung \d+)"
    r", where the best \d+ continue"
)
# The same without what differs from trial to trial, where more than numbers does.
_SUMMARIES: Mapping[Cause, str] = {
    "rung_cutoff": "worse than the cutoff of rung {d.rung}",
    "rung_rank": "not among the best at rung {d.rung}",
    "all_epochs": "trained all {d.epoch} epochs",
    "target_reached": "reached the target {d.cutoff:g}",
    "not_finite": "{d.metric} was {d.value}",
    "finding": "{d.finding}",
}


def _cutoff_text(decision: Decision) -> str:
    if decision.continues:
        return f"passed rung {decision.rung}"
    value, cutoff = decision.value or 0.0, decision.cutoff or 0.0
    side = "below" if value < cutoff else "above"
    where = f"the cutoff of rung {decision.rung} over {decision.of} trials"
    return f"{decision.metric} {value:.4g} is {side} {cutoff:.4g}, {where}"


def _rank_text(decision: Decision) -> str:
    start = {"continue": "promoted: ", "pause": "paused: "}.get(decision.action, "")
    value = math.nan if decision.value is None else decision.value
    ranked = f"{decision.metric} {value:.4g} ranks {decision.rank} of {decision.of} at rung {decision.rung}"
    if decision.fronts is not None:
        ranked = _placed_text(decision, value)
    end = f"; {decision.detail}" if decision.detail else ""
    return f"{start}{ranked}, where the best {decision.quota} continue{end}"


def _placed_text(decision: Decision, value: float) -> str:
    """The rank of a trial with several metrics, or under constraints."""
    measured = {decision.metric: value, **(decision.others or {})}
    shown = ", ".join(f"{name} {number:.4g}" for name, number in measured.items())
    place = f"rank {decision.rank} of {decision.of} at rung {decision.rung}"
    if decision.violated:
        return f"{shown}: {_constraints_text(decision.violated)} violated, {place}"
    return f"{shown}: front {decision.front} of {decision.fronts}, {place}"


def in_short(sentence: str) -> str:
    """A sentence for a table that has a column for each value, and one for the constraints that are violated: of a rung
    with several metrics "front 1 of 2, rank 2 of 3 at rung 1". Any other sentence stays as it is."""
    return _PLACED.sub(r"\1\2", sentence, count=1)


def _constraints_text(names: str) -> str:
    is_one = ", " not in names
    return f"the {'constraint' if is_one else 'constraints'} on {names} {'is' if is_one else 'are'}"
