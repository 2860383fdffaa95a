"""What a sampler is."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Protocol

from dialin.search.models.encoding import Chosen, Key
from dialin.search.records import Observations


class Sampler(Protocol):
    """Suggests the searched knobs of one trial after another, given every report so far.

    It is made by calling it with the plan, the encoding of the space and the trials of finished studies to learn from.
    One thread at a time calls it. A suggestion must depend on nothing but these, the study's seed and the arguments of
    the call, so that a study that was restarted continues as it would have.
    """

    repeats: bool = False
    """Whether a configuration may be suggested again, to be trained with another seed."""

    def suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int = 0) -> Chosen:
        """The values of the searched knobs of trial `number` that exist in this configuration, their conditions obeyed.

        `observations`: the trials before it, by number. `tried`: the keys of their configurations. `attempt`: counts
        from 0 the suggestions for this trial that were refused because their key is in `tried`.
        """
        ...

    def suggest_batch(self, first: Chosen, count: int) -> Iterable[Chosen]:
        """Up to `count` further suggestions for the trials after the one that `suggest` was called for last and that
        gets the configuration `first`. A sampler that has no faster way than `suggest` gives none."""
        return ()
