"""Each rule fires on a network made sick on purpose in just that way, and a healthy one is left alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dialin.specification.findings import RULES, Finding
from dialin.training.configuration import TrainingOptions
from dialin.training.datasets import load, prepare
from dialin.training.device_data import place
from dialin.training.doctor import Doctor
from dialin.training.run import ImageRun


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = prepare("digits", tmp_path_factory.mktemp("data"), print)
    return place(load(folder), "cpu", 0.2, None, 0)


def examine(digits, epochs=6, doctor=True, **params):
    """What the doctor finds in a trial, by code."""
    torch.set_num_threads(1)
    base = {"optimizer": "sgd", "lr": 0.05, "batch_size": 64, "width": 8, "depth": 3}
    run = ImageRun({**base, **params}, digits, 1, TrainingOptions(epochs, "val_accuracy", True, doctor))
    found = {}
    for _ in range(epochs):
        metrics = run.epoch()
        found |= {finding.code: finding for finding in run.findings()}
    return found, metrics


@pytest.mark.parametrize(
    ("code", "params"),
    [
        ("non_finite_loss", {"lr": 50.0, "momentum": 0.95, "normalization": "none"}),
        ("dead_network", {"initialization": "zeros", "normalization": "none"}),
        ("dead_units", {"lr": 2.0, "normalization": "none", "depth": 4}),
        ("vanishing_gradient", {"depth": 24, "normalization": "none", "activation": "sigmoid"}),
        ("exploding_gradient", {"initialization": "normal", "initialization_std": 0.3, "normalization": "none",
                                "activation": "tanh", "depth": 30, "lr": 1e-9, "width": 16}),
        ("saturated_activation", {"activation": "tanh", "initialization": "normal", "initialization_std": 2.0,
                                  "normalization": "none"}),
        ("saturated_activation", {"activation": "sigmoid", "initialization": "normal", "initialization_std": 3.0,
                                  "normalization": "none"}),
        ("small_updates", {"lr": 1e-9}),
        # Without decay the weights grow with such steps, or all units die: which of it depends on the arithmetic.
        ("large_updates", {"lr": 50.0, "schedule": "fixed", "weight_decay": 0.01, "activation": "leaky_relu"}),
        ("no_learning", {"lr": 1e-9}),
        ("lr_decayed_early", {"schedule": "exponential", "final_factor": 1e-20}),
    ],
)  # fmt: skip
def test_a_network_made_sick_is_found_out(digits, code, params):
    found, _ = examine(digits, **params)
    assert code in found
    assert found[code].evidence
    assert RULES[code].remedy


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"optimizer": "adam", "lr": 3e-3, "batch_size": 16},
        {"activation": "tanh", "initialization": "xavier"},
        {"activation": "gelu", "normalization": "group", "lr": 0.2},
        {"residual": True, "depth": 8, "initialization": "kaiming"},
        {"optimizer": "adamw", "lr": 1e-2, "schedule": "one_cycle"},
    ],
)
def test_a_healthy_network_is_left_alone(digits, params):
    found, metrics = examine(digits, **params)
    assert metrics["val_accuracy"] > 0.75
    assert found == {}


def test_watching_changes_nothing(digits):
    _, watched = examine(digits, epochs=3, dropout=0.2)
    _, alone = examine(digits, epochs=3, doctor=False, dropout=0.2)
    assert {name: watched[name] for name in alone if name != "seconds"} == {
        name: value for name, value in alone.items() if name != "seconds"
    }


def fed(losses_by_epoch, metrics_by_epoch=None, epochs=10):
    """The doctor over given losses and metrics; what it found, in order."""
    doctor = Doctor(nn.Linear(2, 2), classes=10, epochs=epochs)
    found = []
    plain = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, "lr": 0.1}
    for epoch, losses in enumerate(losses_by_epoch, 1):
        for loss in losses:
            doctor.step_done(torch.tensor(loss))
        metrics = {**plain, **(metrics_by_epoch[epoch - 1] if metrics_by_epoch else {})}
        batches = [torch.tensor([step, step + 100]) for step in range(len(losses))]
        found += doctor.epoch_done(epoch, metrics, batches)[0]
    return found


def test_a_spike_keeps_its_batch():
    losses = [0.5 + 0.01 * (step % 3) for step in range(60)]
    losses[40] = 9.0
    (finding,) = fed([losses])
    assert (finding.code, finding.evidence["step"], finding.evidence["batch"]) == ("loss_spike", 40, [40, 140])
    assert finding.evidence["usual"] == pytest.approx(0.51, abs=0.02)


def test_a_steady_or_falling_loss_has_no_spike():
    assert fed([[2.3 * math.exp(-step / 30) + 0.05 * (step % 2) for step in range(200)]]) == []


def test_a_loss_that_leaves_its_best_level_for_good_has_diverged():
    codes = [finding.code for finding in fed([[0.6] * 10, [9.0] * 10])]
    assert "diverged" in codes
    assert fed([[2.3] * 10, [2.4] * 10]) == []


def test_overfitting_needs_a_gap_and_a_rising_validation_loss():
    good = {"train_accuracy": 0.8, "val_accuracy": 0.75, "val_loss": 0.8}
    bad = {"train_accuracy": 1.0, "val_accuracy": 0.7, "val_loss": 1.4}
    only_gap = {"train_accuracy": 1.0, "val_accuracy": 0.7, "val_loss": 0.8}
    assert [finding.code for finding in fed([[0.5]] * 4, [good, good, good, bad])] == ["overfitting"]
    assert fed([[0.5]] * 4, [good, good, good, only_gap]) == []


def test_each_finding_comes_once():
    metrics = {"train_accuracy": 0.1, "val_accuracy": 0.1}
    assert [finding.code for finding in fed([[2.3]] * 9, [metrics] * 9)] == ["no_learning"]


def test_a_resumed_doctor_does_not_repeat_itself(digits, tmp_path):
    params = {"optimizer": "sgd", "lr": 1e-9, "batch_size": 64, "width": 8, "depth": 3}
    first = ImageRun(params, digits, 1, TrainingOptions(6, "val_accuracy", True))
    for _ in range(3):
        first.epoch()
    first.save(tmp_path)
    second = ImageRun(params, digits, 1, TrainingOptions(6, "val_accuracy", True))
    second.load(tmp_path)
    for _ in range(2):
        second.epoch()
        assert second.findings() == []


@pytest.mark.parametrize("steps", [1, 3, 36, 100, 5000])
def test_a_few_steps_of_an_epoch_are_watched_the_last_among_them(steps):
    doctor = Doctor(nn.Linear(2, 2), 10, 10)
    watched = [step for step in range(steps) if doctor.is_due(step, steps)]
    assert 1 <= len(watched) <= max(1, min(8, round(0.03 * steps)))
    assert watched[-1] == steps - 1


def test_a_finding_reads_as_a_line():
    finding = Finding("dead_units", 3, {"dead units": 0.5, "zero activations": 0.812345, "batch": [1, 2]}, "5")
    assert finding.text() == "dead_units in 5 after epoch 3: dead units 0.5, zero activations 0.812"
    assert Finding(**finding.to_data()) == finding
