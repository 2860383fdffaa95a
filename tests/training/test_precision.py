"""The arithmetic of a network: which one is chosen, and that everything trains in either."""

from __future__ import annotations

import math

import pytest
import torch

from dialin import objectives
from dialin.planning.plan import Resources
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.range_tests import Sweep
from dialin.training import precision
from dialin.training.configuration import TrainingOptions
from dialin.training.device_data import Split, Splits, statistics_of
from dialin.training.range_test import range_test
from dialin.training.run import ImageRun
from tests.factories import make_spec
from tests.training.test_run import params, values
from tests.training.test_synchronization import place_digits


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return place_digits(tmp_path_factory.mktemp("data"), "cpu")


@pytest.fixture
def matrix_units(monkeypatch):
    monkeypatch.setattr(precision, "_has_matrix_units", lambda: True)


@pytest.fixture
def no_matrix_units(monkeypatch):
    monkeypatch.setattr(precision, "_has_matrix_units", lambda: False)


def images(side, channels=1, count=64):
    """Splits of bright and dark squares, which a network can tell apart."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    noise = torch.randint(0, 100, (count, channels, side, side), dtype=torch.uint8, generator=generator)
    split = Split(noise + (labels * 150).to(torch.uint8)[:, None, None, None], labels)
    return Splits(split, split, split, 2, statistics_of(split))


def start(splits, asked="auto", epochs=8, **changes):
    torch.set_num_threads(1)
    return ImageRun(params(**changes), splits, 1, TrainingOptions(epochs, "val_accuracy", True, precision=asked))


def kinds_of(run):
    """The types of what the network gives, filled while it trains."""
    kinds = set()
    run.model.register_forward_hook(lambda _module, _inputs, output: kinds.add(output.dtype))
    return kinds


@pytest.mark.parametrize(("side", "chosen"), [(8, "float32"), (11, "float32"), (12, "bfloat16"), (32, "bfloat16")])
def test_matrix_units_are_used_for_all_but_tiny_images(side, chosen, matrix_units):
    assert precision.resolve("auto", images(side).train.images) == chosen
    run = start(images(side))
    kinds = kinds_of(run)
    run.epoch()
    assert kinds == {getattr(torch, chosen)}


def test_without_matrix_units_it_is_float32(no_matrix_units):
    assert precision.resolve("auto", images(32).train.images) == "float32"


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_what_was_asked_for_is_done(asked, matrix_units):
    assert precision.resolve(asked, images(32).train.images) == asked
    assert precision.resolve(asked, images(8).train.images) == asked


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_has_them_for_any_side():
    assert precision.resolve("auto", images(8).train.images.to("cuda")) == "bfloat16"


@pytest.mark.parametrize(
    ("said", "has"),
    [({"amx_tile": True, "amx_bf16": True}, True), ({"amx_tile": True, "amx_bf16": False}, False), ({}, False)],
)
def test_matrix_units_are_those_for_bfloat16(said, has, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: said, raising=False)
    assert precision._has_matrix_units() is has


def test_a_torch_that_does_not_say_has_none(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not precision._has_matrix_units()


CHOICES = [(knob.name, value) for knob in CATALOGUE.values() if knob.kind == "choice" for value in knob.choices]


@pytest.mark.parametrize(("knob", "value"), CHOICES)
def test_every_choice_trains_in_bfloat16(knob, value):
    run = start(images(16, channels=3, count=24), "bfloat16", **{"batch_size": 12, "dropout": 0.2, knob: value})
    kinds = kinds_of(run)
    metrics = run.epoch()
    assert kinds == {torch.bfloat16}
    assert all(math.isfinite(value) for value in metrics.values())
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}


def test_it_learns_as_well_and_goes_on_where_it_was_saved(digits, tmp_path):
    first = start(digits, "bfloat16", lr=0.02)
    curve = values(first, 4)
    first.save(tmp_path)
    curve += values(first, 4)
    assert curve[-1]["val_accuracy"] > 0.9
    assert curve != values(start(digits, "float32", lr=0.02), 8)
    second = start(digits, "bfloat16", lr=0.02)
    second.load(tmp_path)
    assert values(second, 4) == curve[4:]


@pytest.mark.parametrize(("here", "there"), [(True, False), (False, True)])
def test_a_trial_that_goes_on_on_another_machine_keeps_its_arithmetic(here, there, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "_has_matrix_units", lambda: here)
    first = start(images(16))
    values(first, 2)
    first.save(tmp_path)
    monkeypatch.setattr(precision, "_has_matrix_units", lambda: there)
    second = start(images(16))
    second.load(tmp_path)
    kinds = kinds_of(second)
    assert values(second, 2) == values(first, 2)
    assert kinds == {torch.bfloat16 if here else torch.float32}


def test_a_range_test_is_done_in_the_arithmetic_of_its_trials(digits, tmp_path):
    sweep = Sweep(1e-4, 1, 15)
    curves = {asked: range_test(params(), digits, 1, sweep, asked) for asked in ("auto", "float32", "bfloat16")}
    assert curves["auto"] == curves["float32"] != curves["bfloat16"]
    assert curves["bfloat16"].losses == pytest.approx(curves["float32"].losses, abs=0.1)
    for asked, curve in curves.items():
        spec = make_spec(
            f"objective.precision={asked}",
            "objective.samples=600",
            "objective.validation_fraction=0.2",
            dataset="digits",
        )
        assert objectives.build(spec, tmp_path).range_test(params(), 1, Resources(), sweep) == curve
