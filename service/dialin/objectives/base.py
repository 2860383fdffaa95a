"""What a thing that can be tuned looks like to the rest of the house."""

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
    """What `Run.epoch` raises when the run has come to its own end; the message says after which epoch, and why."""


class Run(Protocol):
    """One trial being trained. Not thread safe. Everything random comes from the seed that it was started with."""

    def epoch(self) -> Metrics:
        """Train one more epoch, validate, and return the metrics of that epoch. Raises NoMoreEpochsError when there
        is none, which completes the trial."""

    def save(self, folder: Path) -> None:
        """Write the whole state into `folder` (it exists): a run that loads it goes on as if never interrupted."""

    def load(self, folder: Path) -> None:
        """Take over a state that `save` wrote. Raises DataError when it does not belong to this configuration."""

    def test(self) -> Metrics:
        """Metrics on the test split of the weights of the best epoch so far; the only place that reads that split.
        None of a run that has none."""

    def findings(self) -> Sequence[Finding]:
        """What the doctor newly found in the last epoch; none where nobody watches."""

    def close(self) -> None:
        """Let go of memory and devices. The run is not used afterwards."""


class Objective(Protocol):
    """One kind of thing that can be tuned. Picklable: it is sent to the workers."""

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Make this node ready: download, unpack, check. Cheap when that was done before. Raises DataError."""

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        """One run of the learning-rate range test of a configuration, from a fresh start; `lr` itself plays no part."""

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        """What so many steps of a range test cost, in epochs of training."""

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> Run:
        """Begin a trial. `params` holds every active knob, fixed and default ones too."""
