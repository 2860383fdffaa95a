"""Losses by name.

A new loss is a function here, its row in `LOSSES`, its name among the choices of the knob `loss` in
`specification/catalogue/regularization.py`, and a test in `tests/training/test_steps.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, float], Tensor]
"""Logits (n, classes), labels (n,) and the label smoothing -> the loss, a scalar."""


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy of logits (n, classes) and labels (n,), with label smoothing (0: none)."""
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def mean_squared_error(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean squared error between outputs (n, classes) and one-hot labels, over images and classes.

    The labels are smoothed as for the cross entropy. Hui and Belkin 2021, without their rescaling.
    """
    targets = torch.full_like(logits, smoothing / logits.shape[1])
    targets.scatter_(1, labels[:, None], 1 - smoothing + smoothing / logits.shape[1])
    return functional.mse_loss(logits, targets)


LOSSES: Mapping[str, Loss] = {"cross_entropy": cross_entropy, "mean_squared_error": mean_squared_error}
