"""The points at which an acquisition function is evaluated: far ones, those around good trials, and local steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dialin.search.models.encoding import Array, Encoding
from dialin.search.prior import SearchPrior

FAR_CANDIDATES = 600
"""Points drawn from the whole space; half of them from the prior, where there is one."""
AROUND_A_LEADER = 60
"""Candidates around each leader, for each of the two widths."""
LEADER_WIDTHS = (0.05, 0.15)
"""Standard deviations of the steps from a leader, in the unit cube."""
LEADER_MUTATED = 0.5
"""Fraction of the coordinates that are changed in such a step."""

SEARCH_ROUNDS = 3
"""Rounds of the local search from the best candidates; the width is halved after each. Measured: regret 0.126 to 0.075
after 50 trainings against none; more rounds did not pay."""
SEARCH_STARTS = 8
"""Points that each round starts from."""
SEARCH_STEPS = 20
"""New points from each of these."""
SEARCH_WIDTH = 0.1
"""Standard deviation of the steps of the first round, in the unit cube."""
SEARCH_MUTATED = 0.4
"""Fraction of the coordinates that are changed in such a step."""


class Candidates:
    """Draws candidates of one space."""

    def __init__(self, encoding: Encoding, prior: SearchPrior) -> None:
        self._encoding, self._prior = encoding, prior

    def far(self, trusts_prior: bool, generator: np.random.Generator) -> Array:
        """(n, knobs) Points all over the space, half of them from the prior where that is trusted."""
        dimensions = len(self._encoding.names)
        if not trusts_prior:
            return generator.random((FAR_CANDIDATES, dimensions))
        half = FAR_CANDIDATES // 2
        return np.concatenate([generator.random((half, dimensions)), self._prior.draw(half, generator)])

    def around(self, leaders: Sequence[Array], generator: np.random.Generator) -> Array:
        """(n, knobs) Points around each leader (knobs,)."""
        parts = [
            self.mutate(np.repeat(leader[None], AROUND_A_LEADER, 0), width, LEADER_MUTATED, generator)
            for leader in leaders
            for width in LEADER_WIDTHS
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self._encoding.names)))

    def local_search(
        self, points: Array, acquisition: Callable[[Array], Array], generator: np.random.Generator
    ) -> Array:
        """(n, knobs) The points after a few rounds of ever smaller steps from those with the greatest acquisition
        values, the best first."""
        width = SEARCH_WIDTH
        values = acquisition(points)
        for _ in range(SEARCH_ROUNDS):
            order = np.argsort(-values, kind="stable")[:SEARCH_STARTS]
            mutated = self.mutate(np.repeat(points[order], SEARCH_STEPS, 0), width, SEARCH_MUTATED, generator)
            points = np.concatenate([points[order], mutated])
            values = np.concatenate([values[order], acquisition(mutated)])
            width /= 2
        return points[np.argsort(-values, kind="stable")]

    def mutate(self, points: Array, width: float, fraction: float, generator: np.random.Generator) -> Array:
        """Each point with about `fraction` of its coordinates changed: by a normal step of a range, drawn again for a
        choice."""
        steps = points + generator.normal(0.0, width, points.shape)
        drawn = generator.random(points.shape)
        new = np.where(self._encoding.choices, drawn, np.clip(steps, 0.0, 1.0))
        return np.where(generator.random(points.shape) < fraction, new, points)
