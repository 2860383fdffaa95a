"""The protocols of an objective and of one trial of it in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from dialin.planning.plan import Resources
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding
from dialin.specification.range_tests import Curve, Sweep

Metrics = dict[str, float]
"""Metric name -> value after one epoch. A metric names its split: train_loss, val_accuracy, ..."""


class NoMoreEpochsError(Exception):
    """Raised by `Run.epoch` when the training itself has ended. The message says after which epoch, and why."""


class Run(Protocol):
    """One trial in training. Not thread safe. All randomness derives from the seed that it was started with."""

    def epoch(self) -> Metrics:
        """Train one more epoch, validate, and return the metrics of that epoch.

        Raises NoMoreEpochsError when there is none, which completes the trial.
        """

    def save(self, folder: Path) -> None:
        """Write the whole state to an existing folder. A run that loads it continues as if never interrupted."""

    def load(self, folder: Path) -> None:
        """Take over the state that `save` wrote. Raises DataError when it is that of another configuration."""

    def test(self) -> Metrics:
        """Return metrics on the test split of the best epoch's weights; an empty mapping without a test split.

        Nothing else reads the test split.
        """

    def findings(self) -> Sequence[Finding]:
        """Return what the doctor newly found in the last epoch; empty without a doctor."""

    def close(self) -> None:
        """Release memory and devices. The run is not used afterwards."""


class Objective(Protocol):
    """One kind of training that a study can tune. Picklable: it is sent to the workers."""

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Make this machine ready: download, unpack, check. Cheap when that was done before. Raises DataError."""

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        """Run the learning-rate range test of a configuration once, from new weights. Its `lr` has no influence."""

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        """Return the cost of so many steps of a range test, in epochs of training."""

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> Run:
        """Begin a trial. `params` holds every active knob, including fixed ones and defaults."""
