"""Random search."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.models.encoding import Chosen, Encoding, Key
from dialin.search.records import Observation, Observations
from dialin.search.samplers.base import Sampler


class RandomSampler(Sampler):
    """Draws every knob uniformly: a range on its own scale, linear or logarithmic, and every value of a choice alike.

    Bergstra and Bengio 2012, Random search for hyper-parameter optimization.
    """

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        self._seed, self._encoding = plan.spec.search.seed, encoding

    def suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int = 0) -> Chosen:
        """A point of the unit cube, drawn from the seed, the number and the attempt."""
        generator = np.random.default_rng([seed_of_trial(self._seed, number), attempt])
        return self._encoding.decode(generator.random(len(self._encoding.names)))
