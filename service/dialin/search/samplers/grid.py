"""Grid search."""

from __future__ import annotations

from collections.abc import Sequence, Set

from dialin.planning.plan import Plan
from dialin.search.models.encoding import Chosen, Encoding, Key
from dialin.search.records import Observation, Observations
from dialin.search.samplers.base import Sampler


class GridSampler(Sampler):
    """Every combination of a finite space in turn, the last knob fastest. After the last one it begins again: the
    trials have other seeds then."""

    repeats = True

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        self._combinations = list(encoding.all())

    def suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int = 0) -> Chosen:
        """The combination at the number's place; `tried` and `attempt` make no difference."""
        return self._combinations[number % len(self._combinations)]
