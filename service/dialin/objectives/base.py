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
    """Raised by `Run.epoch` when the training has ended by itself. The message says after which epoch, and why."""


class Run(Protocol):
    """One trial in training. Not thread safe. All randomness derives from the seed that it was started with."""

    def epoch(self) -> Metrics:
        """Train one more epoch, validate, and return the metrics of that epoch.

        Raises NoMoreEpochsError when there is no further epoch; the trial is then complete.
        """

    def save(self, folder: Path) -> None:
        """Write the whole state to an existing folder. A run that loads it continues as if never interrupted."""

    def load(self, folder: Path) -> None:
        """Restore the state that `save` wrote. Raises DataError for the state of another configuration."""

    def test(self) -> Metrics:
        """Return the metrics of the best epoch's weights on the test split; empty if there is no test split.

        No other method reads the test split.
        """

    def findings(self) -> Sequence[Finding]:
        """Return the new findings of the doctor, which checks training statistics, in the last epoch; may be empty."""

    def close(self) -> None:
        """Release memory and devices. The run is not used afterwards."""


class Objective(Protocol):
    """A kind of training that a study can tune. Picklable, because it is sent to the workers."""

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Prepare the data on this machine: download, unpack, check. Fast if that was done before. `progress` is called
        with lines about it. Raises DataError for data that is missing or damaged."""

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        """Run the learning-rate range test of a configuration once, from new weights. The `lr` in `params` is
        ignored."""

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        """Return the cost of `steps` steps of a range test, in epochs of training."""

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> Run:
        """Start a trial. `params` has the value of every active knob, including fixed ones and defaults."""
