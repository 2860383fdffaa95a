"""What a trial costs: parameters, seconds of an epoch, memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dialin.specification import active_params
from dialin.training import measures
from dialin.training.configuration import TrainingOptions
from dialin.training.device_data import place
from dialin.training.measures import TrialMeasures, peak_memory, reset_peak_memory
from dialin.training.run import ImageRun
from tests.factories import make_spec

CPU = torch.device("cpu")
EVERY = ("parameters", "epoch_seconds", "memory")


def test_only_what_is_asked_for_is_measured():
    assert TrialMeasures((), CPU).after_epoch(nn.Linear(3, 2), 1.0) == {}
    assert set(TrialMeasures(EVERY, CPU).after_epoch(nn.Linear(3, 2), 1.0)) == set(EVERY)


def test_parameters_are_the_trainable_ones():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    assert TrialMeasures(("parameters",), CPU).after_epoch(model, 1.0) == {"parameters": 8.0}


def test_the_seconds_of_an_epoch_are_the_median_and_survive_a_checkpoint():
    first = TrialMeasures(("epoch_seconds",), CPU)
    assert [first.after_epoch(nn.Linear(1, 1), seconds)["epoch_seconds"] for seconds in (9.0, 1.0, 2.0)] == [
        9.0,
        5.0,
        2.0,
    ]
    second = TrialMeasures(("epoch_seconds",), CPU)
    second.load_state(first.state())
    assert second.after_epoch(nn.Linear(1, 1), 1.0) == {"epoch_seconds": 1.5}


def test_the_memory_is_the_peak_since_the_reset():
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    held = torch.ones(64 * 2**20 // 4)
    held += 1
    assert peak_memory(CPU) - before > 50
    del held
    assert peak_memory(CPU) - before > 50
    reset_peak_memory(CPU)
    assert peak_memory(CPU) - before < 40


def test_without_proc_the_memory_is_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(measures, "_PROCESS", tmp_path)
    assert 10 < peak_memory(CPU) < 10**6


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    from dialin.training.datasets import load, prepare

    return place(load(prepare("digits", tmp_path_factory.mktemp("data"), print)), "cpu", 0.2, 200, 0)


def test_a_trial_reports_its_measures_and_goes_on_with_them(digits, tmp_path):
    params = {**active_params(make_spec(space="\n  optimizer: adamw\n"), {}), "width": 4, "depth": 1}

    def start():
        return ImageRun(params, digits, 1, TrainingOptions(4, "val_accuracy", True, measured=EVERY))

    run = start()
    first = [run.epoch() for _ in range(2)]
    assert first[0]["parameters"] == first[1]["parameters"] == sum(one.numel() for one in run.model.parameters())
    assert first[0]["epoch_seconds"] == first[0]["seconds"]
    assert first[1]["epoch_seconds"] == pytest.approx((first[0]["seconds"] + first[1]["seconds"]) / 2)
    assert first[0]["memory"] > 10
    run.save(tmp_path)
    again = start()
    again.load(tmp_path)
    third = again.epoch()
    assert third["epoch_seconds"] == sorted([first[0]["seconds"], first[1]["seconds"], third["seconds"]])[1]
    plain = ImageRun(params, digits, 1, TrainingOptions(4, "val_accuracy", True))
    assert not set(EVERY) & plain.epoch().keys()
