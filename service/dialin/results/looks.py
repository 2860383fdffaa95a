"""Looks at the test split: each says at which trial's model, and none is taken twice at the same trial.

A study looks once, at the best trial of its end. One that was extended looks again only when another trial has become
the best; each look informs the person who extends, so they are counted and the count is shown with every test score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Look:
    """The metrics of one trial's best weights on the test split."""

    trial: int
    values: Mapping[str, float]

    def to_data(self) -> dict[str, Any]:
        return {"trial": self.trial, "values": dict(self.values)}


def looks_of(summary: Mapping[str, Any]) -> tuple[Look, ...]:
    """The looks that a study's summary tells of, the first one first.

    Summaries of older versions have one test score, of the trial that was the best when they were written; looks before
    that one are not known. A score whose trial cannot be known is left out.
    """
    if "test_looks" in summary:
        return tuple(Look(int(look["trial"]), look["values"]) for look in summary["test_looks"])
    test, trial = summary.get("test"), (summary.get("best") or {}).get("trial")
    return (Look(int(trial), test),) if test and trial is not None else ()


def look_at(looks: Sequence[Look], trial: int | None) -> Look | None:
    """The look at that trial's model, None when there was none."""
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
