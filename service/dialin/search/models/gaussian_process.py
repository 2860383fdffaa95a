"""Gaussian process regression with a Matern 5/2 kernel, one length scale a knob. numpy and scipy only.

Rasmussen and Williams 2006, chapters 2 and 5: the posterior by Cholesky factors, the hyperparameters at the maximum of
their posterior density, log-normal priors on them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize

Array = NDArray[np.float64]
# Features lie in the unit cube and targets have variance 1: that is the scale of what follows. None of it was tuned.
SCALE_BOUNDS, AMPLITUDE_BOUNDS, NOISE_BOUNDS = (0.05, 60.0), (0.05, 20.0), (1e-4, 0.5)
"""Bounds of the hyperparameters: length scales (units of a feature), amplitude and noise (variances)."""
LIKELY_NOISE = 1e-2
"""Median of the log-normal prior on the variance of the noise; the amplitude's is 1."""
PRIOR_WIDTH, NOISE_PRIOR_WIDTH = 1.0, 1.5
"""Standard deviations of these priors, in natural logarithms."""
JITTER = 1e-5
"""Variance added to the diagonal, so that the Cholesky factor exists when observations coincide."""


class GaussianProcess:
    """Gaussian process regression of standardized targets on features from 0 to 1.

    `groups` (features,): the length scale, counted from 0, that each feature shares with others: all features of a
    knob have one. `likely_scales` (scales,): the medians of the log-normal priors on the length scales.

    `fit` and `condition` raise ValueError for features or targets that are not finite, and change nothing then. Not
    thread safe.
    """

    def __init__(self, groups: NDArray[np.int_], likely_scales: Array) -> None:
        self._groups = groups
        # Logarithms of the length scales, the amplitude (a variance) and the variance of the noise.
        self._likely = np.log(np.array([*likely_scales, 1.0, LIKELY_NOISE]))
        self._theta = self._likely.copy()

    def fit(self, x: Array, y: Array, iterations: int) -> None:
        """Set the hyperparameters to the maximum of their posterior density given x (n, features) and y (n,), by at
        most so many iterations of L-BFGS-B from the present ones. Call `condition` before predicting."""
        _check_finite(x, y)
        squares = squares_by_group(x, self._groups)
        bounds = [*[SCALE_BOUNDS] * len(squares), AMPLITUDE_BOUNDS, NOISE_BOUNDS]
        found = minimize(
            _negative_log_posterior,
            self._theta,
            args=(squares, y, self._likely),
            jac=True,
            method="L-BFGS-B",
            bounds=[(math.log(low), math.log(high)) for low, high in bounds],
            options={"maxiter": iterations},
        )
        self._theta = found.x

    def condition(self, x: Array, y: Array, believed: Array | None = None) -> None:
        """Compute the posterior given x (n, features) and y (n,), in place of what was observed before.

        `believed` (k, features): points that count as observed too, with the means there. They change no mean, only the
        deviations, and so they cost one factorization less than to be predicted first and observed then.
        """
        _check_finite(x, y)
        amplitude, noise = np.exp(self._theta[-2]), np.exp(self._theta[-1]) + JITTER
        self._x = self._scaled(x if believed is None else np.vstack([x, believed]))
        covariance = amplitude * _matern(squared_distances(self._x, self._x))
        covariance[np.diag_indices_from(covariance)] += noise
        factor = cholesky(covariance, lower=True, check_finite=False)
        # The first rows and columns of the factor are the factor for x alone.
        observed = cho_solve((factor[: len(y), : len(y)], True), y, check_finite=False)
        self._weights = np.concatenate([observed, np.zeros(len(self._x) - len(y))])
        # Inverted once, because a product per prediction is several times faster than a triangular solve.
        self._inverse = solve_triangular(factor, np.eye(len(self._x)), lower=True, check_finite=False)

    def predict(self, x: Array) -> tuple[Array, Array]:
        """(n,) The mean and the standard deviation of the function, without noise, at x (n, features)."""
        amplitude = np.exp(self._theta[-2])
        across = amplitude * _matern(squared_distances(self._scaled(x), self._x))
        shrunk = across @ self._inverse.T
        variance = amplitude - np.einsum("ij,ij->i", shrunk, shrunk)
        mean: Array = across @ self._weights
        return mean, np.sqrt(np.maximum(variance, 1e-9))

    def mean(self, x: Array) -> Array:
        """(n,) The mean at x (n, features), at a fraction of the cost of `predict`."""
        amplitude = float(np.exp(self._theta[-2]))
        across: Array = amplitude * _matern(squared_distances(self._scaled(x), self._x))
        mean: Array = np.matmul(across, self._weights)
        return mean

    def _scaled(self, x: Array) -> Array:
        return np.asarray(x / np.exp(self._theta[self._groups]))


def squares_by_group(x: Array, groups: NDArray[np.int_]) -> Array:
    """(scales, n, n) The squared distances between the rows of x (n, features), those of each group of features apart.
    `groups` (features,): rising, from 0, without gaps."""
    squares = np.zeros((int(groups[-1]) + 1, len(x), len(x)))
    for column, group in zip(x.T, groups, strict=True):
        squares[group] += (column[:, None] - column[None]) ** 2
    return squares


def _check_finite(x: Array, y: Array) -> None:
    for name, values in (("features", x), ("targets", y)):
        wrong = values.size - int(np.isfinite(values).sum())
        if wrong:
            raise ValueError(f"{wrong} of {values.size} {name} are not finite numbers")


def squared_distances(one: Array, two: Array) -> Array:
    """(n, m) Squared Euclidean distances between the rows of (n, d) and (m, d)."""
    squares: Array = (one * one).sum(1)[:, None] + (two * two).sum(1)[None] - 2 * one @ two.T
    np.maximum(squares, 0.0, out=squares)
    return squares


def _matern(squares: Array) -> Array:
    """Matern 5/2 of squared distances, computed in place."""
    root = np.sqrt(np.multiply(squares, 5.0, out=squares), out=squares)
    decay = np.exp(-root)
    root += root * root / 3
    root += 1.0
    root *= decay
    return root


def _matern_and_slope(squares: Array) -> tuple[Array, Array]:
    """Matern 5/2 of squared distances, and its derivative with respect to them."""
    root = np.sqrt(5 * squares + 1e-12)
    decay = np.exp(-root)
    return (1 + root + root * root / 3) * decay, -(5 / 6) * (1 + root) * decay


def _negative_log_posterior(theta: Array, squares: Array, y: Array, likely: Array) -> tuple[float, Array]:
    """The negative log posterior density of the hyperparameters, up to a constant, and its gradient. `squares` (scales,
    n, n): squared distances by length scale; `likely`: the hyperparameters' medians, as logarithms."""
    scales, amplitude, noise = np.exp(2 * theta[:-2]), np.exp(theta[-2]), np.exp(theta[-1])
    kernel, slope = _matern_and_slope(np.tensordot(1 / scales, squares, axes=1))
    covariance = amplitude * kernel
    covariance[np.diag_indices_from(covariance)] += noise + JITTER
    try:
        factor = cholesky(covariance, lower=True, check_finite=False)
    except np.linalg.LinAlgError:
        return 1e10, np.zeros_like(theta)
    weights = cho_solve((factor, True), y, check_finite=False)
    inverse = cho_solve((factor, True), np.eye(len(y)), check_finite=False)
    inner = inverse - np.outer(weights, weights)
    gradient = np.empty_like(theta)
    sloped = (inner * slope).ravel()
    gradient[:-2] = -amplitude / scales * (squares.reshape(len(squares), -1) @ sloped)
    gradient[-2] = 0.5 * float(np.vdot(inner, amplitude * kernel))
    gradient[-1] = 0.5 * float(np.trace(inner)) * noise
    prior, prior_gradient = _priors(theta, likely)
    value = 0.5 * float(y @ weights) + float(np.log(np.diag(factor)).sum()) + prior
    return value, gradient + prior_gradient


def _priors(theta: Array, likely: Array) -> tuple[float, Array]:
    """The negative log density of the priors, normal in the logarithms, and its gradient."""
    width = np.full_like(theta, PRIOR_WIDTH)
    width[-1] = NOISE_PRIOR_WIDTH
    away = (theta - likely) / width
    return 0.5 * float(away @ away), away / width
