"""The Gaussian process over the features of configurations and the epoch, fitted anew as a study grows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dialin.search.models.embedding import Embedding
from dialin.search.models.encoding import Array
from dialin.search.models.gaussian_process import GaussianProcess

# What has no source was chosen once, as a round number that costs little time, and was not tuned.

MOST_OBSERVATIONS = 250
"""Observations that a model is conditioned on; the time of a suggestion grows with their square."""
MOST_FITTED = 150
"""Observations, a random part of these, that the hyperparameters are fitted to; its time grows with their cube."""
FIRST_ITERATIONS, ITERATIONS = 40, 15
"""Iterations of L-BFGS-B for the first fit, and for later ones, which start from the fit before."""
REFIT_GROWTH = 1.15
"""The hyperparameters are fitted again when the number of trials has grown by this factor."""
EPOCH_SCALE = 0.7
"""Median of the prior on the length scale of the epoch's position, and of the mark of another study."""
TYPICAL_SQUARE = 2.0
"""The medians of the priors on the knobs' length scales are such that the squared distance of two random
configurations is this on the average: so they grow with the number of knobs that configurations have."""


class CurveModel(GaussianProcess):
    """The model of one space: a length scale a knob, one of the epoch and one of the mark of another study."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__(*_scales(embedding))
        self._fitted_at = 0  # trials that the hyperparameters were last fitted to

    def fit_if_grown(self, x: Array, y: Array, trials: int, generator: np.random.Generator) -> None:
        """Fit the hyperparameters to a part of x (n, features + 2) and y (n,), where the number of trials that these
        come from has grown enough since the last fit, or has fallen. Call `condition` before predicting."""
        if trials >= self._fitted_at * REFIT_GROWTH or trials < self._fitted_at:
            part = generator.permutation(len(y))[:MOST_FITTED]
            self.fit(x[part], y[part], ITERATIONS if self._fitted_at else FIRST_ITERATIONS)
            self._fitted_at = max(1, trials)


def at_full_length(features: Array) -> Array:
    """(n, features + 2) Features with the epoch of full length, and the mark of this study."""
    return np.hstack([features, np.tile([1.0, 0.0], (len(features), 1))])


def _scales(embedding: Embedding) -> tuple[NDArray[np.int_], Array]:
    """The groups of features that share a length scale, and the medians of the priors on the scales."""
    knobs = int(embedding.groups[-1]) + 1 if len(embedding.groups) else 0
    scale = (embedding.typical_square() / TYPICAL_SQUARE) ** 0.5 if knobs else 1.0
    groups = np.concatenate([embedding.groups, [knobs, knobs + 1]]).astype(int)
    return groups, np.array([*[scale] * knobs, EPOCH_SCALE, EPOCH_SCALE])
