"""The probability that a configuration trains without failing, from the trials that failed, diverged, or did neither.

A trial that runs out of memory has no value, and one that diverges has none that says by how much its learning rate was
too large. A surrogate of the values learns little from either, so a sampler may suggest the same fault again and again.
This model learns it from the outcomes alone, as in constrained Bayesian optimization (Gelbart, Snoek and Adams 2014;
Gardner et al. 2014): a sampler multiplies its acquisition function by `Feasibility.probability`.

Two parts, chosen by the log loss on simulated faults and by how many trials of simulated searches die of one cause
(search/README.md):

1. For each kind of failure a Bayesian logistic regression on the features, by Laplace's approximation (MacKay 1992;
   Bishop 2006, section 4.5), with a variance of its own for each weight that is estimated from the outcomes (automatic
   relevance determination: MacKay 1994, Tipping 2001). Most faults are thresholds: on the learning rate, on a branch,
   or on a product such as width times batch size, which is a sum on the log scale. Divergence and failures are fitted
   apart, since their causes differ.
2. A kernel around the trials corrects what the regression got wrong: the Beta posterior mean of the outcomes, weighted
   by distance, with `PRIOR_TRIALS` trials at the regression's probability as its prior (continuous correlated Beta
   processes: Goetschalckx, Poupart and Hoey 2011). The relevance of each feature to the failures is its scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.special import expit, log_expit

from dialin.lifecycle import TrialState
from dialin.search.models.gaussian_process import Array
from dialin.search.records import Observation

OK, DIVERGED, FAILED = 0, 1, 2
"""The outcomes of a trial. Divergence and failures are different kinds, because their causes differ."""

PRIOR_LOGIT, PRIOR_LOGIT_VARIANCE = 3.0, 2.0
"""The normal prior on the logit of P(ok) at the mean of the features: 0.95, and 0.54 to 0.997 within two deviations."""
FIRST_VARIANCE = 9.0
"""Prior variance of a weight in the first round. Features differ by up to 1."""
SHAPE, SCALE = 1.0, 0.1
"""The inverse gamma prior on the variance of a weight, which takes the weights of irrelevant features to nearly 0."""
VARIANCE_BOUNDS = (0.05, 400.0)
ROUNDS = 3
"""Fits of the weights; the variances are estimated anew between two of them."""
FIRST_STEPS, STEPS, HALVINGS, TOLERANCE = 6, 2, 6, 2e-2
"""Newton steps of the first round and of later ones, which start from the round before; halvings of a step that does
not improve; and the largest change of a weight at the end of a round."""

PRIOR_TRIALS = 2.0
"""Weight of the regression in the Beta posterior, in trials at distance 0."""
KERNEL_WIDTH = 0.3
"""Standard deviation of the kernel, as a fraction of the typical distance between two trials."""
LEAST_RELEVANCE = 0.05
"""Weight of an irrelevant feature in the kernel's distance, as a fraction of the mean."""

MOST_FAILURES, MOST_OTHERS = 80, 120
"""Trials that are used, evenly over the study; the others count by their number. The cost is flat beyond them."""
LEAST = 0.02
"""The least probability: a region is never ruled out for good."""


def outcome_of(observation: Observation) -> int | None:
    """How a trial came out, for `Feasibility`: `OK`, `DIVERGED` or `FAILED`; None while it is not known.

    A trial that early stopping paused or ended trained without fault as far as it came. Not known are trials that run,
    and those that have reported nothing and have not failed: a trial whose worker died waits for another one, and fails
    only when its workers die again and again, as they do of a configuration that is too large for the memory.
    """
    match observation.state:
        case TrialState.FAILED:
            return FAILED
        case TrialState.DIVERGED:
            return DIVERGED
        case TrialState.RUNNING:
            return None
        case _:
            return OK if observation.values else None


class Feasibility:
    """The probability that a configuration neither fails nor diverges. Deterministic; never changes.

    `features` (n, d): the trials, in features that differ by at most about 1 and whose squared Euclidean distance is
    meaningful; `outcomes` (n,): `OK`, `DIVERGED` or `FAILED`. Raises ValueError for features that are not finite, and
    where the two do not have the same length.
    """

    def __init__(self, features: Array, outcomes: Sequence[int] | NDArray[np.int_]) -> None:
        kinds = np.asarray(outcomes, dtype=int)
        if features.ndim != 2 or len(features) != len(kinds):
            raise ValueError(f"there are features of shape {features.shape} for {len(kinds)} outcomes")
        if not np.isfinite(features).all():
            raise ValueError("the features of a trial are not finite numbers")
        self._regressions: list[_Regression] = []
        if not (kinds != OK).any():
            return
        x, kinds, counts = _thinned(features, kinds)
        for kind in np.unique(kinds[kinds != OK]):
            used = (kinds == OK) | (kinds == kind)
            self._regressions.append(_Regression(x[used], kinds[used] == OK, counts[used]))
        relevance = np.sum([one.relevance for one in self._regressions], axis=0)
        scales = np.sqrt(relevance / (relevance.mean() or 1.0) + LEAST_RELEVANCE)
        # The mean squared distance between two trials is twice the sum of the variances.
        typical = math.sqrt(max(1e-9, 2 * float((x * scales).var(axis=0).sum())))
        self._scales = scales / (KERNEL_WIDTH * typical)
        self._x = x * self._scales
        residuals = counts * ((kinds == OK) - self._regressed(x))
        self._sums = np.stack([residuals, counts], axis=1).astype(np.float32)

    def probability(self, features: Array) -> Array:
        """(m,) P(ok) of configurations (m, d), from `LEAST` to 1; exactly 1 everywhere while no trial has failed."""
        if not self._regressions:
            return np.ones(len(features))
        kernel = _kernel(features * self._scales, self._x)
        residual, near = (kernel @ self._sums).T
        regressed = self._regressed(features) + residual / (PRIOR_TRIALS + near)
        found: Array = LEAST + (1 - LEAST) * np.clip(regressed, 0.0, 1.0)
        return found

    def _regressed(self, features: Array) -> Array:
        """(m,) The probability by the regressions alone."""
        product: Array = np.prod([one.probability(features) for one in self._regressions], axis=0)
        return product


class _Regression:
    """Bayesian logistic regression of one kind of failure: `ok` (n,) on x (n, d), each trial `counts` (n,) times.

    `relevance` (d,): the squared weights.
    """

    def __init__(self, x: Array, ok: NDArray[np.bool_], counts: Array) -> None:
        self._centre = counts @ x / counts.sum()
        self._columns = x.shape[1] + 1
        design = self._design(x, np.float64)
        precision = np.full(self._columns, 1 / FIRST_VARIANCE)
        precision[-1] = 1 / PRIOR_LOGIT_VARIANCE
        prior = np.zeros(self._columns)
        prior[-1] = PRIOR_LOGIT
        weights = prior
        for round_number in range(ROUNDS):
            steps = STEPS if round_number else FIRST_STEPS
            weights, factor = _newton(design, np.where(ok, 1.0, -1.0), counts, weights, prior, precision, steps)
            inverse = solve_triangular(factor, np.eye(self._columns, dtype=np.float32), lower=True, check_finite=False)
            if round_number < ROUNDS - 1:
                # The mode of the variance given its posterior moments, as in expectation maximization.
                moments = weights**2 + np.einsum("ij,ij->j", inverse, inverse)
                variances = np.clip((moments + 2 * SCALE) / (1 + 2 * SHAPE), *VARIANCE_BOUNDS)
                precision[:-1] = 1 / variances[:-1]
        self._weights, self._inverse = weights.astype(np.float32), inverse
        self.relevance = weights[:-1] ** 2

    def probability(self, x: Array) -> Array:
        """(m,) P(ok) at x (m, d), the uncertainty of the weights integrated out (MacKay's approximation)."""
        design = self._design(x, np.float32)
        spread = design @ self._inverse.T
        variance = np.einsum("ij,ij->i", spread, spread)
        found: Array = expit(design @ self._weights / np.sqrt(1 + math.pi / 8 * variance))
        return found

    def _design(self, x: Array, precision: type[np.floating]) -> NDArray[Any]:
        design = np.ones((len(x), self._columns), dtype=precision)
        np.subtract(x, self._centre, out=design[:, :-1], casting="same_kind")
        return design


def _kernel(one: Array, two: Array) -> NDArray[np.float32]:
    """(n, m) exp(-d^2 / 2) of the distances d between the rows of (n, d) and (m, d). Single precision is enough for a
    weight, and one product makes the whole exponent, so that it takes a fraction of the time."""
    left = np.column_stack([one, -0.5 * (one * one).sum(axis=1), np.ones(len(one))]).astype(np.float32)
    right = np.column_stack([two, np.ones(len(two)), -0.5 * (two * two).sum(axis=1)]).astype(np.float32)
    exponent: NDArray[np.float32] = left @ right.T
    return np.exp(np.minimum(exponent, 0.0, out=exponent), out=exponent)


def _newton(
    design: Array, signs: Array, counts: Array, weights: Array, prior: Array, precision: Array, steps: int
) -> tuple[Array, Array]:
    """The weights at the maximum of the posterior density, and the lower Cholesky factor of its negative Hessian."""

    def density(at: Array) -> float:
        return float(counts @ log_expit(signs * (design @ at)) - 0.5 * precision @ (at - prior) ** 2)

    best = density(weights)
    single, diagonal = design.astype(np.float32), np.diag_indices(len(weights))
    for _ in range(steps):
        share = expit(design @ weights)
        # The direction of a step may be less precise than the gradient, and single precision halves its time.
        weighted = single * np.sqrt(counts * share * (1 - share)).astype(np.float32)[:, None]
        hessian = weighted.T @ weighted
        hessian[diagonal] += precision.astype(np.float32)
        gradient = design.T @ (counts * ((signs > 0) - share)) - precision * (weights - prior)
        factor = cho_factor(hessian, lower=True, check_finite=False)
        step = cho_solve(factor, gradient.astype(np.float32), check_finite=False).astype(float)
        # The full step can overshoot where most outcomes are certain already.
        for _ in range(HALVINGS):
            found = density(weights + step)
            if found >= best:
                weights, best = weights + step, found
                break
            step = step / 2
        if np.abs(step).max() < TOLERANCE:
            break
    return weights, factor[0]


def _thinned(x: Array, kinds: NDArray[np.int_]) -> tuple[Array, NDArray[np.int_], Array]:
    """At most `MOST_FAILURES` trials that failed and `MOST_OTHERS` others, each evenly over the study, with the number
    of trials that each stands for."""
    kept, counts = [], np.ones(len(x))
    for group, most in ((kinds != OK, MOST_FAILURES), (kinds == OK, MOST_OTHERS)):
        indices = np.flatnonzero(group)
        chosen = indices if len(indices) <= most else indices[np.linspace(0, len(indices) - 1, most).astype(int)]
        counts[chosen] = len(indices) / max(1, len(chosen))
        kept.append(chosen)
    order = np.sort(np.concatenate(kept))
    return x[order], kinds[order], counts[order]
