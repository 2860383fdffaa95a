"""How the weights start."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from service.training.layers import LEAKY_SLOPE

TRUNCATED_STD = 0.02
# He et al. 2015 derive the gain for rectifiers; gelu behaves as one, and tanh has its own (LeCun et al. 1998).
_GAINS = {
    "relu": nn.init.calculate_gain("relu"),
    "leaky_relu": nn.init.calculate_gain("leaky_relu", LEAKY_SLOPE),
    "gelu": nn.init.calculate_gain("relu"),
    "tanh": nn.init.calculate_gain("tanh"),
}


def truncated_normal(weight: Tensor, _gain: float) -> None:
    """Normal with standard deviation 0.02, drawn again beyond two of them."""
    nn.init.trunc_normal_(weight, std=TRUNCATED_STD, a=-2 * TRUNCATED_STD, b=2 * TRUNCATED_STD)


def xavier(weight: Tensor, _gain: float) -> None:
    """Uniform with variance 2 / (fan_in + fan_out); Glorot and Bengio 2010, equation 16."""
    nn.init.xavier_uniform_(weight)


def kaiming(weight: Tensor, gain: float) -> None:
    """Normal with variance gain^2 / fan_in; He et al. 2015, equation 10."""
    fan_in = weight[0].numel()
    with torch.no_grad():
        weight.normal_(0.0, gain / fan_in**0.5)


INITIALIZATIONS: Mapping[str, Callable[[Tensor, float], None]] = {
    "truncated_normal": truncated_normal,
    "xavier": xavier,
    "kaiming": kaiming,
}


def initialize(model: nn.Module, name: str, activation: str) -> None:
    """Draw the weights of all convolutions and linear layers anew, from torch's global generator, and set their biases
    to 0. "default" leaves torch's own."""
    if name == "default":
        return
    draw = INITIALIZATIONS[name]
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        # No activation follows the last, linear layer.
        draw(module.weight, 1.0 if isinstance(module, nn.Linear) else _GAINS[activation])
        if module.bias is not None:
            nn.init.zeros_(module.bias)
