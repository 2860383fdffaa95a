"""One trial: it learns, it goes on where it was saved, and each knob does what its name says."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from dialin import objectives
from dialin.errors import DataError
from dialin.planning.plan import Resources
from dialin.specification import active_params
from dialin.training.configuration import TrainingOptions
from dialin.training.device_data import place, statistics_of
from dialin.training.run import ImageRun, split_batches
from tests.factories import make_spec


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def digits(data_dir):
    from dialin.training.datasets import load, prepare

    return place(load(prepare("digits", data_dir, print)), "cpu", 0.2, 600, 0)


def params(**changes):
    base = active_params(make_spec(space="\n  optimizer: adamw\n"), {})
    return {**base, "lr": 5e-3, "batch_size": 32, "width": 8, "depth": 2, "schedule": "fixed", **changes}


def start(digits, seed=1, epochs=4, metric="val_accuracy", maximize=True, **changes):
    torch.set_num_threads(1)
    return ImageRun(params(**changes), digits, seed, TrainingOptions(epochs, metric, maximize))


def values(run, epochs):
    return [{k: v for k, v in run.epoch().items() if k != "seconds"} for _ in range(epochs)]


def test_it_learns(digits):
    run = start(digits, epochs=8, lr=0.02)
    curve = values(run, 8)
    assert curve[-1]["val_accuracy"] > 0.9 > 0.7 > curve[0]["train_accuracy"]
    assert curve[-1]["train_loss"] < curve[0]["train_loss"]
    assert run.test()["accuracy"] > 0.9


def test_the_splits_are_apart_and_stratified(digits):
    rows = {name: set(getattr(digits, name).rows.tolist()) for name in ("train", "validation")}
    assert (len(rows["train"]), len(rows["validation"])) == (480, 120)
    assert not rows["train"] & rows["validation"]


def test_normalization_of_the_input_is_that_of_the_training_split(digits):
    images, _ = digits.train.take(slice(None))
    of = statistics_of(digits.train)
    assert of.mean.item() == pytest.approx(images.float().mean().item(), rel=1e-5)
    assert of.std.item() == pytest.approx(images.float().std(unbiased=False).item(), rel=1e-5)
    assert torch.allclose(of.mean_image[0], images.float().mean(0))


def test_one_seed_is_one_course(digits):
    one, same, other = (values(start(digits, seed=seed, dropout=0.2), 2) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize("changes", [
    {"dropout": 0.3, "augmentation": "crop+flip"},
    {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "schedule": "plateau", "lr": 0.05},
    {"optimizer": "rmsprop", "momentum": 0.5, "schedule": "step", "warmup_epochs": 1.0, "lr": 1e-3},
])  # fmt: skip
def test_a_loaded_run_goes_on_to_the_bit(digits, tmp_path, changes):
    straight = start(digits, **changes)
    expected = values(straight, 4)
    first = start(digits, **changes)
    values(first, 2)
    first.save(tmp_path)
    second = start(digits, **changes)
    second.load(tmp_path)
    assert values(second, 2) == expected[2:]
    assert second.test() == straight.test()


def test_a_checkpoint_of_another_configuration_is_refused(digits, tmp_path):
    start(digits).save(tmp_path)
    with pytest.raises(DataError, match="belongs to another configuration"):
        start(digits, lr=0.1).load(tmp_path)


@pytest.mark.parametrize(("metric", "maximize"), [("val_accuracy", True), ("val_loss", False)])
def test_the_test_split_is_read_with_the_best_epochs_weights(digits, metric, maximize):
    run = start(digits, metric=metric, maximize=maximize, lr=0.02)
    kept = []
    for _ in range(4):
        value = run.epoch()[metric]
        kept.append((value, {name: tensor.clone() for name, tensor in run.model.state_dict().items()}))
    best = (max if maximize else min)(kept, key=lambda pair: pair[0])[1]
    tested = run.test()
    after = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    assert all(torch.equal(after[name], kept[-1][1][name]) for name in after)  # testing changes nothing
    run.model.load_state_dict(best)
    loss, accuracy = run.evaluate(digits.test)
    assert tested == {"accuracy": accuracy, "loss": loss}


def test_a_divergence_is_reported_as_it_is(digits):
    run = start(
        digits, optimizer="sgd", momentum=0.9, nesterov=False, lr=100.0, normalization="none", activation="relu"
    )
    curve = values(run, 2)
    assert not math.isfinite(curve[-1]["train_loss"])


def first_lr(digits, **changes):
    return start(digits, **changes).epoch()["lr"]


def test_schedule_and_warmup_set_the_rate(digits):
    assert first_lr(digits, lr=0.01) == 0.01
    assert first_lr(digits, lr=0.01, warmup_epochs=2.0) == pytest.approx(0.005)
    run = start(digits, lr=0.01, schedule="cosine")
    rates = [run.epoch()["lr"] for _ in range(4)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 1e-4


@pytest.mark.parametrize("change", [
    {"batch_size": 64}, {"label_smoothing": 0.2}, {"dropout": 0.5}, {"augmentation": "flip"}, {"weight_decay": 0.9},
    {"initialization": "kaiming"}, {"normalization": "group"}, {"activation": "tanh"}, {"width": 9}, {"depth": 3},
    {"optimizer": "adam", "weight_decay": 0.9}, {"lr": 1e-3}, {"schedule": "cosine"}, {"loss": "mean_squared_error"},
    {"input": "scale"}, {"clip_norm": 0.01}, {"l1": 0.1}, {"pooling": "max"}, {"head": "fully_connected"},
    {"convolution": "5x5"}, {"residual": True}, {"pooling_normalization": "l2"}, {"beta1": 0.5}, {"beta2": 0.9},
    {"min_lr": 0.1}, {"warmup_steps": 5}, {"lr_scaling": "linear"}, {"model": "mobilenet_v3_small"},
    {"augmentation": "rotate+brightness+noise+cutout"},
], ids=str)  # fmt: skip
def test_every_knob_changes_the_course(digits, change):
    assert values(start(digits, **change), 1) != values(start(digits), 1)


def test_label_smoothing_changes_the_training_loss_only(digits):
    plain, smooth = (values(start(digits, lr=1e-9, label_smoothing=s), 1)[0] for s in (0.0, 0.3))
    assert smooth["val_loss"] == pytest.approx(plain["val_loss"], rel=1e-4)
    assert smooth["train_loss"] != pytest.approx(plain["train_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("count", "size", "lengths"), [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (1, 4, [1]), (3, 8, [3]), (2, 1, [2])]
)
def test_no_image_is_dropped_and_none_is_alone(count, size, lengths):
    batches = split_batches(torch.arange(count), size)
    assert [len(batch) for batch in batches] == lengths
    assert torch.cat(batches).tolist() == list(range(count))


def test_the_objective_starts_runs_and_shares_their_data(data_dir):
    spec = make_spec("objective.samples=200", "budget.epochs=2", dataset="digits")
    objective = objectives.build(spec, data_dir)
    first, second = (objective.start(params(), seed, Resources()) for seed in (1, 2))
    assert first.splits is second.splits
    assert first.splits.train.images.data_ptr() == second.splits.train.images.data_ptr()
    assert first.epoch().keys() == {
        "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds",
        "zero_activations", "gradient_norm", "update_ratio",
    }  # fmt: skip
    first.close()
    assert replace(objective, split_seed=5) != objective


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error(data_dir):
    objective = objectives.build(make_spec(dataset="digits"), data_dir)
    with pytest.raises(DataError, match="a trial was given 1 gpus, but torch finds no GPU on this machine"):
        objective.start(params(), 1, Resources(1, 1))
