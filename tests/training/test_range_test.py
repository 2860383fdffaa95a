"""The range test on real training: it finds where a network learns, and touches nothing."""

from __future__ import annotations

import copy

import pytest
import torch

from dialin.planning.range_test_reading import read_curves
from dialin.specification import complete
from dialin.specification.range_tests import Sweep
from dialin.training.configuration import Configuration
from dialin.training.datasets import load, prepare
from dialin.training.device_data import place
from dialin.training.network import build_network
from dialin.training.optimizers import build_optimizer
from dialin.training.range_test import RangeTest, range_test


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = prepare("digits", tmp_path_factory.mktemp("data"), print)
    return place(load(folder), "cpu", 0.2, None, 0)


def params(**changes):
    return complete({"optimizer": "sgd", "momentum": 0.9, "batch_size": 32, "width": 8, "depth": 2, **changes})


def test_it_finds_the_rates_at_which_a_network_learns(digits):
    torch.set_num_threads(1)
    reading = read_curves([range_test(params(), digits, seed, Sweep(1e-5, 10, 150)) for seed in (1, 2)], "knees")
    assert reading.confident, reading.doubts
    assert 1e-4 < reading.low < 0.1 < reading.high < 10
    assert reading.low < reading.steepest < reading.high


def test_a_smaller_useful_rate_for_adam_than_for_sgd(digits):
    peaks = {
        name: read_curves([range_test(params(optimizer=name), digits, 1, Sweep(1e-5, 10, 150))], "knees").peak
        for name in ("sgd", "adam")
    }
    assert peaks["adam"] < peaks["sgd"]


def test_one_seed_gives_one_curve(digits):
    one, same, other = (range_test(params(), digits, seed, Sweep(1e-4, 1, 20)) for seed in (1, 1, 2))
    assert one == same
    assert one != other
    assert len(one.rates) == len(one.losses) == len(one.accuracies) == 20


def test_the_rates_are_values_of_the_knob_which_lr_scaling_multiplies(digits):
    plain = range_test(params(batch_size=256), digits, 1, Sweep(1e-3, 1, 12))
    scaled = range_test(params(batch_size=256, lr_scaling="linear"), digits, 1, Sweep(0.5e-3, 0.5, 12))
    assert scaled.rates == pytest.approx([rate / 2 for rate in plain.rates])
    assert scaled.losses == pytest.approx(plain.losses, rel=1e-4)
    assert scaled.losses != pytest.approx(
        range_test(params(batch_size=256), digits, 1, Sweep(0.5e-3, 0.5, 12)).losses, rel=1e-4
    )


def test_it_ends_where_training_diverges(digits):
    curve = range_test(params(normalization="none", momentum=0.99), digits, 1, Sweep(1e-3, 1e3, 100))
    assert curve.diverged_at is not None
    assert len(curve.rates) < 100
    assert curve.rates[-1] < curve.diverged_at


def test_it_runs_on_copies(digits):
    whole = Configuration.from_params(params(dropout=0.3, augmentation="crop+flip"))
    torch.manual_seed(5)
    model = build_network(whole, digits)
    optimizer = build_optimizer(model, whole)
    model(torch.randn(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    model.train()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    random = torch.get_rng_state()
    RangeTest(whole, digits, 1).run(model, optimizer, Sweep(1e-3, 1, 15))
    after = model.state_dict(), optimizer.state_dict()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert str(before[1]) == str(after[1])
    assert model.training
    assert torch.equal(torch.get_rng_state(), random)
