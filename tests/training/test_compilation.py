"""`objective.compile`: the same training, by torch's compiler; what does not suit it goes the usual way."""

from __future__ import annotations

import shutil

import pytest
import torch

from dialin.training import compilation
from dialin.training.configuration import TrainingOptions
from dialin.training.run import ImageRun
from tests.training.test_run import params, values
from tests.training.test_synchronization import place_digits

needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for a CPU with g++")


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return place_digits(tmp_path_factory.mktemp("data"), "cpu")


@pytest.fixture
def seen(monkeypatch):
    """What goes through compiled code: one entry a version that is compiled, the shapes of the calls in it."""
    versions = []
    original = torch.compile

    def compile_seen(model, mode, dynamic):  # without the compiler itself, which takes seconds
        def backend(graph, _inputs):
            versions.append([])
            calls = versions[-1]

            def call(*arguments):
                calls.append(max(len(tensor) for tensor in arguments if tensor.ndim == 4 and tensor.shape[1] == 1))
                return graph(*arguments)

            return call

        assert (mode, dynamic) == ("default", False)
        return original(model, backend=backend, dynamic=dynamic)

    monkeypatch.setattr(compilation.torch, "compile", compile_seen)
    return versions


def start(digits, compiling, seed=1, **changes):
    torch.set_num_threads(1)
    return ImageRun(params(**changes), digits, seed, TrainingOptions(4, "val_accuracy", True, compile=compiling))


def test_full_batches_that_nobody_watches_are_compiled(digits, seen):
    run = start(digits, True, batch_size=70)  # 6 of 70 images and one of 60; the last is watched, too
    values(run, 1)
    assert seen == [[70] * 6]


def test_a_watched_step_is_not(digits, seen):
    run = start(digits, True, batch_size=48)  # 10 of 48, the last of which is watched
    values(run, 1)
    assert seen == [[48] * 9]


def test_each_of_many_trials_of_one_process_is(digits, seen):
    """torch gives up, and says nothing, when one function was compiled for the ninth time."""
    for seed in range(12):
        values(start(digits, True, seed, batch_size=160, width=4 + seed), 1)
    assert len(seen) == 12


@needs_a_compiler
def test_the_training_is_the_same_but_for_rounding(digits, tmp_path):
    plain, fast = (values(start(digits, compiling, batch_size=48), 3) for compiling in (False, True))
    for one, other in zip(plain, fast, strict=True):
        assert one == pytest.approx(other, rel=0.05, abs=0.02)
    first = start(digits, True, batch_size=48)
    values(first, 1)
    first.save(tmp_path)
    second = start(digits, True, batch_size=48)
    second.load(tmp_path)
    assert values(second, 2) == fast[1:]  # and goes on to the bit as if it had never stopped


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(tmp_path):
    splits = place_digits(tmp_path, "cuda")
    plain, fast = (values(start(splits, compiling, batch_size=48), 3) for compiling in (False, True))
    for one, other in zip(plain, fast, strict=True):
        assert one["val_accuracy"] == pytest.approx(other["val_accuracy"], abs=0.1)
    assert fast[-1]["val_accuracy"] > 0.6
