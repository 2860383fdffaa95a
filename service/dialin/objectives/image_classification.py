"""Image classification as something that can be tuned. torch is loaded when the first trial starts."""

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
from dialin.specification.range_tests import Curve, Sweep
from dialin.specification.study_spec import Precision, StudySpec

if TYPE_CHECKING:
    from dialin.training.device_data import Splits


@dataclass(frozen=True)
class ImageClassification:
    """A data set and how it is split; see `spec.study_spec.ObjectiveSpec` for the fields. `epochs`: of a full trial."""

    dataset: str
    data_dir: Path
    metric: str
    maximize: bool
    epochs: int
    validation_fraction: float
    samples: int | None
    split_seed: int
    doctor: bool = True
    compile: bool = False
    precision: Precision = "auto"

    @classmethod
    def from_spec(cls, spec: StudySpec, data_dir: Path) -> ImageClassification:
        asked = spec.data_objective
        return cls(
            dataset=asked.dataset,
            data_dir=data_dir,
            metric=asked.metric,
            maximize=asked.mode == "max",
            epochs=spec.budget.epochs,
            validation_fraction=asked.validation_fraction,
            samples=asked.samples,
            split_seed=asked.split_seed,
            doctor=spec.early_stopping.doctor != "off",
            compile=asked.compile,
            precision=asked.precision,
        )

    def prepare(self, progress: Callable[[str], None]) -> None:
        from dialin.training.datasets import prepare

        prepare(self.dataset, self.data_dir, progress)

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        from dialin.training.range_test import range_test

        return range_test(params, self._splits(self._device(resources)), seed, sweep, self.precision)

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        import numpy as np

        from dialin.training.datasets import prepare
        from dialin.training.range_test import HELD_OUT

        images = len(np.load(prepare(self.dataset, self.data_dir, lambda _text: None) / "y_train.npy", mmap_mode="r"))
        train = min(images, self.samples or images) * (1 - self.validation_fraction)
        # A forward pass alone is about a third of a training step.
        return steps * (int(params["batch_size"]) + HELD_OUT / 3) / train  # type: ignore[arg-type]

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> Run:
        from dialin.training.run import ImageRun

        splits = self._splits(self._device(resources))
        return ImageRun(
            params,
            splits,
            seed,
            self.epochs,
            self.metric,
            self.maximize,
            doctor=self.doctor,
            compile_network=self.compile,
            precision=self.precision,
        )

    def _device(self, resources: Resources) -> str:
        """Where a trial with these resources trains; its threads are limited to its cpus on the way."""
        import torch

        if resources.gpus > 0 and not torch.cuda.is_available():
            raise DataError(f"the trial was given {resources.gpus:g} gpus, and torch sees none here")
        torch.set_num_threads(max(1, int(resources.cpus)))
        return "cuda" if resources.gpus > 0 else "cpu"

    def _splits(self, device: str) -> Splits:
        """The data on the device. One copy a process is kept: the next trial of a reused actor has it at once."""
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
