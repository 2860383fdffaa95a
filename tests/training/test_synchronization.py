"""Nothing is read back from the device while an epoch's steps run: a GPU would stand still until Python has it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dialin.training.configuration import TrainingOptions
from dialin.training.datasets import load, prepare
from dialin.training.device_data import place
from dialin.training.run import ImageRun
from tests.training.test_run import params

READERS = ("item", "tolist", "numpy", "cpu", "__float__", "__int__", "__bool__", "__index__")
ALL_KNOBS = {
    "clip_norm": 1.0,
    "l1": 1e-5,
    "weight_decay": 1e-3,
    "label_smoothing": 0.1,
    "dropout": 0.1,
    "augmentation": "crop+flip+rotate+brightness+noise+cutout",
    "schedule": "cosine",
    "warmup_epochs": 1,
}
OPTIMIZERS = ("sgd", "adagrad", "rmsprop", "adam", "adamw", "nadam")


def start(splits, optimizer, **changes):
    torch.set_num_threads(1)
    knobs = {**ALL_KNOBS, "weight_decay_form": "decoupled", "optimizer": optimizer, **changes}
    return ImageRun(params(**knobs), splits, 1, TrainingOptions(4, "val_accuracy", True))


def place_digits(folder, device):
    return place(load(prepare("digits", folder, print)), device, 0.2, 600, 0)


class Reads(Counter):
    """By method, of all tensors but those in `on_the_host`."""

    on_the_host: frozenset[int] = frozenset()


@pytest.fixture
def reads(monkeypatch):
    counts = Reads()
    for name in READERS:
        original = getattr(Tensor, name)

        def counted(self, *arguments, _name=name, _original=original, **named):
            counts[_name] += id(self) not in counts.on_the_host
            return _original(self, *arguments, **named)

        monkeypatch.setattr(Tensor, name, counted)
    return counts


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_steps_read_nothing(tmp_path, reads, optimizer):
    splits, seen = place_digits(tmp_path, "cpu"), {}
    for images in (120, 480):  # 4 steps, and 15
        rows = splits.train.rows[:images]
        run = start(replace(splits, train=replace(splits.train, rows=rows)), optimizer)
        run.epoch()  # in which the doctor looks closely at a step
        # torch keeps an optimizer's own numbers on the CPU, and adagrad and nadam read them there.
        states = run.training_step.optimizer.state.values()
        reads.on_the_host = frozenset(
            id(value) for state in states for value in state.values() if torch.is_tensor(value) and not value.ndim
        )
        reads.clear()
        run.epoch()
        seen[images] = dict(reads)
    assert seen[120]  # the sums are read once, at the end
    assert seen[120] == seen[480]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_gpu_is_never_waited_for(tmp_path, monkeypatch, optimizer):
    run = start(place_digits(tmp_path, "cuda"), optimizer)
    run.epoch()
    take = run.training_step.take

    def strict(*arguments):
        torch.cuda.set_sync_debug_mode("error")
        try:
            return take(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(run.training_step, "take", strict)
    assert run.epoch()["train_loss"] > 0
