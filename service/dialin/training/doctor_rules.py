"""The doctor's rules: what the losses, the probed steps and the metrics of a training say is wrong with it.

Each function reads measurements of one epoch and yields findings. `specification.findings.RULES` holds the severity,
the likely cause and the remedy of each code. A new rule is its row there, a function here that `Doctor.epoch_done`
calls, and a sick network in `tests/training/test_doctor.py`.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dialin.specification.findings import Finding

Metrics = Mapping[str, float]

SPIKE = 5.0
"""A loss this many times the usual one is a spike."""
SPIKE_WINDOW = 100
"""Steps whose median is the usual loss."""
STEPS_BEFORE_SPIKE = 20
"""Fewest steps that make a usual loss."""
DIVERGED = 4.0
"""The loss has diverged when an epoch's level is this many times the best level."""
DEAD_NETWORK, DEAD_UNITS = 0.99, 0.4
"""Fractions of the units of a layer that are 0 for every image."""
VANISHED, EXPLODED = 1e-4, 1e3
"""Gradient of the first layer over that of the last."""
SATURATED_UNITS = 0.6
"""Fraction of the outputs of a layer that are at the ends of their range."""
SMALL_UPDATE, LARGE_UPDATE = 1e-7, 0.3
"""Norm of a step over the norm of the weights."""
GAP, RISE = 0.15, 1.15
"""Overfitting: training less validation accuracy, and validation loss over its best."""
CHANCE_MARGIN = 1.5
"""A network that has learned exceeds the accuracy of guessing by this factor."""
DECAYED = 1e-3
"""The learning rate has decayed when it is below this fraction of its highest value."""


@dataclass
class StepProbe:
    """What one probed step showed, on the device: nothing is read back before the epoch ends."""

    zeros: dict[str, Tensor] = field(default_factory=dict)
    """Fraction of zero outputs, by rectifier."""
    alive: dict[str, Tensor] = field(default_factory=dict)
    """(channels,) whether any output was not zero, by rectifier."""
    saturated: dict[str, Tensor] = field(default_factory=dict)
    """Fraction of outputs at the ends of their range, by tanh or sigmoid."""
    gradients: list[Tensor] = field(default_factory=list)
    """Norm of the weight gradient of each layer, first to last."""
    update_ratio: Tensor | None = None
    """Median over the layers of the norm of the step over the norm of the weights."""


@dataclass
class LossHistory:
    """The losses of earlier steps, as far as the rules need them."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SPIKE_WINDOW))
    """The last steps' losses."""
    best_level: float = math.inf
    """The lowest level of an epoch: the median loss of its last quarter."""


def loss_findings(
    epoch: int, losses: Sequence[float], batches: Sequence[Tensor], history: LossHistory, classes: int
) -> Iterator[Finding]:
    """Yield non_finite_loss, loss_spike and diverged; add the losses of the epoch's steps to the history."""
    infinite = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if infinite is not None:
        yield Finding("non_finite_loss", epoch, {"step": infinite, "loss": str(losses[infinite])})
        return
    if not losses:
        return
    guessing = math.log(classes)  # the cross entropy of equal probabilities
    yield from _loss_spikes(epoch, losses, batches, history, guessing / 2)
    level = statistics.median(losses[-max(1, len(losses) // 4) :])
    if epoch > 1 and level > max(DIVERGED * history.best_level, 1.5 * guessing):
        yield Finding("diverged", epoch, {"loss": level, "best": history.best_level})
    history.best_level = min(history.best_level, level)


def _loss_spikes(
    epoch: int, losses: Sequence[float], batches: Sequence[Tensor], history: LossHistory, floor: float
) -> Iterator[Finding]:
    """Yield loss_spike for steps whose loss is far above the usual one; add each step's loss to the history.

    `floor`: the lowest loss that counts as a spike. A network that fits its data has a usual loss near 0, and five
    times that is harmless.
    """
    for step, loss in enumerate(losses):
        usual = _usual_loss(history)
        if loss > SPIKE * usual and loss > floor:
            batch = batches[step].tolist() if step < len(batches) else []
            yield Finding("loss_spike", epoch, {"step": step, "loss": loss, "usual": usual, "batch": batch})
        history.recent.append(loss)


def _usual_loss(history: LossHistory) -> float:
    """The median of the recent losses; infinite while there are too few."""
    return statistics.median(history.recent) if len(history.recent) >= STEPS_BEFORE_SPIKE else math.inf


def unit_findings(epoch: int, probes: Sequence[StepProbe]) -> Iterator[Finding]:
    """Yield dead_network, dead_units and saturated_activation."""
    for layer in probes[0].alive if probes else ():
        alive = torch.stack([probe.alive[layer] for probe in probes]).any(0)
        dead = 1 - float(alive.float().mean())
        if dead >= DEAD_NETWORK:
            yield Finding("dead_network", epoch, {"dead units": dead, "units": len(alive)}, layer)
        elif dead >= DEAD_UNITS:
            zeros = float(torch.stack([probe.zeros[layer] for probe in probes]).mean())
            yield Finding("dead_units", epoch, {"dead units": dead, "zero activations": zeros}, layer)
    yield from _saturated_activations(epoch, probes)


def _saturated_activations(epoch: int, probes: Sequence[StepProbe]) -> Iterator[Finding]:
    for layer in probes[0].saturated if probes else ():
        fraction = float(torch.stack([probe.saturated[layer] for probe in probes]).mean())
        if fraction >= SATURATED_UNITS:
            yield Finding("saturated_activation", epoch, {"saturated": fraction}, layer)


def gradient_findings(epoch: int, probes: Sequence[StepProbe]) -> Iterator[Finding]:
    """Yield vanishing_gradient and exploding_gradient."""
    deep = [probe for probe in probes if len(probe.gradients) > 1]
    if not deep:
        return
    first = float(torch.stack([probe.gradients[0] for probe in deep]).median())
    last = float(torch.stack([probe.gradients[-1] for probe in deep]).median())
    if not math.isfinite(first):
        return
    evidence = {"first layer": first, "last layer": last}
    if last > 0 and first < VANISHED * last:
        yield Finding("vanishing_gradient", epoch, evidence)
    elif first > EXPLODED * max(last, 1e-12):
        yield Finding("exploding_gradient", epoch, evidence)


def update_findings(epoch: int, probes: Sequence[StepProbe], epochs: int) -> Iterator[Finding]:
    """Yield small_updates, in the first half of the training only, and large_updates."""
    ratios = [float(probe.update_ratio) for probe in probes if probe.update_ratio is not None]
    ratio = statistics.median(ratios) if ratios else math.nan
    if ratio < SMALL_UPDATE and epoch <= max(1, epochs // 2):
        yield Finding("small_updates", epoch, {"step to weights": ratio})
    elif ratio > LARGE_UPDATE:
        yield Finding("large_updates", epoch, {"step to weights": ratio})


def course_findings(epoch: int, history: Sequence[Metrics], classes: int, epochs: int) -> Iterator[Finding]:
    """Yield overfitting, no_learning and lr_decayed_early. `history`: the metrics of each epoch, this one's last."""
    if len(history) >= 3:
        yield from _overfitting(epoch, history)
    if epoch >= max(2, math.ceil(epochs / 3)):
        yield from _no_learning(epoch, history, classes)
    if len(history) >= 3 and epoch < 0.75 * epochs:
        yield from _early_decay(epoch, history)


def _overfitting(epoch: int, history: Sequence[Metrics]) -> Iterator[Finding]:
    now = history[-1]
    gap = now["train_accuracy"] - now["val_accuracy"]
    best_loss = min(past["val_loss"] for past in history)
    if gap > GAP and now["val_loss"] > RISE * best_loss:
        evidence = {"gap": gap, "validation loss": now["val_loss"], "its best": best_loss}
        yield Finding("overfitting", epoch, evidence)


def _no_learning(epoch: int, history: Sequence[Metrics], classes: int) -> Iterator[Finding]:
    best = max(max(past["train_accuracy"], past["val_accuracy"]) for past in history)
    chance = 1 / classes
    if best < CHANCE_MARGIN * chance:
        yield Finding("no_learning", epoch, {"best accuracy": best, "chance": chance})


def _early_decay(epoch: int, history: Sequence[Metrics]) -> Iterator[Finding]:
    now = history[-1]
    highest = max(past["lr"] for past in history)
    still_falling = history[-3]["train_loss"] > 1.02 * now["train_loss"] or now["train_loss"] > 0.5
    if 0 <= now["lr"] < DECAYED * highest and still_falling:
        yield Finding("lr_decayed_early", epoch, {"lr": now["lr"], "highest": highest})


def training_statistics(probes: Sequence[StepProbe]) -> dict[str, float]:
    """Return statistics of an epoch's probed steps as metrics; values that are missing or not finite are left out."""
    zeros = [fraction for probe in probes for fraction in probe.zeros.values()]
    norms = [torch.stack(probe.gradients).norm() for probe in probes if probe.gradients]
    ratios = [probe.update_ratio for probe in probes if probe.update_ratio is not None]
    found = {
        "zero_activations": _aggregate(zeros, torch.mean),
        "gradient_norm": _aggregate(norms, torch.median),
        "update_ratio": _aggregate(ratios, torch.median),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _aggregate(values: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> float:
    """The function's value over scalars; NaN when there are none."""
    return float(function(torch.stack(list(values)))) if values else math.nan
