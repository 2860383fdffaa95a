"""What a configuration promises with several metrics: expected hypervolume improvement, or that of random scalings; and
the probability that it meets the constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import log_ndtr, ndtr

from dialin.search.models.encoding import Array
from dialin.search.pareto import fronts_of

BEYOND = 0.1
"""The reference point lies so much of the front's range beyond its worst values, in each metric: the ends of the front
then count for something."""
AUGMENTED = 0.05
"""The weight of the sum in the augmented Chebyshev scaling, as in ParEGO."""
DRAWS = 64
"""Draws of the posterior for an expectation that has no closed form."""
TINY = 1e-300


def expected_gain(mean: Array, deviation: Array, levels: Array) -> Array:
    """(n, levels) The expectation of max(0, value - level) of normal values (n,)."""
    z = (mean[:, None] - levels[None]) / deviation[:, None]
    gain: Array = deviation[:, None] * (z * ndtr(z) + np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))
    return gain


def expected_hypervolume_improvement(means: Array, deviations: Array, front: Array, reference: Array) -> Array:
    """(n,) The expected growth of the hypervolume by one more point, with two metrics, exactly.

    `means`, `deviations` (n, 2): of independent normal values, larger is better; `front` (k, 2): points none of which
    dominates another; `reference` (2,). The plane is cut into strips along the first metric, in each of which a value
    gains over one level of the second; so the expectation is a sum of products (Emmerich et al. 2011, Hypervolume-based
    expected improvement: monotonicity properties and exact computation; in this form Yang et al. 2019).
    """
    front = front[(front > reference).all(1)]
    front = front[np.argsort(front[:, 0])]
    edges = np.concatenate([[reference[0]], front[:, 0]])
    levels = np.concatenate([front[:, 1], [reference[1]]])
    beyond = expected_gain(means[:, 0], deviations[:, 0], edges)
    widths = beyond - np.hstack([beyond[:, 1:], np.zeros((len(means), 1))])
    improvement: Array = (widths * expected_gain(means[:, 1], deviations[:, 1], levels)).sum(1)
    return improvement


def scaled_improvement(
    means: Array, deviations: Array, front: Array, weights: Array, generator: np.random.Generator
) -> Array:
    """(n,) The expected improvement of an augmented Chebyshev scaling with these weights (m,), for any number of
    metrics, by draws (Knowles 2006, ParEGO; with a model a metric instead of one of the scaled value)."""
    best, worst = front.max(0), front.min(0)
    width = np.maximum(best - worst, 1e-9)

    def scaled(values: Array) -> Array:
        losses = weights * (best - values) / width
        found: Array = -(losses.max(-1) + AUGMENTED * losses.sum(-1))
        return found

    incumbent = float(scaled(front).max())
    draws = generator.normal(size=(DRAWS, means.shape[1]))
    values = means[:, None] + deviations[:, None] * draws[None]
    improvement: Array = np.maximum(scaled(values) - incumbent, 0.0).mean(1)
    return improvement


def log_probability_within(mean: Array, deviation: Array, low: float, high: float) -> Array:
    """(n,) The logarithm of the probability that normal values lie between two bounds; one of them may be infinite."""
    if math.isinf(low):
        below: Array = log_ndtr((high - mean) / deviation)
        return below
    if math.isinf(high):
        above: Array = log_ndtr((mean - low) / deviation)
        return above
    inside: Array = np.log(np.maximum(ndtr((high - mean) / deviation) - ndtr((low - mean) / deviation), TINY))
    return inside


def non_dominated(values: Array) -> Array:
    """(k, m) The different points of (n, m) that none dominates."""
    if not len(values):
        return values
    return np.unique(values[fronts_of(values) == 0], axis=0)


def reference_of(front: Array, others: Sequence[Array]) -> Array:
    """(m,) The point from which the hypervolume counts: a little beyond the worst values of the front. Of a front with
    one point, whose range is nothing, beyond that of all trials `others`."""
    best, worst = front.max(0), front.min(0)
    width = best - worst
    if len(others):
        spread = np.asarray(others).std(0)
        width = np.where(width > 0, width, spread)
    reference: Array = worst - BEYOND * np.maximum(width, 1e-6)
    return reference
