"""What a way to search looks like to `search_quality.py`. A new one is a module beside this one that gives SEARCHERS:
name -> a function of a Problem and a seed that makes one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dialin.specification import searched
from dialin.specification.domains import Scalar, holds
from dialin.specification.study_spec import StudySpec


@dataclass(frozen=True)
class Problem:
    """A space, and how long a trial is at most. The metric is to be maximized. `spec` has the space as domains."""

    spec: StudySpec
    epochs: int
    prior: Mapping[str, Scalar] | None = None
    """A value for each knob about which a search is told to expect good configurations; None: it is told nothing."""


@dataclass(frozen=True)
class Asked:
    """A trial to train from epoch `epochs_done` on. `key` tells trials apart, and is the same for one that goes on."""

    key: int
    params: Mapping[str, Any]
    epochs_done: int = 0


def existing(problem: Problem, params: Mapping[str, Any]) -> dict[str, Any]:
    """Of a value for every knob those of the knobs that exist: for searches that know no conditions."""
    found: dict[str, Any] = {}
    for name in searched(problem.spec):
        if holds(problem.spec.space[name].when, found):
            found[name] = params[name]
    return found


class Searcher(Protocol):
    def ask(self) -> Asked | None:
        """What a free worker should do; None: nothing now."""

    def report(self, key: int, epoch: int, value: float) -> bool:
        """Take in a value; whether the worker is free again. The last epoch frees it whatever is said."""
