"""Looks at the test split: evaluations of a trial's model on it, at most one for each trial.

A study looks once, when it ends, at its best trial. A study that is extended looks again only when another trial has
become the best. A look informs the person who extends the study, and so weakens the score that the next look gives;
therefore looks are counted, and the count is shown with every test score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """One evaluation on the test split."""

    trial: int
    """The number of the trial whose model was evaluated."""
    values: Mapping[str, float]
    """The metrics of its best epoch's weights."""

    def to_data(self) -> dict[str, Any]:
        """The look as `looks_of` reads it back."""
        return {"trial": self.trial, "values": dict(self.values)}


def looks_of(summary: Mapping[str, Any]) -> tuple[Look, ...]:
    """The looks in a study's stored summary, the first one first.

    A summary of an older version has one test score, that of the trial that was the best when it was written; earlier
    looks are not known. A score is left out when its trial is not known.
    """
    if "test_looks" in summary:
        return tuple(Look(int(look["trial"]), look["values"]) for look in summary["test_looks"])
    test, trial = summary.get("test"), (summary.get("best") or {}).get("trial")
    return (Look(int(trial), test),) if test and trial is not None else ()


def look_at(looks: Sequence[Look], trial: int | None) -> Look | None:
    """The look at that trial's model; None when there was none."""
    return next((look for look in looks if look.trial == trial), None)


def count_text(looks: Sequence[Look], trial: int) -> str:
    """Which look the one at `trial` was, and what the earlier ones saw: "look 2; look 1 was 0.967 for trial 11"."""
    place = next(index for index, look in enumerate(looks) if look.trial == trial)
    if len(looks) == 1:
        return "the only look"
    others = (
        f"look {index + 1} was {_score(look)} for trial {look.trial}"
        for index, look in enumerate(looks)
        if index != place
    )
    return "; ".join([f"look {place + 1}", *others])


def _score(look: Look) -> str:
    name, value = next(iter(look.values.items()), ("nothing", 0.0))
    value, name = (look.values["accuracy"], "") if "accuracy" in look.values else (value, f" ({name})")
    return f"{value:.4g}{name}"
