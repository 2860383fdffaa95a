"""The learning-rate range test: train while the learning rate rises, and record what that does to loss and accuracy.

Smith 2015/2017, Cyclical learning rates for training neural networks, section 3.3. `planning.range_test_reading` turns
the curves into bounds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from dialin.planning.seeds import seed_of_trial
from dialin.specification.domains import Scalar
from dialin.specification.range_tests import Curve, Sweep
from dialin.specification.study_spec import Precision
from dialin.training.augmentation import augment
from dialin.training.configuration import Configuration
from dialin.training.device_data import Split, Splits
from dialin.training.network import build_network
from dialin.training.optimizers import build_optimizer
from dialin.training.precision import resolve
from dialin.training.schedules import base_rate
from dialin.training.step import TrainingStep

DIVERGED = 4.0
"""The test ends when the smoothed loss exceeds its best by this factor; fastai and Lightning use the same."""
STEPS_BEFORE_DIVERGENCE = 5
"""Steps after which the loss is compared with its best: the mean of fewer is too noisy."""
SMOOTHING = 0.9
"""Weight of the past in the running means."""
HELD_OUT_IMAGES = 64
"""Images of the validation split that are evaluated after each step."""


@dataclass
class _RunningMean:
    """An exponential moving average, corrected for its start at 0 (Kingma and Ba 2015, section 3)."""

    weight: float = SMOOTHING
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> float:
        """Return the mean with one more value."""
        self.total = self.weight * self.total + (1 - self.weight) * value
        self.count += 1
        return self.total / (1 - self.weight**self.count)


def range_test(
    params: Mapping[str, Scalar], splits: Splits, seed: int, sweep: Sweep, precision: Precision = "auto"
) -> Curve:
    """Run the test once for a configuration, from new weights drawn from `seed`, in the arithmetic of its trials."""
    configuration = Configuration.from_params(params)
    with _seeded(splits, seed_of_trial(seed, -1)):
        model = build_network(configuration, splits)
        return RangeTest(configuration, splits, seed, precision).run(
            model, build_optimizer(model, configuration), sweep
        )


@dataclass(frozen=True)
class RangeTest:
    """The range test of one configuration on one data set."""

    configuration: Configuration
    splits: Splits
    seed: int
    """Determines the order of the images, their augmentation and dropout."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass; see `precision.resolve`."""

    def run(self, model: nn.Module, optimizer: Optimizer, sweep: Sweep) -> Curve:
        """Train copies of a network and its optimizer at the rates of `sweep`, one step each.

        The curve holds smoothed loss and accuracy on held-out images after each step. The test ends early when the
        smoothed training loss exceeds 4 times its best, or is not finite. Network, optimizer and torch's generators are
        as before afterwards.
        """
        model, optimizer = copy.deepcopy((model, optimizer))
        with _seeded(self.splits, seed_of_trial(self.seed, -2)):
            generator = torch.Generator(self.splits.train.images.device)
            generator.manual_seed(seed_of_trial(self.seed, -3))
            precision = resolve(self.precision, self.splits.train.images)
            step = TrainingStep(model, optimizer, self.configuration, self.splits.statistics, precision)
            return _sweep(_StepAndLook(step, self.configuration, self.splits, generator), sweep)


@contextmanager
def _seeded(splits: Splits, seed: int) -> Iterator[None]:
    """Seed torch's global generators for the time of a block."""
    images = splits.train.images
    with torch.random.fork_rng([images.device] if images.is_cuda else []):
        torch.manual_seed(seed)
        yield


def _sweep(test: _StepAndLook, sweep: Sweep) -> Curve:
    rates: list[float] = []
    losses: list[float] = []
    accuracies: list[float] = []
    train, loss_of, accuracy_of = _RunningMean(), _RunningMean(), _RunningMean()
    best = math.inf
    for lr in sweep.rates():
        train_loss, loss, accuracy = test.take(lr)
        smooth = train.add(train_loss)
        has_diverged = len(rates) > STEPS_BEFORE_DIVERGENCE and smooth > DIVERGED * best
        if has_diverged or not math.isfinite(train_loss):
            return Curve(tuple(rates), tuple(losses), tuple(accuracies), diverged_at=lr)
        best = min(best, smooth)
        rates.append(lr)
        # One infinite value would stay in the running mean for ever, so the curve repeats its last one.
        losses.append(loss_of.add(loss) if math.isfinite(loss) else losses[-1] if losses else math.nan)
        accuracies.append(accuracy_of.add(accuracy))
    return Curve(tuple(rates), tuple(losses), tuple(accuracies), diverged_at=None)


class _StepAndLook:
    """One training step at a given learning rate, and an evaluation on held-out images after it."""

    def __init__(
        self, step: TrainingStep, configuration: Configuration, splits: Splits, generator: torch.Generator
    ) -> None:
        self._step, self._configuration, self._splits, self._generator = step, configuration, splits, generator

    def take(self, lr: float) -> tuple[float, float, float]:
        """Return the training loss of the step, then loss and accuracy on held-out images."""
        images, labels = self._draw(self._splits.train, self._configuration.optimizer.batch_size)
        images = augment(images, self._configuration.images.augmentation, self._generator)
        self._step.model.train()
        loss = self._step.take(images, labels, self._scaled(lr)).loss
        return float(loss.detach()), *self._look()

    def _scaled(self, lr: float) -> float:
        """The rate of a step whose knob `lr` has this value: as in a trial, it follows the batch size."""
        return base_rate(replace(self._configuration.optimizer, lr=lr))

    @torch.no_grad()
    def _look(self) -> tuple[float, float]:
        # Normalization uses the statistics of the batch, as in training: running ones lag behind weights that change
        # this fast. What the look does to the running ones is undone.
        images, labels = self._draw(self._splits.validation, HELD_OUT_IMAGES)
        buffers = {name: value.clone() for name, value in self._step.model.named_buffers()}
        logits = self._step.logits(images)
        for name, value in self._step.model.named_buffers():
            value.copy_(buffers[name])
        return float(functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())

    def _draw(self, split: Split, count: int) -> tuple[Tensor, Tensor]:
        chosen = torch.randperm(len(split), generator=self._generator, device=self._generator.device)[:count]
        return split.take(chosen)
