"""The acquisition function of Bayesian optimization, and where it is not to be trusted."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import erfcx, ndtr

from dialin.search.models.encoding import Array
from dialin.search.models.gaussian_process import squared_distances

CROWD_RADIUS = 0.1
"""Distance in feature space within which trials crowd each other."""
CROWD_SIZE = 3
"""With so many trials within that radius a point is not suggested: without the bound the model dwells on one summit.
Measured: regret 0.109 to 0.090 after 50 trainings against none."""
CROWD_CHECKED = 200
"""Points, those with the greatest acquisition values, that are checked for crowds."""


def log_expected_improvement(mean: Array, deviation: Array, incumbent: float) -> Array:
    """(n,) The logarithm of the expectation of max(0, value - incumbent) of normal values.

    Where the improvement itself is too small for a float, its logarithm still tells points apart (Ament et al. 2023,
    Unexpected improvements to expected improvement for Bayesian optimization, section 4.1).
    """
    z = (mean - incumbent) / deviation
    # Below -1 the two terms of the improvement nearly cancel; erfcx is the stable form of their ratio.
    low = np.minimum(z, -1.0)
    ratio = math.sqrt(math.pi / 2) * erfcx(-low / math.sqrt(2)) * -low
    far = -0.5 * low * low - 0.5 * math.log(2 * math.pi) + np.log1p(-np.minimum(ratio, 1 - 1e-12))
    high = np.maximum(z, -1.0)
    near = np.log(high * ndtr(high) + np.exp(-0.5 * high * high) / math.sqrt(2 * math.pi))
    result: Array = np.log(deviation) + np.where(z < -1.0, far, near)
    return result


def exclude_crowds(values: Array, features: Array, trials: Array, enough: int) -> None:
    """Set the acquisition function's values (n,) to -inf, in place, where trials crowd each other.

    `features` (n, features), `trials` (m, features). Only the points with the greatest values are checked, in small
    parts, until `enough` of them are free: distances to all trials are the costly part.
    """
    order, free = np.argsort(-values, kind="stable")[:CROWD_CHECKED], 0
    for start in range(0, len(order), 2 * enough):
        part = order[start : start + 2 * enough]
        is_crowded = (squared_distances(features[part], trials) < CROWD_RADIUS**2).sum(axis=1) >= CROWD_SIZE
        values[part[is_crowded]] = -np.inf
        free += int((~is_crowded).sum())
        if free >= enough:
            return
