"""Trials stored by versions before a decision was structured. The only place where a sentence is read back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dialin.lifecycle import TrialState
from dialin.search.decision import Cause, Decision

# The attributes in which those versions stored the end of a trial.
REASON, END, BY_ASHA, EARLY = (f"dialin:{key}" for key in ("reason", "end", "by_asha", "early"))

_SENTENCES: tuple[tuple[Cause, re.Pattern[str]], ...] = (
    ("rung_rank", re.compile(r"\bis place (?P<rank>\d+) of (?P<of>\d+) at rung (?P<rung>\d+), where (?P<quota>\d+)")),
    ("rung_cutoff", re.compile(r"\bis (?:below|above) \S+, the cutoff of rung (?P<rung>\d+) over (?P<of>\d+)")),
    ("not_finite", re.compile(r"^(?P<metric>\S+) was (?P<value>nan|inf|-inf) after epoch (?P<epoch>\d+)$")),
    ("no_finite_value", re.compile(r"^no finite value was reported$")),
    ("all_epochs", re.compile(r"^trained all (?P<epoch>\d+) epochs$")),
    ("target_reached", re.compile(r"^reached the target (?P<cutoff>\S+) after epoch (?P<epoch>\d+)$")),
    ("study_ended", re.compile(r"^the study ended: (?P<detail>.*)$", re.DOTALL)),
)


def decision_of_old_row(state: TrialState, attributes: Mapping[str, Any]) -> Decision:
    """The decision that ended a trial, of an old row's attributes. Its text is the sentence that was stored; its cause
    is "unknown" where the sentence is none of those that the versions up to commit 9fc48be wrote."""
    sentence = str(attributes.get(REASON, ""))
    decision = Decision.of_state(state)
    if state is TrialState.FAILED:
        return Decision(decision.action, "exception", detail=sentence)
    if attributes.get(EARLY):
        return Decision(decision.action, "no_more_epochs", detail=sentence)
    for cause, pattern in _SENTENCES:
        if (found := pattern.search(sentence)) is not None:
            if cause == "rung_rank" and attributes.get(BY_ASHA) is False:
                cause = "study_ended"  # it could have been promoted, had the study gone on
            numbers = {name: _number(name, text) for name, text in found.groupdict().items()}
            return Decision.from_data({"action": decision.action, "cause": cause, **numbers, "sentence": sentence})
    return Decision.of_state(state, sentence)


def _number(name: str, text: str) -> object:
    return int(text) if name in ("rank", "of", "rung", "quota", "epoch") else text
