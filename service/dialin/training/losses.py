"""What is minimized."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, float], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross entropy of logits (n, classes) and labels (n,), `smoothing` of the target spread over all classes."""
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def mean_squared_error(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean over images and classes of the squared distance of the outputs (n, classes) to one-hot labels, smoothed as
    for the cross entropy; Hui and Belkin 2021, without their rescaling."""
    targets = torch.full_like(logits, smoothing / logits.shape[1])
    targets.scatter_(1, labels[:, None], 1 - smoothing + smoothing / logits.shape[1])
    return functional.mse_loss(logits, targets)


LOSSES: Mapping[str, Loss] = {"cross_entropy": cross_entropy, "mean_squared_error": mean_squared_error}
