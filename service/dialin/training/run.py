"""One trial of image classification: the network, its data and its state, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dialin.errors import DataError
from dialin.planning.seeds import seed_of_trial
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding
from dialin.training.augmentation import augment
from dialin.training.compilation import compiled
from dialin.training.configuration import Configuration, TrainingOptions
from dialin.training.device_data import Split, Splits
from dialin.training.doctor import Doctor
from dialin.training.measures import TrialMeasures
from dialin.training.network import build_network
from dialin.training.optimizers import build_optimizer
from dialin.training.precision import resolve
from dialin.training.schedules import Plateau, learning_rate
from dialin.training.step import TrainingStep

EVALUATION_BATCH = 500
"""Images of one forward pass without gradients."""
STATE_FILE = "state.pt"
"""File of a checkpoint that holds a run's state."""


@dataclass
class _Best:
    """The best epoch so far."""

    value: float = math.nan
    """Its metric; NaN while there is no such epoch."""
    epoch: int = 0
    weights: dict[str, Tensor] | None = None
    """The state of the network after it; None: the network itself has them."""


class _EpochOfTraining(NamedTuple):
    """One pass over the training split."""

    loss: float
    accuracy: float
    lr: float
    """Learning rate of the last step."""
    batches: list[Tensor]
    """Positions in the training split, one tensor for each step."""


class ImageRun:
    """One trial in training. Implements `objectives.base.Run`.

    Every random number is a function of the seed and the epoch, so a run that was saved and loaded continues exactly as
    it would have without the interruption.
    """

    def __init__(self, params: Mapping[str, Scalar], splits: Splits, seed: int, options: TrainingOptions) -> None:
        self._params, self.splits, self._seed, self._options = dict(params), splits, seed, options
        self._configuration = configuration = Configuration.from_params(params)
        self._device = splits.train.images.device
        self._measures = TrialMeasures(options.measured, self._device)
        with self._randomness(0):
            model = build_network(configuration, splits)
        # The compiled form shares the weights. It takes steps of a full batch that the doctor does not watch: other
        # shapes would be compiled anew, and hooks on the activations are not called in it.
        self._compiled = compiled(model) if options.compile else model
        precision = resolve(options.precision, splits.train.images)
        optimizer = build_optimizer(model, configuration)
        self._step = TrainingStep(model, optimizer, configuration, splits.statistics, precision)
        schedule = configuration.schedule
        self._plateau = Plateau(schedule.plateau_patience, schedule.decay_factor, schedule.plateau_mode)
        self._doctor = Doctor(model, splits.classes, options.epochs) if options.doctor else None
        self._findings: list[Finding] = []
        self._epoch = 0
        self._best = _Best()

    @property
    def model(self) -> nn.Module:
        """The network in training."""
        return self._step.model

    @property
    def training_step(self) -> TrainingStep:
        """What trains the network, with its optimizer."""
        return self._step

    def epoch(self) -> dict[str, float]:
        """Train and validate one more epoch; return its metrics, the doctor's statistics among them."""
        began = time.perf_counter()
        self._epoch += 1
        with self._randomness(self._epoch):
            trained = self._train()
        val_loss, val_accuracy = self.evaluate(self.splits.validation)
        metrics = {
            "train_loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "lr": trained.lr,
            "seconds": time.perf_counter() - began,
        }
        metrics |= self._measures.after_epoch(self.model, metrics["seconds"])
        if self._doctor is not None:
            self._findings, statistics = self._doctor.epoch_done(self._epoch, metrics, trained.batches)
            metrics |= statistics
        if self._configuration.schedule.schedule == "plateau":
            self._plateau.observe(metrics[self._configuration.schedule.plateau_metric])
        self._note_best(metrics[self._options.metric])
        return metrics

    def save(self, folder: Path) -> None:
        """Write the whole state of the run to `folder`."""
        state = {
            "params": self._params,
            "seed": self._seed,
            "precision": self._step.precision,
            "epoch": self._epoch,
            "model": self.model.state_dict(),
            "optimizer": self._step.optimizer.state_dict(),
            "plateau": asdict(self._plateau),
            "best": asdict(self._best),
            "doctor": self._doctor.state() if self._doctor is not None else None,
            **({"measures": self._measures.state()} if self._options.measured else {}),
        }
        torch.save(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        """Take over the state that `save` wrote. Raises DataError when it is that of another configuration."""
        state = torch.load(folder / STATE_FILE, map_location=self._device, weights_only=True)
        if state["params"] != self._params:
            raise DataError(f"checkpoint {folder} belongs to another configuration: {state['params']}")
        self.model.load_state_dict(state["model"])
        self._step.optimizer.load_state_dict(state["optimizer"])
        self._plateau = Plateau(**state["plateau"])
        self._best = _Best(**state["best"])
        if self._doctor is not None and state["doctor"] is not None:
            self._doctor.load_state(state["doctor"])
        if "measures" in state:
            self._measures.load_state(state["measures"])
        # A trial that continues on another machine keeps its arithmetic, whatever "auto" would choose there. States of
        # earlier versions do not name it.
        self._step.precision = state.get("precision", self._step.precision)
        self._epoch, self._seed = state["epoch"], state["seed"]

    def test(self) -> dict[str, float]:
        """Return accuracy and loss on the test split of the best epoch's weights. The network stays as it is."""
        current = _copy_state(self.model)
        if self._best.weights is not None:
            self.model.load_state_dict(self._best.weights)
        loss, accuracy = self.evaluate(self.splits.test)
        self.model.load_state_dict(current)
        return {"accuracy": accuracy, "loss": loss}

    def findings(self) -> list[Finding]:
        """Return what the doctor found in the last epoch."""
        return self._findings

    def close(self) -> None:
        """Release the memory of the network and the data."""
        del self._step, self._compiled, self._doctor, self.splits
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def evaluate(self, split: Split) -> tuple[float, float]:
        """Return mean cross entropy and accuracy of the network on a split."""
        self.model.eval()
        loss_sum, correct = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
        for start in range(0, len(split), EVALUATION_BATCH):
            images, labels = split.take(slice(start, start + EVALUATION_BATCH))
            logits = self._step.logits(images)
            loss_sum += functional.cross_entropy(logits, labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
        return float(loss_sum) / len(split), float(correct) / len(split)

    def _train(self) -> _EpochOfTraining:
        self.model.train()
        train, generator = self.splits.train, torch.Generator(self._device)
        generator.manual_seed(seed_of_trial(self._seed, self._epoch))
        order = torch.randperm(len(train), generator=generator, device=self._device)
        batches = split_batches(order, self._configuration.optimizer.batch_size)
        loss_sum, correct = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
        lr = 0.0
        for index, batch in enumerate(batches):
            lr = self._lr((self._epoch - 1) * len(batches) + index, len(batches))
            images, labels = train.take(batch)
            images = augment(images, self._configuration.images.augmentation, generator)
            with self._watching(index, len(batches)) as watched:
                is_full = len(batch) == len(batches[0])
                network = self._compiled if is_full and not watched else self.model
                step = self._step.take(images, labels, lr, network)
            if self._doctor is not None:
                self._doctor.step_done(step.loss)
            # The sums stay on the device: reading a number at each step would make the device wait for Python.
            loss_sum += step.loss.detach() * len(batch)
            correct += (step.logits.detach().argmax(1) == labels).sum()
        return _EpochOfTraining(float(loss_sum) / len(train), float(correct) / len(train), lr, batches)

    def _watching(self, step: int, steps: int) -> AbstractContextManager[bool]:
        """The context of a step, which says whether the doctor watches it."""
        if self._doctor is not None and self._doctor.is_due(step, steps):
            return self._doctor.watched()
        return nullcontext(False)

    def _lr(self, at_step: int, steps_per_epoch: int) -> float:
        lr = learning_rate(self._configuration, at_step, steps_per_epoch, self._options.epochs)
        return max(lr * self._plateau.factor, self._configuration.schedule.min_lr)

    def _note_best(self, value: float) -> None:
        if not math.isfinite(value):
            better = False
        elif math.isnan(self._best.value):
            better = True
        else:
            better = value > self._best.value if self._options.maximize else value < self._best.value
        if better:
            self._best = _Best(value, self._epoch, _copy_state(self.model))

    @contextmanager
    def _randomness(self, epoch: int) -> Iterator[None]:
        """Seed torch's global generators, which initialization and dropout draw from, for the time of a block."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed_of_trial(self._seed, -1 - epoch))
            yield


def split_batches(order: Tensor, size: int) -> list[Tensor]:
    """Split the order of an epoch's images into batches of `size`.

    A last batch of one image joins the one before it, because batch normalization has no variance of one value.
    """
    batches = list(order.split(size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _copy_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
