"""The regression against its definition, its gradient against differences, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad

from dialin.search.models import gaussian_process
from dialin.search.models.gaussian_process import GaussianProcess

GROUPS, LIKELY_SCALE = np.array([0, 1, 2]), 0.7


def make_process():
    return GaussianProcess(GROUPS, np.full(3, LIKELY_SCALE))


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = generator.random((40, 3))
    y = np.sin(4 * x[:, 0]) + 0.5 * x[:, 1]
    return x, (y - y.mean()) / y.std()


def test_the_posterior_is_that_of_the_textbook(data):
    """Rasmussen and Williams 2006, equations 2.25 and 2.26, by plain inversion."""
    x, y = data
    model = make_process()
    model.condition(x, y)
    new = np.random.default_rng(1).random((7, 3))

    def kernel(one, two):
        distance = np.sqrt(5) * np.linalg.norm((one[:, None] - two[None]) / LIKELY_SCALE, axis=2)
        return (1 + distance + distance**2 / 3) * np.exp(-distance)

    inverse = np.linalg.inv(kernel(x, x) + (gaussian_process.LIKELY_NOISE + gaussian_process.JITTER) * np.eye(40))
    mean, deviation = model.predict(new)
    np.testing.assert_allclose(mean, kernel(new, x) @ inverse @ y, atol=1e-6)
    variance = 1 - np.einsum("ij,jk,ik->i", kernel(new, x), inverse, kernel(new, x))
    np.testing.assert_allclose(deviation, np.sqrt(variance), atol=1e-5)
    np.testing.assert_allclose(model.mean(new), mean)


def test_points_that_are_believed_are_as_if_they_came_out_as_predicted(data):
    x, y = data
    model, one_by_one = make_process(), make_process()
    running, new = np.random.default_rng(1).random((2, 5, 3))
    one_by_one.condition(x, y)
    before = one_by_one.predict(new)
    one_by_one.condition(np.vstack([x, running]), np.concatenate([y, one_by_one.mean(running)]))
    model.condition(x, y, running)
    np.testing.assert_allclose(model.predict(new), one_by_one.predict(new), atol=1e-6)
    assert (model.predict(new)[1] < before[1]).all()
    model.condition(x, y, np.zeros((0, 3)))
    np.testing.assert_allclose(model.predict(new), before, atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.7, -1.0])
def test_the_gradient_is_the_slope(data, shift):
    x, y = data
    squares = ((x[:, None] - x[None]) ** 2).transpose(2, 0, 1)
    likely = np.log([LIKELY_SCALE, LIKELY_SCALE, LIKELY_SCALE, 1.0, 0.01])
    theta = np.log([0.7, 0.7, 0.7, 1.0, 0.01]) + shift * np.array([1, -1, 0.5, 0.3, -0.5])

    def value(at):
        return gaussian_process._negative_log_posterior(at, squares, y, likely)[0]

    def slope(at):
        return gaussian_process._negative_log_posterior(at, squares, y, likely)[1]

    assert check_grad(value, slope, theta) < 1e-3 * np.linalg.norm(slope(theta))


def test_fitting_finds_which_features_matter_and_predicts_better(data):
    x, y = data
    new = np.random.default_rng(2).random((200, 3))
    truth = np.sin(4 * new[:, 0]) + 0.5 * new[:, 1]
    truth = (truth - truth.mean()) / truth.std()

    def error(iterations):
        model = make_process()
        if iterations:
            model.fit(x, y, iterations)
        model.condition(x, y)
        return np.abs(model.mean(new) - truth).mean(), np.exp(model._theta[:3])

    before, _ = error(0)
    after, scales = error(50)
    assert after < before
    assert scales[0] < scales[1] < scales[2]


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("ask", ["fit", "condition"])
def test_what_is_not_finite_is_refused_and_changes_nothing(data, wrong, ask):
    x, y = data
    process = make_process()
    process.fit(x, y, 5)
    process.condition(x, y)
    before = process.predict(x)
    more = (5,) if ask == "fit" else ()
    bad_y, bad_x = y.copy(), x.copy()
    bad_y[1] = bad_x[0, 0] = wrong
    with pytest.raises(ValueError, match=f"1 of {len(y)} targets are not finite"):
        getattr(process, ask)(x, bad_y, *more)
    with pytest.raises(ValueError, match=f"1 of {x.size} features are not finite"):
        getattr(process, ask)(bad_x, y, *more)
    np.testing.assert_array_equal(process.predict(x), before)
