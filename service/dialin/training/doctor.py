"""The doctor: watches the losses of a training, and probes a few steps of each epoch.

A probed step costs hooks on the activations and one copy of the weights, so only a few in a hundred steps are probed.
Nothing is read back from the device before the epoch ends. `doctor_rules` judges what was measured.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dialin.specification.findings import Finding
from dialin.training.doctor_rules import (
    SPIKE_WINDOW,
    LossHistory,
    StepProbe,
    course_findings,
    gradient_findings,
    loss_findings,
    training_statistics,
    unit_findings,
    update_findings,
)

WATCHED_FRACTION, MOST_WATCHED = 0.03, 8
"""Fraction of the steps of an epoch that are probed, and how many at most."""
STEPS_BETWEEN = 30
"""Fewest steps between two probes; so not every short epoch has one."""
SATURATED = 0.97
"""Fraction of its range beyond which an output of tanh or sigmoid counts as saturated."""
RECTIFIERS = (nn.ReLU,)
SQUASHERS = (nn.Tanh, nn.Sigmoid)


class Doctor:
    """Watches one network. The training asks `is_due` and calls `step_done` at each step, and `epoch_done` at the end
    of each epoch; a step that is due runs within `watched`. Each code is found once, at its first occurrence."""

    def __init__(self, model: nn.Module, classes: int, epochs: int) -> None:
        self._model, self._classes, self._epochs = model, classes, epochs
        self._layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        self._losses: list[Tensor] = []
        self._probes: list[StepProbe] = []
        self._loss_history = LossHistory()
        self._found: set[str] = set()
        self._since = STEPS_BETWEEN  # steps since the last probe
        self._history: list[Mapping[str, float]] = []

    def is_due(self, step: int, steps: int) -> bool:
        """Return whether to probe step `step` (from 0) of an epoch of `steps`. To be asked once at each step.

        The probes are spread evenly over the epoch; the last step of the first epoch is one of them.
        """
        count = min(MOST_WATCHED, max(1, round(WATCHED_FRACTION * steps)))
        self._since += 1
        due = (step + 1) * count // steps > step * count // steps and self._since > STEPS_BETWEEN
        self._since = 0 if due else self._since
        return due

    @contextmanager
    def watched(self) -> Iterator[bool]:
        """Probe the step that this block takes: forward pass, backward pass and the optimizer's step. Yields True."""
        probe = StepProbe()
        hooks = [
            module.register_forward_hook(_hook(name, probe))
            for name, module in self._model.named_modules()
            if isinstance(module, RECTIFIERS + SQUASHERS)
        ]
        before = [layer.weight.detach().clone() for layer in self._layers]
        try:
            yield True
        finally:
            for hook in hooks:
                hook.remove()
        self._measure_step(probe, before)
        self._probes.append(probe)

    def step_done(self, loss: Tensor) -> None:
        """Keep the loss of a step, on the device."""
        self._losses.append(loss.detach())

    def epoch_done(
        self, epoch: int, metrics: Mapping[str, float], batches: Sequence[Tensor]
    ) -> tuple[list[Finding], dict[str, float]]:
        """Return what is newly found in this epoch, and the statistics of its probed steps as metrics.

        `batches` holds the positions of each step's images in the training split, as evidence of a loss spike.
        """
        losses = torch.stack(self._losses).tolist() if self._losses else []
        statistics = training_statistics(self._probes)
        self._history.append(metrics)
        found = [
            *loss_findings(epoch, losses, batches, self._loss_history, self._classes),
            *unit_findings(epoch, self._probes),
            *gradient_findings(epoch, self._probes),
            *update_findings(epoch, self._probes, self._epochs),
            *course_findings(epoch, self._history, self._classes, self._epochs),
        ]
        self._losses, self._probes = [], []
        new = {finding.code: finding for finding in reversed(found) if finding.code not in self._found}
        self._found |= set(new)
        return list(new.values())[::-1], statistics

    def state(self) -> dict[str, object]:
        """Return what a resumed run needs to continue watching."""
        return {
            "recent": list(self._loss_history.recent),
            "seen": sorted(self._found),
            "since": self._since,
            "best_level": self._loss_history.best_level,
            "history": [dict(metrics) for metrics in self._history],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        recent = deque(state["recent"], maxlen=SPIKE_WINDOW)
        self._loss_history = LossHistory(recent, float(state["best_level"]))
        self._found = set(state["seen"])
        self._since = int(state["since"])
        self._history = list(state["history"])

    @torch.no_grad()
    def _measure_step(self, probe: StepProbe, before: list[Tensor]) -> None:
        gradients = [layer.weight.grad for layer in self._layers]
        probe.gradients = [grad.norm() for grad in gradients if grad is not None]
        weights = [layer.weight.detach() for layer in self._layers]
        steps = torch.stack([(new - old).norm() for new, old in zip(weights, before, strict=True)])
        probe.update_ratio = (steps / torch.stack([old.norm() for old in before]).clamp_min(1e-12)).median()


def _hook(name: str, probe: StepProbe) -> Callable[[nn.Module, object, Tensor], None]:
    """A forward hook that notes an activation's outputs (n, channels, ...) in the probe."""

    @torch.no_grad()
    def note(module: nn.Module, _inputs: object, output: Tensor) -> None:
        axes = tuple(axis for axis in range(output.ndim) if axis != 1)
        if isinstance(module, RECTIFIERS):
            zero = output == 0
            probe.zeros[name] = zero.float().mean()
            probe.alive[name] = ~zero.all(dim=axes) if len(axes) > 1 else ~zero.all(dim=0)
        elif isinstance(module, nn.Tanh):
            probe.saturated[name] = (output.abs() > SATURATED).float().mean()
        else:
            probe.saturated[name] = ((output - 0.5).abs() > SATURATED / 2).float().mean()

    return note
