"""The configuration of the next trial: those that the specification enqueues, then the sampler's, none twice."""

from __future__ import annotations

from collections.abc import Sequence, Set

import numpy as np

from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.models.encoding import Chosen, Encoding, Key
from dialin.search.records import Observation, Observations
from dialin.search.samplers import make_sampler
from dialin.specification import active_params, sampler_of, searched
from dialin.specification.domains import holds

ATTEMPTS = 20
"""Suggestions asked of the sampler for one trial, before any configuration that was not tried yet is taken."""
MOST_COUNTED = 4096
"""A finite space of at most so many configurations is counted, and known to be exhausted when all have been tried."""
DRAWS = 1000
"""Random configurations of a larger space that are looked at for one that was not tried yet."""


class Suggester:
    """Suggests the configuration of each new trial of one study.

    Reproducible: the suggestion for trial `number` depends on the study's seed, the number and the observations before
    it, not on how often the process was restarted. Not thread safe.

    `others`: trials of finished studies; those that are configurations of this space are given to the sampler.
    """

    def __init__(self, plan: Plan, others: Sequence[Observation] = ()) -> None:
        self._spec = plan.spec
        self._names = searched(plan.spec)
        self.encoding = Encoding(plan.spec, plan.calibration)
        usable = [one for one in others if self.encoding.contains(one.params)]
        self._sampler = make_sampler(sampler_of(plan.spec), plan, self.encoding, usable)
        self._size = self.encoding.size(MOST_COUNTED)
        self._keys: dict[int, Key] = {}

    def suggest(self, number: int, observations: Observations) -> Chosen | None:
        """The searched knobs of trial `number`; None: every configuration of the space has been tried."""
        if self._sampler.repeats:
            return self._sampler.suggest(number, observations, frozenset())
        for other, observation in observations.items():
            if other not in self._keys:
                self._keys[other] = self.encoding.key(observation.params)
        tried = set(self._keys.values())
        if self._size is not None and len(tried) >= self._size:
            return None
        if number < len(self._spec.search.enqueue):
            chosen = self._enqueued(number, observations, tried)
            if self.encoding.key_of(chosen) not in tried:
                return chosen
        return self._sampled(number, observations, tried)

    def suggest_batch(self, number: int, observations: Observations, count: int) -> list[Chosen | None]:
        """The suggestions for trial `number` and the next ones, at least one and at most `count`.

        The first is what `suggest` gives. The others are those that the sampler makes faster than one by one; a sampler
        that has no faster way gives none.
        """
        first = self.suggest(number, observations)
        if first is None or count == 1 or number < len(self._spec.search.enqueue):
            return [first]
        tried = {*self._keys.values(), self.encoding.key_of(first)}
        batch: list[Chosen | None] = [first]
        for chosen in self._sampler.suggest_batch(first, count - 1):
            key = self.encoding.key_of(chosen)
            if key not in tried:
                tried.add(key)
                batch.append(chosen)
        return batch

    def _enqueued(self, number: int, observations: Observations, tried: Set[Key]) -> Chosen:
        """An enqueued configuration; the sampler suggests the knobs that it does not name."""
        wanted = self._spec.search.enqueue[number]
        suggested = self._sampler.suggest(number, observations, tried)
        chosen: Chosen = {}
        for name in self._names:
            if holds(self._spec.space[name].when, active_params(self._spec, chosen)):
                # A condition that only the enqueued value meets can bring in a knob that the suggestion does not have.
                middle = self.encoding.value_at(name, 0.5, chosen)
                chosen[name] = wanted.get(name, suggested.get(name, middle))
        return chosen

    def _sampled(self, number: int, observations: Observations, tried: Set[Key]) -> Chosen | None:
        """The sampler's first suggestion that was not tried yet, else any such configuration; None where there is
        none."""
        for attempt in range(ATTEMPTS):
            chosen = self._sampler.suggest(number, observations, tried, attempt)
            if self.encoding.key_of(chosen) not in tried:
                return chosen
        return self._untried(number, tried)

    def _untried(self, number: int, tried: Set[Key]) -> Chosen | None:
        """Any configuration that was not tried yet, where the sampler finds none; None where there is none."""
        generator = np.random.default_rng(seed_of_trial(self._spec.search.seed, number))
        if self._size is not None:
            left = [chosen for chosen in self.encoding.all() if self.encoding.key_of(chosen) not in tried]
            return left[int(generator.integers(len(left)))] if left else None
        for _ in range(DRAWS):
            chosen = self.encoding.decode(generator.random(len(self._names)))
            if self.encoding.key_of(chosen) not in tried:
                return chosen
        return None
