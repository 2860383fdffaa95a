"""The doctor: watches a trial's losses, and looks closely at a few steps an epoch.

A watched step costs hooks on the activations and one copy of the weights; a few in a hundred steps are watched. Nothing
is read back from the device before the epoch ends.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dialin.specification.findings import Finding

WATCHED_SHARE, MOST_WATCHED = 0.03, 8
FEWEST_BETWEEN = 30  # steps; in short epochs not every one has a watched step
SPIKE, SPIKE_WINDOW, FEWEST_BEFORE_SPIKE = 5.0, 100, 20
DIVERGED = 4.0  # times the best level
DEAD_NETWORK, DEAD_UNITS = 0.99, 0.4
VANISHED, EXPLODED = 1e-4, 1e3  # gradient of the first layer over that of the last
SATURATED, SATURATED_UNITS = 0.97, 0.6
SMALL_UPDATE, LARGE_UPDATE = 1e-7, 0.3
GAP, RISE = 0.15, 1.15  # of accuracy; of the validation loss over its best
CHANCE_MARGIN = 1.5
DECAYED = 1e-3  # of the highest rate
RECTIFIERS = (nn.ReLU,)
SQUASHERS = (nn.Tanh, nn.Sigmoid)


@dataclass
class _Look:
    """What one watched step saw, on the device."""

    zeros: dict[str, Tensor] = field(default_factory=dict)  # layer -> share of zero outputs
    alive: dict[str, Tensor] = field(default_factory=dict)  # layer -> (channels,) whether any output was not zero
    saturated: dict[str, Tensor] = field(default_factory=dict)  # layer -> share of outputs at their ends
    gradients: list[Tensor] = field(default_factory=list)  # norm by layer
    ratio: Tensor | None = None  # of the step to the weights


class Doctor:
    """Watches one network. Call `watched` around each step, `step_done` after it and `epoch_done` at the end of an
    epoch. Findings come once each, when they are first seen."""

    def __init__(self, model: nn.Module, classes: int, epochs: int) -> None:
        self._model, self._classes, self._epochs = model, classes, epochs
        self._layers = [
            (name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
        ]
        self._losses: list[Tensor] = []
        self._looks: list[_Look] = []
        self._recent: deque[float] = deque(maxlen=SPIKE_WINDOW)
        self._seen: set[str] = set()
        self._since = FEWEST_BETWEEN  # steps since the last watched one
        self._best_level = math.inf
        self._history: list[Mapping[str, float]] = []

    def is_due(self, step: int, steps: int) -> bool:
        """Whether this step of the epoch is one to watch: a few in a hundred, spread evenly, the last of the first
        epoch among them. To be asked once a step."""
        count = min(MOST_WATCHED, max(1, round(WATCHED_SHARE * steps)))
        self._since += 1
        due = (step + 1) * count // steps > step * count // steps and self._since > FEWEST_BETWEEN
        self._since = 0 if due else self._since
        return due

    @contextmanager
    def watched(self) -> Iterator[bool]:
        """Around the forward pass, the backward pass and the optimizer's step of a watched step. Yields True."""
        look = _Look()
        hooks = [
            module.register_forward_hook(_hook(name, look))
            for name, module in self._model.named_modules()
            if isinstance(module, RECTIFIERS + SQUASHERS)
        ]
        before = [layer.weight.detach().clone() for _, layer in self._layers]
        try:
            yield True
        finally:
            for hook in hooks:
                hook.remove()
        self._after(look, before)
        self._looks.append(look)

    def step_done(self, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def epoch_done(
        self, epoch: int, metrics: Mapping[str, float], batches: Sequence[Tensor]
    ) -> tuple[list[Finding], dict[str, float]]:
        """What was newly found in this epoch, and the epoch's vital signs as metrics (finite ones only)."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        signs = _signs(self._looks)
        self._history.append(metrics)
        found = [
            *self._of_losses(epoch, losses, batches),
            *self._of_looks(epoch),
            *self._of_course(epoch),
        ]
        self._losses, self._looks = [], []
        new = [finding for finding in found if finding.code not in self._seen]
        self._seen |= {finding.code for finding in new}
        return list({finding.code: finding for finding in reversed(new)}.values())[::-1], signs

    def state(self) -> dict[str, object]:
        """What a resumed run needs to go on watching."""
        return {
            "recent": list(self._recent),
            "seen": sorted(self._seen),
            "since": self._since,
            "best_level": self._best_level,
            "history": [dict(metrics) for metrics in self._history],
        }

    def load_state(self, state: Mapping[str, object]) -> None:
        self._recent = deque(state["recent"], maxlen=SPIKE_WINDOW)  # type: ignore[call-overload]
        self._seen = set(state["seen"])  # type: ignore[call-overload]
        self._since = int(state["since"])  # type: ignore[call-overload]
        self._best_level = float(state["best_level"])  # type: ignore[arg-type]
        self._history = list(state["history"])  # type: ignore[call-overload]

    @torch.no_grad()
    def _after(self, look: _Look, before: list[Tensor]) -> None:
        gradients = [layer.weight.grad for _, layer in self._layers]
        look.gradients = [grad.norm() for grad in gradients if grad is not None]
        weights = [layer.weight.detach() for _, layer in self._layers]
        steps = torch.stack([(new - old).norm() for new, old in zip(weights, before, strict=True)])
        look.ratio = (steps / torch.stack([old.norm() for old in before]).clamp_min(1e-12)).median()

    def _of_losses(self, epoch: int, losses: list[float], batches: Sequence[Tensor]) -> Iterator[Finding]:
        wrong = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
        if wrong is not None:
            yield Finding("non_finite_loss", epoch, {"step": wrong, "loss": str(losses[wrong])})
            return
        for step, loss in enumerate(losses):
            usual = statistics.median(self._recent) if len(self._recent) >= FEWEST_BEFORE_SPIKE else math.inf
            if loss > SPIKE * usual and loss > math.log(self._classes) / 2:
                batch = batches[step].tolist() if step < len(batches) else []
                yield Finding("loss_spike", epoch, {"step": step, "loss": loss, "usual": usual, "batch": batch})
            self._recent.append(loss)
        if not losses:
            return
        level = statistics.median(losses[-max(1, len(losses) // 4) :])
        if epoch > 1 and level > DIVERGED * self._best_level and level > 1.5 * math.log(self._classes):
            yield Finding("diverged", epoch, {"loss": level, "best": self._best_level})
        self._best_level = min(self._best_level, level)

    def _of_looks(self, epoch: int) -> Iterator[Finding]:
        for layer in self._looks[0].alive if self._looks else ():
            alive = torch.stack([look.alive[layer] for look in self._looks]).any(0)
            dead = 1 - float(alive.float().mean())
            if dead >= DEAD_NETWORK:
                yield Finding("dead_network", epoch, {"dead units": dead, "units": len(alive)}, layer)
            elif dead >= DEAD_UNITS:
                zeros = float(torch.stack([look.zeros[layer] for look in self._looks]).mean())
                yield Finding("dead_units", epoch, {"dead units": dead, "zero activations": zeros}, layer)
        for layer in self._looks[0].saturated if self._looks else ():
            share = float(torch.stack([look.saturated[layer] for look in self._looks]).mean())
            if share >= SATURATED_UNITS:
                yield Finding("saturated_activation", epoch, {"saturated": share}, layer)
        yield from self._of_gradients(epoch)

    def _of_gradients(self, epoch: int) -> Iterator[Finding]:
        looks = [look for look in self._looks if len(look.gradients) > 1]
        if looks:
            first = float(torch.stack([look.gradients[0] for look in looks]).median())
            last = float(torch.stack([look.gradients[-1] for look in looks]).median())
            evidence = {"first layer": first, "last layer": last}
            if math.isfinite(first) and last > 0 and first < VANISHED * last:
                yield Finding("vanishing_gradient", epoch, evidence)
            elif math.isfinite(first) and first > EXPLODED * max(last, 1e-12):
                yield Finding("exploding_gradient", epoch, evidence)
        ratios = [float(look.ratio) for look in self._looks if look.ratio is not None]
        ratio = statistics.median(ratios) if ratios else math.nan
        if ratio < SMALL_UPDATE and epoch <= max(1, self._epochs // 2):
            yield Finding("small_updates", epoch, {"step to weights": ratio})
        elif ratio > LARGE_UPDATE:
            yield Finding("large_updates", epoch, {"step to weights": ratio})

    def _of_course(self, epoch: int) -> Iterator[Finding]:
        now = self._history[-1]
        chance = 1 / self._classes
        gap = now["train_accuracy"] - now["val_accuracy"]
        best_loss = min((past["val_loss"] for past in self._history), default=math.inf)
        if gap > GAP and now["val_loss"] > RISE * best_loss and len(self._history) >= 3:
            evidence = {"gap": gap, "validation loss": now["val_loss"], "its best": best_loss}
            yield Finding("overfitting", epoch, evidence)
        if epoch >= max(2, math.ceil(self._epochs / 3)):
            best = max(max(past["train_accuracy"], past["val_accuracy"]) for past in self._history)
            if best < CHANCE_MARGIN * chance:
                yield Finding("no_learning", epoch, {"best accuracy": best, "chance": chance})
        if len(self._history) >= 3 and epoch < 0.75 * self._epochs:
            rates = [past["lr"] for past in self._history]
            falling = self._history[-3]["train_loss"] > 1.02 * now["train_loss"] or now["train_loss"] > 0.5
            if 0 <= now["lr"] < DECAYED * max(rates) and falling:
                yield Finding("lr_decayed_early", epoch, {"lr": now["lr"], "highest": max(rates)})


def _hook(name: str, look: _Look):  # type: ignore[no-untyped-def]  # noqa: ANN202  torch gives hooks no type
    @torch.no_grad()
    def note(module: nn.Module, _inputs: object, output: Tensor) -> None:
        axes = tuple(axis for axis in range(output.ndim) if axis != 1)
        if isinstance(module, RECTIFIERS):
            zero = output == 0
            look.zeros[name] = zero.float().mean()
            look.alive[name] = ~zero.all(dim=axes) if len(axes) > 1 else ~zero.all(dim=0)
        elif isinstance(module, nn.Tanh):
            look.saturated[name] = (output.abs() > SATURATED).float().mean()
        else:
            look.saturated[name] = ((output - 0.5).abs() > SATURATED / 2).float().mean()

    return note


def _signs(looks: Sequence[_Look]) -> dict[str, float]:
    """The epoch's vital signs, from the steps that were watched; what is not finite is left out."""
    signs: dict[str, float] = {}
    zeros = [share for look in looks for share in look.zeros.values()]
    if zeros:
        signs["zero_activations"] = float(torch.stack(zeros).mean())
    norms = [torch.stack(look.gradients).norm() for look in looks if look.gradients]
    if norms:
        signs["gradient_norm"] = float(torch.stack(norms).median())
    ratios = [look.ratio for look in looks if look.ratio is not None]
    if ratios:
        signs["update_ratio"] = float(torch.stack(ratios).median())
    return {name: value for name, value in signs.items() if math.isfinite(value)}
