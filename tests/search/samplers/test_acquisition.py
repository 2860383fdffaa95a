"""The logarithm of expected improvement against its definition, and crowds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from dialin.search.samplers.acquisition import CROWD_SIZE, exclude_crowds, log_expected_improvement


@pytest.mark.parametrize("deviation", [0.1, 1.0, 7.0])
def test_it_is_the_logarithm_of_the_closed_form(deviation):
    z = np.linspace(-8, 6, 57)
    expected = np.log(deviation * (z * norm.cdf(z) + norm.pdf(z)))
    found = log_expected_improvement(2.0 + z * deviation, np.full(len(z), deviation), 2.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_it_tells_points_apart_where_the_improvement_is_zero_as_a_float():
    mean = -np.linspace(30, 1000, 50)
    found = log_expected_improvement(mean, np.ones(50), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()


def test_points_in_a_crowd_are_excluded_and_others_keep_their_values():
    features = np.array([[0.5, 0.5], [0.1, 0.9]])
    trials = np.full((CROWD_SIZE, 2), 0.51)
    values = np.array([2.0, 1.0])
    exclude_crowds(values, features, trials[1:], 2)
    assert values.tolist() == [2.0, 1.0]
    exclude_crowds(values, features, trials, 2)
    assert values.tolist() == [-np.inf, 1.0]
