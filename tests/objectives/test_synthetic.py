"""The closed form behaves like training."""

from __future__ import annotations

import math

import pytest

from dialin import objectives
from dialin.errors import DataError
from dialin.planning.plan import Resources
from tests.factories import make_spec

GOOD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": 128, "schedule": "cosine"}


def start(seed=1, epochs=9, **params):
    objective = objectives.build(make_spec(f"budget.epochs={epochs}"), None)
    objective.prepare(print)
    return objective.start({**GOOD, **params}, seed, Resources())


def train(run, epochs=9):
    return [run.epoch() for _ in range(epochs)]


def final(**params):
    return train(start(**params))[-1]["val_accuracy"]


def test_accuracy_rises_and_loss_falls():
    curve = train(start())
    assert curve[-1]["val_accuracy"] > 0.9 > curve[0]["val_accuracy"] > 0.1
    assert curve[-1]["val_loss"] < curve[0]["val_loss"]
    assert curve[-1]["lr"] < curve[0]["lr"]


@pytest.mark.parametrize("params", [{"lr": 0.0005}, {"lr": 0.5}, {"dropout": 0.9}, {"optimizer": "adam", "lr": 1e-5}])
def test_a_worse_knob_ends_worse(params):
    assert final(**params) < final() - 0.02


def test_momentum_and_batch_size_change_which_rate_is_best():
    assert final(momentum=0.0, lr=0.5) == pytest.approx(final(momentum=0.9, lr=0.05), abs=1e-9)
    assert final(batch_size=512, lr=0.1) == pytest.approx(final(batch_size=128, lr=0.05), abs=1e-9)


def test_too_large_a_step_diverges():
    curve = train(start(lr=5.0), 3)
    assert math.isfinite(curve[0]["train_loss"])
    assert math.isnan(curve[1]["train_loss"])


def test_the_seed_decides_the_noise():
    assert train(start(seed=3)) != train(start(seed=4))
    assert [m["val_accuracy"] for m in train(start(seed=3))] == [m["val_accuracy"] for m in train(start(seed=3))]


def test_a_loaded_run_goes_on_as_the_first_would_have(tmp_path):
    straight = [m["val_accuracy"] for m in train(start())]
    first = start()
    train(first, 4)
    first.save(tmp_path)
    second = start()
    second.load(tmp_path)
    assert [m["val_accuracy"] for m in train(second, 5)] == straight[4:]
    assert second.test().keys() == {"accuracy", "loss"}


def test_a_checkpoint_of_another_configuration_is_refused(tmp_path):
    start().save(tmp_path)
    with pytest.raises(DataError, match="belongs to another configuration"):
        start(lr=0.01).load(tmp_path)
