"""One trial of image classification: the network, its data and its state, epoch by epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from dialin.errors import DataError
from dialin.planning.seeds import seed_of_trial
from dialin.specification import complete
from dialin.specification.domains import Scalar
from dialin.specification.findings import Finding
from dialin.specification.study_spec import Precision
from dialin.training.augmentation import augment
from dialin.training.compilation import compiled
from dialin.training.device_data import Split, Splits
from dialin.training.doctor import Doctor
from dialin.training.initialization import initialize
from dialin.training.inputs import prepared
from dialin.training.losses import LOSSES
from dialin.training.models import ImageShape, build_model
from dialin.training.optimizers import Penalties, build_optimizer, set_lr, take_step
from dialin.training.precision import autocast, resolve
from dialin.training.schedules import Plateau, learning_rate

EVALUATION_BATCH = 500
STATE_FILE = "state.pt"


@dataclass
class _Best:
    """The best epoch so far. `weights` None: the network has them itself."""

    value: float = math.nan
    epoch: int = 0
    weights: dict[str, Tensor] | None = None


class ImageRun:
    """Implements `objectives.base.Run`. Every random number is a function of the seed and the epoch, so a run that was
    saved and loaded goes on exactly as it would have."""

    def __init__(
        self,
        params: Mapping[str, Scalar],
        splits: Splits,
        seed: int,
        epochs: int,
        metric: str,
        maximize: bool,
        doctor: bool = True,
        compile_network: bool = False,
        precision: Precision = "auto",
    ) -> None:
        self._params, self._splits, self._seed, self._epochs = dict(params), splits, seed, epochs
        self._all = complete(params)
        self._metric, self._maximize = metric, maximize
        self._device = splits.train.images.device
        self._precision = resolve(precision, splits.train.images)
        with self._randomness(0):
            self._model = build_network(self._all, splits)
        # For steps of a full batch that nobody watches; it shares the weights.
        self._network = compiled(self._model) if compile_network else self._model
        self._optimizer = build_optimizer(self._model, self._all)
        self._loss_of, self._smoothing = LOSSES[self._text("loss")], self._float("label_smoothing")
        self._penalties = Penalties(self._model, self._all)
        self._plateau = Plateau(self._int("plateau_patience"), self._float("decay_factor"), self._text("plateau_mode"))
        self._doctor = Doctor(self._model, splits.classes, epochs) if doctor else None
        self._findings: list[Finding] = []
        self._epoch = 0
        self._best = _Best()

    @property
    def model(self) -> nn.Module:
        return self._model

    def epoch(self) -> dict[str, float]:
        began = time.perf_counter()
        self._epoch += 1
        with self._randomness(self._epoch):
            train_loss, train_accuracy, lr, batches = self._train()
        val_loss, val_accuracy = self._evaluate(self._splits.validation)
        metrics = {
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "lr": lr,
            "seconds": time.perf_counter() - began,
        }
        if self._doctor is not None:
            self._findings, signs = self._doctor.epoch_done(self._epoch, metrics, batches)
            metrics |= signs
        if self._all["schedule"] == "plateau":
            self._plateau.observe(metrics[self._text("plateau_metric")])
        self._note_best(metrics[self._metric])
        return metrics

    def save(self, folder: Path) -> None:
        state = {
            "params": self._params,
            "seed": self._seed,
            "precision": self._precision,
            "epoch": self._epoch,
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "plateau": asdict(self._plateau),
            "best": asdict(self._best),
            "doctor": self._doctor.state() if self._doctor is not None else None,
        }
        torch.save(state, folder / STATE_FILE)

    def load(self, folder: Path) -> None:
        state = torch.load(folder / STATE_FILE, map_location=self._device, weights_only=True)
        if state["params"] != self._params:
            raise DataError(f"checkpoint {folder} belongs to another configuration: {state['params']}")
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._plateau = Plateau(**state["plateau"])
        self._best = _Best(**state["best"])
        if self._doctor is not None and state["doctor"] is not None:
            self._doctor.load_state(state["doctor"])
        # One that goes on elsewhere keeps its arithmetic, whatever that machine would choose; older states do not say.
        self._precision = state.get("precision", self._precision)
        self._epoch, self._seed = state["epoch"], state["seed"]

    def test(self) -> dict[str, float]:
        kept = _copy(self._model)
        if self._best.weights is not None:
            self._model.load_state_dict(self._best.weights)
        loss, accuracy = self._evaluate(self._splits.test)
        self._model.load_state_dict(kept)
        return {"accuracy": accuracy, "loss": loss}

    def findings(self) -> list[Finding]:
        return self._findings

    def close(self) -> None:
        del self._model, self._network, self._optimizer, self._splits
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _train(self) -> tuple[float, float, float, list[Tensor]]:
        """One pass over the training split: mean loss, accuracy, the learning rate of the last step, and the batches as
        positions in the split."""
        self._model.train()
        train, generator = self._splits.train, torch.Generator(self._device)
        generator.manual_seed(seed_of_trial(self._seed, self._epoch))
        order = torch.randperm(len(train), generator=generator, device=self._device)
        batches = _batches(order, self._int("batch_size"))
        loss_sum, correct = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
        parts, lr = self._text("augmentation"), 0.0
        for index, batch in enumerate(batches):
            lr = self._lr((self._epoch - 1) * len(batches) + index, len(batches))
            images, labels = train.take(batch)
            images = self._normalized(augment(images, parts, generator))
            is_full = len(batch) == len(batches[0])
            with self._watching(index, len(batches)) as watched:
                network = self._network if is_full and not watched else self._model
                logits, loss = self._step(network, images, labels, lr)
            if self._doctor is not None:
                self._doctor.step_done(loss)
            # Kept on the device: reading a number there each step would make the device wait for Python.
            loss_sum += loss.detach() * len(batch)
            correct += (logits.detach().argmax(1) == labels).sum()
        return float(loss_sum) / len(train), float(correct) / len(train), lr, batches

    def _step(self, network: nn.Module, images: Tensor, labels: Tensor, lr: float) -> tuple[Tensor, Tensor]:
        """One step of the optimizer; the logits and the loss from before it."""
        set_lr(self._optimizer, lr)
        self._optimizer.zero_grad(set_to_none=True)
        with autocast(self._precision, self._device):
            logits = network(images)
            loss = self._loss_of(logits.float(), labels, self._smoothing)
        loss.backward()
        self._penalties.before_step(lr)
        take_step(self._optimizer)
        return logits, loss

    def _watching(self, step: int, steps: int) -> AbstractContextManager[bool]:
        if self._doctor is not None and self._doctor.is_due(step, steps):
            return self._doctor.watched()
        return nullcontext(False)

    @torch.inference_mode()
    def _evaluate(self, split: Split) -> tuple[float, float]:
        """Mean cross entropy and accuracy on a split."""
        self._model.eval()
        loss_sum, correct = torch.zeros((), device=self._device), torch.zeros((), device=self._device)
        for start in range(0, len(split), EVALUATION_BATCH):
            images, labels = split.take(slice(start, start + EVALUATION_BATCH))
            with autocast(self._precision, self._device):
                logits = self._model(self._normalized(images))
            loss_sum += functional.cross_entropy(logits.float(), labels, reduction="sum")
            correct += (logits.argmax(1) == labels).sum()
        return float(loss_sum) / len(split), float(correct) / len(split)

    def _normalized(self, images: Tensor) -> Tensor:
        return prepared(images, self._text("input"), self._splits.statistics)

    def _lr(self, at_step: int, steps_an_epoch: int) -> float:
        lr = learning_rate(self._all, at_step, steps_an_epoch, self._epochs)
        return max(lr * self._plateau.factor, self._float("min_lr"))

    def _note_best(self, value: float) -> None:
        if not math.isfinite(value):
            better = False
        elif math.isnan(self._best.value):
            better = True
        else:
            better = value > self._best.value if self._maximize else value < self._best.value
        if better:
            self._best = _Best(value, self._epoch, _copy(self._model))

    @contextmanager
    def _randomness(self, epoch: int) -> Iterator[None]:
        """torch's global generators, which initialization and dropout draw from, set by seed and epoch for a while."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed_of_trial(self._seed, -1 - epoch))
            yield

    def _int(self, name: str) -> int:
        return int(self._all[name])  # type: ignore[arg-type]

    def _float(self, name: str) -> float:
        return float(self._all[name])  # type: ignore[arg-type]

    def _text(self, name: str) -> str:
        return str(self._all[name])


def build_network(params: Mapping[str, Scalar], splits: Splits) -> nn.Module:
    """The network of a whole configuration, initialized from torch's global generators, where the data is."""
    _, channels, height, width = splits.train.images.shape
    model = build_model(params, ImageShape(channels, height, width, splits.classes))
    initialize(model, params)
    placed: nn.Module = model.to(splits.train.images.device).to(memory_format=torch.channels_last)
    return placed


def _batches(order: Tensor, size: int) -> list[Tensor]:
    """The order in parts of `size`. A last part of one image joins the one before: batch normalization has no variance
    of one value."""
    parts = list(order.split(size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
