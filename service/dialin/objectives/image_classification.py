"""The objective image_classification: networks of `training/` on a data set.

torch is imported when the first trial starts, not with this module: the driver never needs it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dialin.errors import DataError
from dialin.objectives.base import Run
from dialin.planning.plan import Resources
from dialin.specification.domains import Scalar
from dialin.specification.metrics import MEASURED
from dialin.specification.range_tests import Curve, Sweep
from dialin.specification.study_spec import StudySpec
from dialin.training.configuration import Configuration, TrainingOptions

if TYPE_CHECKING:
    from dialin.training.device_data import Splits


@dataclass(frozen=True)
class ImageClassification:
    """A data set, how it is split, and how trials train on it."""

    dataset: str
    """Name of a data set, `npz:PATH` or `folder:PATH`."""
    data_dir: Path
    """Folder with the data sets, to which missing ones are downloaded."""
    validation_fraction: float
    """Fraction of the training images that trials validate on."""
    samples: int | None
    """Number of training images in use; None: all."""
    split_seed: int
    """Seed of the choice of images for validation, the same for all trials."""
    training: TrainingOptions
    """How a trial trains, and the metric by which it is compared."""

    @classmethod
    def from_spec(cls, spec: StudySpec, data_dir: Path) -> ImageClassification:
        """Return the objective of a specification; data sets lie below `data_dir`."""
        asked = spec.data_objective
        return cls(
            dataset=asked.dataset,
            data_dir=data_dir,
            validation_fraction=asked.validation_fraction,
            samples=asked.samples,
            split_seed=asked.split_seed,
            training=TrainingOptions(
                epochs=spec.budget.epochs,
                metric=asked.metric,
                maximize=asked.mode == "max",
                doctor=spec.early_stopping.doctor != "off",
                compile=asked.compile,
                precision=asked.precision,
                measured=tuple(name for name in spec.further if name in MEASURED),
            ),
        )

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Download the data set, or read it from the user's files, unless this machine has it already."""
        from dialin.training.datasets import prepare

        prepare(self.dataset, self.data_dir, progress)

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        """Run the learning-rate range test of a configuration once."""
        from dialin.training.range_test import range_test

        return range_test(params, self._splits(self._device(resources)), seed, sweep, self.training.precision)

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        """Return the cost of so many steps of a range test, in epochs of training."""
        import numpy as np

        from dialin.training.datasets import prepare
        from dialin.training.range_test import HELD_OUT_IMAGES

        images = len(np.load(prepare(self.dataset, self.data_dir, lambda _text: None) / "y_train.npy", mmap_mode="r"))
        train = min(images, self.samples or images) * (1 - self.validation_fraction)
        # A forward pass alone costs about a third of a training step.
        images_per_step = Configuration.from_params(params).optimizer.batch_size + HELD_OUT_IMAGES / 3
        return steps * images_per_step / train

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> Run:
        """Start a trial. Raises DataError if its resources include a GPU and torch finds none."""
        from dialin.training.run import ImageRun

        return ImageRun(params, self._splits(self._device(resources)), seed, self.training)

    def _device(self, resources: Resources) -> str:
        """Return the device that a trial with these resources trains on, and limit torch to the trial's CPUs."""
        import torch

        if resources.gpus > 0 and not torch.cuda.is_available():
            raise DataError(
                f"a trial was given {resources.gpus:g} gpus, but torch finds no GPU on this machine; give "
                "trials no gpus, or install a torch that supports the GPU"
            )
        torch.set_num_threads(max(1, int(resources.cpus)))
        return "cuda" if resources.gpus > 0 else "cpu"

    def _splits(self, device: str) -> Splits:
        """Return the data on the device. The process keeps one copy, which the next trial of a reused worker takes."""
        key = (os.getpid(), device, self)
        if key not in _LOADED:
            _LOADED.clear()
            _LOADED[key] = self._load(device)
        return _LOADED[key]

    def _load(self, device: str) -> Splits:
        from dialin.training.datasets import load, prepare
        from dialin.training.device_data import place

        data = load(prepare(self.dataset, self.data_dir, lambda _text: None))
        return place(data, device, self.validation_fraction, self.samples, self.split_seed)


_LOADED: dict[tuple[int, str, ImageClassification], Splits] = {}
