"""Sweeps, positions between bounds, and the bounds that belong to a configuration."""

from __future__ import annotations

import pytest

from dialin.specification import parse_spec, to_yaml
from dialin.specification.range_tests import Calibration, RateBounds, Sweep
from tests.factories import make_spec


def test_a_sweep_rises_by_the_same_ratio():
    rates = Sweep(1e-4, 1.0, 5).rates()
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])


def test_shares_of_the_log_scale():
    bounds = RateBounds({}, 1e-3, 1e-1, None, ())
    assert bounds.rate_at(0.5) == pytest.approx(1e-2)
    assert bounds.unit_of(1e-2) == pytest.approx(0.5)
    assert (bounds.unit_of(5.0), bounds.unit_of(1e-9)) == (1.0, 0.0)


def test_a_configuration_finds_its_combination_or_the_nearest():
    bounds = tuple(
        RateBounds({"optimizer": optimizer, "batch_size": size}, size / 1e4, 1.0, None, ())
        for optimizer in ("sgd", "adam")
        for size in (16, 128)
    )
    calibration = Calibration(bounds, 1.0)
    assert calibration.bounds_for({"optimizer": "adam", "batch_size": 128}) is bounds[3]
    assert calibration.bounds_for({"optimizer": "sgd", "batch_size": 40}) is bounds[0]
    assert calibration.bounds_for({"optimizer": "sgd", "batch_size": 60}) is bounds[1]


@pytest.mark.parametrize("method", ["knees", "third", "minimum"])
def test_a_stored_space_keeps_its_method(method):
    spec = make_spec(space=f"\n  lr: {{range_test: {{method: {method}}}}}\n")
    assert parse_spec(to_yaml(spec)).space["lr"].method == method


def test_the_default_method_is_not_written():
    """An older version does not know it, and reads a space that uses nothing new."""
    assert "method" not in to_yaml(make_spec(space="\n  lr: {range_test: }\n"))
