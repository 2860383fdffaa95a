"""The objective synthetic: a formula that behaves like training and takes microseconds.

It is for demonstrations, tests and benchmarks. Validation accuracy rises along 1 - exp(-rate * epoch) to a maximum that
falls with the distance of each knob from its optimum. Of learning rate, momentum and batch size only the effective step
lr / (1 - momentum) / (batch_size / 128) ** 0.5 matters; one that is too large diverges within two epochs.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dialin.errors import DataError
from dialin.objectives.base import Metrics
from dialin.planning.plan import Resources
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding
from dialin.specification.metrics import MEASURED
from dialin.specification.range_tests import Curve, Sweep
from dialin.specification.study_spec import StudySpec

CLASSES = 10
CHANCE = 1 / CLASSES
# The best effective step, by optimizer.
_BEST_STEP = {"sgd": 0.5, "rmsprop": 2e-3, "adam": 2e-3, "adamw": 3e-3}
_DIVERGES_BEYOND = 1.6  # decades above the best step
# What each value of a knob adds to the highest accuracy.
_TOPS: Mapping[str, Mapping[Scalar, float]] = {
    "optimizer": {"sgd": 0.0, "adamw": -0.005, "adam": -0.01, "rmsprop": -0.02},
    "schedule": {"cosine": 0.0, "step": -0.004, "plateau": -0.008, "fixed": -0.02},
    "normalization": {"batch": 0.0, "group": -0.01, "layer": -0.015, "none": -0.05},
}


@dataclass(frozen=True)
class Synthetic:
    """The formula as an objective."""

    epochs: int
    """Epochs of a full trial."""
    epoch_seconds: float = 0.0
    """How long an epoch takes."""
    measured: tuple[str, ...] = ()
    """What a trial measures beside accuracy and loss: names of `specification.metrics.MEASURED`."""

    @classmethod
    def from_spec(cls, spec: StudySpec) -> Synthetic:
        """Return the objective of a specification."""
        measured = tuple(name for name in spec.further if name in MEASURED)
        return cls(spec.budget.epochs, spec.data_objective.epoch_seconds, measured)

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Do nothing."""

    def range_test(self, params: Mapping[str, Scalar], seed: int, resources: Resources, sweep: Sweep) -> Curve:
        """Return a curve with the typical course: flat at first, a rise to the best rate, a fall, then divergence."""
        generator = np.random.default_rng([seed % 2**32, 7])
        rates: list[float] = []
        losses: list[float] = []
        accuracies: list[float] = []
        for lr in sweep.rates():
            excess = SyntheticRun(self, {**params, "lr": lr}, seed).excess()
            if excess > _DIVERGES_BEYOND:
                return Curve(tuple(rates), tuple(losses), tuple(accuracies), diverged_at=lr)
            height = 1 / (1 + math.exp(-3 * (excess + 1.5))) * math.exp(-(max(0.0, excess) ** 2))
            accuracies.append(max(CHANCE, CHANCE + 0.8 * height + float(generator.normal(0, 0.005))))
            losses.append(_loss(accuracies[-1]))
            rates.append(lr)
        return Curve(tuple(rates), tuple(losses), tuple(accuracies))

    def range_test_epochs(self, params: Mapping[str, Scalar], steps: int) -> float:
        """Return the cost of `steps` steps, in epochs of training."""
        return steps / 100

    def start(self, params: Mapping[str, Scalar], seed: int, resources: Resources) -> SyntheticRun:
        """Start a trial."""
        return SyntheticRun(self, params, seed)


class SyntheticRun:
    """One trial. The noise derives from the seed and the epoch, so that a resumed run continues as if never
    interrupted."""

    def __init__(self, objective: Synthetic, params: Mapping[str, Scalar], seed: int) -> None:
        self._objective = objective
        self._params = params
        self._seed = seed
        self._epoch = 0
        self._best = -math.inf

    def epoch(self) -> Metrics:
        """Return the metrics of one more epoch."""
        began = time.monotonic()
        if self._objective.epoch_seconds:
            time.sleep(self._objective.epoch_seconds)
        self._epoch += 1
        lr = self._number("lr", 0.1) * _schedule_factor(self._params, self._epoch / self._objective.epochs)
        seconds = time.monotonic() - began
        if self.excess() > _DIVERGES_BEYOND and self._epoch >= 2:
            return {"train_loss": math.nan, "train_accuracy": CHANCE, "val_loss": math.nan, "val_accuracy": CHANCE,
                    "lr": lr, "seconds": seconds, **self._measures(seconds)}  # fmt: skip
        accuracy = self._accuracy(self._epoch)
        self._best = max(self._best, accuracy)
        gap = 0.02 * self._epoch / self._objective.epochs * (1 - self._number("dropout", 0.0))
        return {
            "train_loss": _loss(min(0.999, accuracy + gap)),
            "train_accuracy": min(1.0, accuracy + gap),
            "val_loss": _loss(accuracy),
            "val_accuracy": accuracy,
            "lr": lr,
            "seconds": seconds,
            **self._measures(seconds),
        }

    def save(self, folder: Path) -> None:
        """Write the state to `folder`."""
        state = {"epoch": self._epoch, "best": self._best if self._epoch else None, "params": dict(self._params)}
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        """Restore a saved state. Raises DataError for the state of another configuration."""
        state = json.loads((folder / "state.json").read_text())
        if state["params"] != dict(self._params):
            raise DataError(f"checkpoint {folder} belongs to another configuration: {state['params']}")
        self._epoch, self._best = state["epoch"], -math.inf if state["best"] is None else state["best"]

    def test(self) -> Metrics:
        """Return accuracy and loss on a test split: those of the best epoch, slightly worse."""
        noise = float(np.random.default_rng([self._seed % 2**32, 10**6]).normal(0, 0.002))
        accuracy = min(1.0, max(CHANCE, self._best - 0.005 + noise))
        return {"accuracy": accuracy, "loss": _loss(accuracy)}

    def findings(self) -> list[Finding]:
        """Return no findings."""
        return []

    def close(self) -> None:
        """Do nothing."""

    def _measures(self, seconds: float) -> Metrics:
        """What the study wants to know of the trial's cost: that of a network of so many channels and blocks, each with
        a normalization or without, whose activations take a mebibyte for each 8 images."""
        width, depth = self._number("width", 16.0), self._number("depth", 3.0)
        normalizes = self._params.get("normalization", "batch") != "none"
        parameters = depth * (9 * width * width + (2 * width if normalizes else 0))
        memory = 4 * parameters / 2**20 + self._number("batch_size", 128.0) / 8
        found = {"parameters": parameters, "epoch_seconds": seconds, "memory": memory}
        return {name: found[name] for name in self._objective.measured}

    def _accuracy(self, epoch: int) -> float:
        noise = float(np.random.default_rng([self._seed % 2**32, epoch]).normal(0, 0.004))
        distance = self.excess()
        speed = 5.0 / self._objective.epochs * math.exp(-0.5 * max(0.0, -distance))
        rise = 1 - math.exp(-speed * epoch)
        return min(0.999, max(CHANCE / 2, CHANCE + (self._top() - CHANCE) * rise + noise))

    def _top(self) -> float:
        top = 0.985 - 0.10 * self.excess() ** 2 / (1 + 0.25 * self.excess() ** 2)
        top += sum(table.get(self._params.get(knob), 0.0) for knob, table in _TOPS.items())
        top -= 0.01 * abs(math.log10(max(self._number("weight_decay", 5e-4), 1e-8) / 5e-4))
        top -= 0.15 * (self._number("dropout", 0.1) - 0.1) ** 2
        return max(top, CHANCE)

    def excess(self) -> float:
        """Return the decades between the effective step and the best one."""
        momentum = self._number("momentum", 0.0)
        batch_size = self._number("batch_size", 128.0)
        effective = self._number("lr", 0.1) / (1 - momentum) / math.sqrt(batch_size / 128)
        return math.log10(max(effective, 1e-12) / _BEST_STEP[str(self._params.get("optimizer", "sgd"))])

    def _number(self, name: str, default: float) -> float:
        value = self._params.get(name, default)
        return float(value) if isinstance(value, int | float) else default


def _schedule_factor(params: Mapping[str, Scalar], progress: float) -> float:
    match params.get("schedule", "cosine"):
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * progress))
        case "step":
            return 0.1 ** (int(progress > 0.5) + int(progress > 0.75))
        case _:
            return 1.0


def _loss(accuracy: float) -> float:
    return -math.log(max(accuracy, 1e-3))
