"""The objective: what a specification becomes, what it loads, and what a worker process makes of it."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import textwrap

import pytest
import torch

from dialin import objectives
from dialin.errors import DataError
from dialin.objectives.image_classification import ImageClassification
from dialin.objectives.synthetic import Synthetic
from dialin.planning.plan import Resources
from dialin.training.configuration import TrainingOptions
from dialin.training.datasets import load, prepare
from dialin.training.device_data import place
from tests.conftest import ROOT
from tests.factories import make_spec

PARAMS = {
    "model": "small_cnn", "optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "batch_size": 32, "width": 4, "depth": 2,
    "dropout": 0.3, "augmentation": "crop+flip",
}  # fmt: skip


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def build(data_dir, *overrides):
    return objectives.build(
        make_spec("objective.samples=300", "budget.epochs=4", *overrides, dataset="digits"), data_dir
    )


def in_a_new_process(script, *arguments):
    """What a script prints as JSON, warnings being errors."""
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_specification_becomes_its_objective(tmp_path):
    overrides = (
        "objective.metric=val_loss", "objective.mode=min", "objective.validation_fraction=0.3",
        "objective.split_seed=7", "early_stopping.doctor=off",
    )  # fmt: skip
    assert build(tmp_path, *overrides) == ImageClassification(
        dataset="digits",
        data_dir=tmp_path,
        validation_fraction=0.3,
        samples=300,
        split_seed=7,
        training=TrainingOptions(epochs=4, metric="val_loss", maximize=False, doctor=False),
    )
    assert isinstance(objectives.build(make_spec(), tmp_path), Synthetic)


def test_nothing_heavy_is_loaded_before_a_trial_starts(data_dir, tmp_path):
    objective = build(data_dir)
    objective.prepare(print)
    (tmp_path / "objective").write_bytes(pickle.dumps(objective))
    loaded = in_a_new_process(
        """
        import json, pickle, sys
        from pathlib import Path
        objective = pickle.loads(Path(sys.argv[1]).read_bytes())
        objective.prepare(sys.exit)
        heavy = ("torch", "torchvision", "sklearn", "PIL", "ray", "mlflow", "optuna")
        print(json.dumps([repr(objective), [name for name in heavy if name in sys.modules]]))
        """,
        tmp_path / "objective",
    )
    assert loaded == [repr(objective), []]


GO_ON = """
    import json, pickle, sys
    from pathlib import Path
    from dialin.planning.plan import Resources
    objective, params, seed = pickle.loads(Path(sys.argv[1]).read_bytes())
    import torch
    torch.manual_seed(999); torch.rand(5)  # whatever a process has drawn before
    run = objective.start(params, seed, Resources())
    run.load(Path(sys.argv[2]))
    epochs = [{k: v for k, v in run.epoch().items() if k != "seconds"} for _ in range(2)]
    weights = [value.flatten().tolist() for value in run.model.state_dict().values()]
    print(json.dumps([epochs, run.test(), weights]))
"""


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "lr": 0.01}, {"schedule": "plateau"}], ids=str)
def test_another_process_goes_on_to_the_bit(data_dir, tmp_path, changes):
    objective, params, seed = build(data_dir), {**PARAMS, **changes}, 2**62 + 5
    run = objective.start(params, seed, Resources())
    for epoch in range(1, 5):
        metrics = run.epoch()
        if epoch == 2:
            (tmp_path / "state").mkdir()
            run.save(tmp_path / "state")
    (tmp_path / "trial").write_bytes(pickle.dumps((objective, params, seed)))
    epochs, tested, weights = in_a_new_process(GO_ON, tmp_path / "trial", tmp_path / "state")
    metrics.pop("seconds")
    assert epochs[1] == metrics
    assert tested == run.test()
    assert weights == [value.flatten().tolist() for value in run.model.state_dict().values()]


def test_training_leaves_the_process_generators_alone(data_dir):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    run = build(data_dir).start(PARAMS, 1, Resources())
    run.epoch()
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1.0, 1), (2.9, 2)])
def test_a_trial_has_the_threads_of_its_cpus(data_dir, cpus, threads):
    before = torch.get_num_threads()
    try:
        build(data_dir).start(PARAMS, 1, Resources(cpus))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_the_split_seed_decides_and_the_trials_seed_does_not(data_dir):
    def rows(split_seed, seed):
        run = build(data_dir, f"objective.split_seed={split_seed}").start(PARAMS, seed, Resources())
        return run.splits.train.rows.tolist(), run.splits.validation.rows.tolist()

    assert rows(0, 1) == rows(0, 2)
    assert rows(0, 1) != rows(1, 1)


def test_params_not_named_take_the_catalogues_defaults(data_dir):
    run = build(data_dir).start({"model": "resnet18", "width": 4, "optimizer": "adamw"}, 1, Resources())
    assert run.training_step.optimizer.defaults["betas"] == (0.9, 0.999)
    assert run.training_step.optimizer.param_groups[0]["weight_decay"] == 5e-4
    assert run.epoch()["lr"] < 1e-3  # adamw's default, along a cosine


def test_an_unknown_data_set(tmp_path):
    objective = ImageClassification("cifar11", tmp_path, 0.1, None, 0, TrainingOptions(1, "val_accuracy", True))
    with pytest.raises(DataError, match="unknown data set 'cifar11'; did you mean 'cifar10'"):
        objective.prepare(print)


def test_a_split_without_images_to_validate_on_is_an_error(data_dir):
    data = load(prepare("digits", data_dir, print))
    with pytest.raises(DataError, match="no image to validate on: of the 8 training images in use no class has two"):
        place(data, "cpu", 0.1, 8, 0)
