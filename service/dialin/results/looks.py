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
    """Number of the trial whose model was evaluated."""
    values: Mapping[str, float]
    """Metrics of the weights after the trial's best epoch."""

    def to_data(self) -> dict[str, Any]:
        """Return the look in the form that `looks_of` reads."""
        return {"trial": self.trial, "values": dict(self.values)}


def looks_of(summary: Mapping[str, Any]) -> tuple[Look, ...]:
    """Return the looks in a study's stored summary, oldest first.

    A summary of an older version holds only the test score of the trial that was the best then; earlier looks are
    unknown. A score whose trial is unknown is left out.
    """
    if "test_looks" in summary:
        return tuple(Look(int(look["trial"]), look["values"]) for look in summary["test_looks"])
    test, trial = summary.get("test"), (summary.get("best") or {}).get("trial")
    return (Look(int(trial), test),) if test and trial is not None else ()


def look_at(looks: Sequence[Look], trial: int | None) -> Look | None:
    """Return the look at this trial's model; None when there was none."""
    return next((look for look in looks if look.trial == trial), None)


def count_text(looks: Sequence[Look], trial: int) -> str:
    """Return which look the one at `trial` was, with the other scores: "look 2; look 1 was 0.967 for trial 11"."""
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
