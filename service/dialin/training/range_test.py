"""The learning-rate range test: train while the rate rises, and read off the curve which rates are worth trying.

Smith 2015/2017, Cyclical learning rates for training neural networks, section 3.3: where accuracy starts to rise is the
lowest useful rate, where it falters the highest; a third of the rate at the maximum is a good lower bound too.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer

from dialin.planning.seeds import seed_of_trial
from dialin.specification import complete
from dialin.specification.domains import Scalar
from dialin.specification.range_tests import Curve, Sweep
from dialin.specification.study_spec import Precision
from dialin.training.augmentation import augment
from dialin.training.device_data import Split, Splits
from dialin.training.inputs import prepared
from dialin.training.losses import LOSSES
from dialin.training.optimizers import Penalties, build_optimizer, set_lr, take_step
from dialin.training.precision import autocast, resolve
from dialin.training.run import build_network

DIVERGED = 4.0  # times the best loss, as fastai and Lightning have it
SMOOTHING = 0.9
HELD_OUT = 64  # images a step


@dataclass
class _Smoothed:
    """An exponential mean, corrected for its start at 0 (Kingma and Ba 2015, section 3)."""

    weight: float = SMOOTHING
    total: float = 0.0
    count: int = 0

    def add(self, value: float) -> float:
        self.total = self.weight * self.total + (1 - self.weight) * value
        self.count += 1
        return self.total / (1 - self.weight**self.count)


def range_test(
    params: Mapping[str, Scalar], splits: Splits, seed: int, sweep: Sweep, precision: Precision = "auto"
) -> Curve:
    """One run of the test of a configuration, from fresh weights drawn from `seed`, in the arithmetic of its trials."""
    whole = complete(params)
    with torch.random.fork_rng([splits.train.images.device] if splits.train.images.is_cuda else []):
        torch.manual_seed(seed_of_trial(seed, -1))
        model = build_network(whole, splits)
        return sweep_rates(model, build_optimizer(model, whole), whole, splits, seed, sweep, precision)


def sweep_rates(
    model: nn.Module,
    optimizer: Optimizer,
    params: Mapping[str, Scalar],
    splits: Splits,
    seed: int,
    sweep: Sweep,
    precision: Precision = "auto",
) -> Curve:
    """Train copies of a network and its optimizer for `sweep.steps` steps, the rate rising by the same factor each, and
    record after each step the training loss, and loss and accuracy on held-out images, all smoothed.

    Ends early when the smoothed loss is over 4 times its best, or not finite. `params` is a whole configuration. Model,
    optimizer and torch's generators come out as they went in.
    """
    model, optimizer = copy.deepcopy((model, optimizer))
    device = splits.train.images.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of_trial(seed, -2))
        generator = torch.Generator(device)
        generator.manual_seed(seed_of_trial(seed, -3))
        return _sweep(_Step(model, optimizer, params, splits, generator, precision), sweep)


def _sweep(step: _Step, sweep: Sweep) -> Curve:
    rates: list[float] = []
    losses: list[float] = []
    accuracies: list[float] = []
    train, loss_of, accuracy_of = _Smoothed(), _Smoothed(), _Smoothed()
    best = math.inf
    for lr in sweep.rates():
        train_loss, loss, accuracy = step.take(lr)
        smooth = train.add(train_loss)
        if not math.isfinite(train_loss) or (len(rates) > 5 and smooth > DIVERGED * best):
            return Curve(tuple(rates), tuple(losses), tuple(accuracies), diverged_at=lr)
        best = min(best, smooth)
        rates.append(lr)
        losses.append(loss_of.add(loss) if math.isfinite(loss) else losses[-1] if losses else math.nan)
        accuracies.append(accuracy_of.add(accuracy))
    return Curve(tuple(rates), tuple(losses), tuple(accuracies), diverged_at=None)


class _Step:
    """One training step at a given rate, and a look at held-out images after it."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        params: Mapping[str, Scalar],
        splits: Splits,
        generator: torch.Generator,
        precision: Precision,
    ) -> None:
        self._precision = resolve(precision, splits.train.images)
        self._model, self._optimizer, self._params, self._splits = model, optimizer, params, splits
        self._penalties = Penalties(model, params)
        self._generator = generator

    def take(self, lr: float) -> tuple[float, float, float]:
        """The training loss of the step, then loss and accuracy on held-out images."""
        images, labels = self._draw(self._splits.train, int(self._params["batch_size"]))  # type: ignore[arg-type]
        images = augment(images, str(self._params["augmentation"]), self._generator)
        self._model.train()
        set_lr(self._optimizer, lr)
        smoothing = float(self._params["label_smoothing"])  # type: ignore[arg-type]
        loss = LOSSES[str(self._params["loss"])](self._logits(images), labels, smoothing)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._penalties.before_step(lr)
        take_step(self._optimizer)
        return float(loss.detach()), *self._look()

    @torch.no_grad()
    def _look(self) -> tuple[float, float]:
        # With the statistics of the batch, as in training: running ones lag behind weights that move this fast.
        images, labels = self._draw(self._splits.validation, HELD_OUT)
        buffers = {name: value.clone() for name, value in self._model.named_buffers()}
        logits = self._logits(images)
        for name, value in self._model.named_buffers():
            value.copy_(buffers[name])
        return float(functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())

    def _draw(self, split: Split, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = torch.randperm(len(split), generator=self._generator, device=self._generator.device)[:count]
        return split.take(chosen)

    def _logits(self, images: torch.Tensor) -> torch.Tensor:
        made = prepared(images, str(self._params["input"]), self._splits.statistics)
        with autocast(self._precision, images.device):
            logits: torch.Tensor = self._model(made)
        return logits.float()
