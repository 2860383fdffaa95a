"""What the samplers of the kind `gp` make every suggestion from, and the configurations that they draw at random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dialin.search.models.embedding import Embedding
from dialin.search.models.encoding import Array, Encoding
from dialin.search.models.feasibility import Feasibility, outcome_of
from dialin.search.prior import SearchPrior
from dialin.search.records import Observations

# "Measured" means: on the development tasks of LCBench, as README.md describes.

RANDOM_FRACTION = 0.15
"""Fraction of suggestions drawn at random, so that the model learns where its acquisition function does not look.
Measured: regret 0.226 to 0.184 after 5 trainings against none; 0.25 was no better."""
PRIOR_TRIALS = 3
"""The logarithm of the prior's density is added to that of the acquisition function with the weight of this number of
trials over the number of all trials, 1 at most (Hvarfner et al. 2022, piBO). Without it, and with 10, the search was as
good within the noise."""
ACCEPTED_DRAWS = 8
"""Draws at random that are made for one that the model of failures accepts, which it does with its probability."""


@dataclass(frozen=True)
class Round:
    """What one suggestion is made from."""

    trials: Array
    """(n, features) Every trial so far."""
    prior_weight: float
    """The weight of the prior's density; 0 where the prior is not trusted."""
    feasibility: Feasibility
    """The model of failures."""
    generator: np.random.Generator
    """Of the random part of the suggestion."""


class Draws:
    """Draws configurations of one space."""

    def __init__(self, encoding: Encoding, embedding: Embedding, prior: SearchPrior) -> None:
        self._encoding, self._embedding, self._prior = encoding, embedding, prior

    def begin(
        self, features: Array, observations: Observations, trusts_prior: bool, generator: np.random.Generator
    ) -> Round:
        """A new round. `features` (n, features): those of the observations, in their order."""
        outcomes = [outcome_of(one) for one in observations.values()]
        ended = [index for index, outcome in enumerate(outcomes) if outcome is not None]
        feasibility = Feasibility(features[ended], [outcome for outcome in outcomes if outcome is not None])
        weight = min(1.0, PRIOR_TRIALS / max(1, len(features))) if trusts_prior else 0.0
        return Round(features, weight, feasibility, generator)

    def point(self, current: Round) -> Array:
        """(knobs,) A point from the prior or, as often, from the whole space; where the prior is not trusted always
        from that."""
        generator = current.generator
        if current.prior_weight and generator.random() < 0.5:
            point = self._prior.draw(1, generator)[0]
        else:
            point = generator.random(len(self._encoding.names))
        return self.accepted(point, current)

    def accepted(self, point: Array, current: Round) -> Array:
        """(knobs,) The point, or another one where it is likely to fail."""
        points = np.vstack([point, current.generator.random((ACCEPTED_DRAWS - 1, len(point)))])
        features = self._embedding.features_of(self._encoding.columns(points), len(points))
        likely = current.feasibility.probability(features)
        accepted = current.generator.random(ACCEPTED_DRAWS) < likely
        found: Array = points[int(accepted.argmax() if accepted.any() else likely.argmax())]
        return found
