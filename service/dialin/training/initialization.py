"""How the weights start."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dialin.specification.domains import Scalar
from dialin.training.models import ResidualBlock


def zeros(weight: Tensor, _gain: float, _params: Mapping[str, Scalar]) -> None:
    """All 0: every unit of a layer stays like every other, so nothing can be learnt but the biases."""
    nn.init.zeros_(weight)


def normal(weight: Tensor, _gain: float, params: Mapping[str, Scalar]) -> None:
    """Normal with standard deviation initialization_std; Krizhevsky et al. 2012, section 5."""
    nn.init.normal_(weight, std=_std(params))


def truncated_normal(weight: Tensor, _gain: float, params: Mapping[str, Scalar]) -> None:
    """Normal with standard deviation initialization_std, drawn again beyond two of them."""
    nn.init.trunc_normal_(weight, std=_std(params), a=-2 * _std(params), b=2 * _std(params))


def xavier(weight: Tensor, _gain: float, params: Mapping[str, Scalar]) -> None:
    """Variance 2 / (fan_in + fan_out); Glorot and Bengio 2010, equations 12 and 16."""
    if params["initialization_distribution"] == "normal":
        nn.init.xavier_normal_(weight)
    else:
        nn.init.xavier_uniform_(weight)


def kaiming(weight: Tensor, gain: float, params: Mapping[str, Scalar]) -> None:
    """Variance gain^2 / fan_in, gain^2 being 2 for relu; He et al. 2015, equations 10 and 15."""
    std = gain / math.sqrt(weight[0].numel())
    with torch.no_grad():
        if params["initialization_distribution"] == "normal":
            weight.normal_(0.0, std)
        else:
            weight.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std)


def orthogonal(weight: Tensor, gain: float, _params: Mapping[str, Scalar]) -> None:
    """Rows (each output's weights) orthogonal and of length gain; Saxe et al. 2014."""
    nn.init.orthogonal_(weight, gain)


INITIALIZATIONS: Mapping[str, Callable[[Tensor, float, Mapping[str, Scalar]], None]] = {
    "zeros": zeros,
    "normal": normal,
    "truncated_normal": truncated_normal,
    "xavier": xavier,
    "kaiming": kaiming,
    "orthogonal": orthogonal,
}


def initialize(model: nn.Module, params: Mapping[str, Scalar]) -> None:
    """Draw the weights of all convolutions and linear layers anew, from torch's global generator, and set their biases
    to 0; "default" leaves torch's own. Then, for zero_init_residual, make each residual block start as the identity."""
    name = str(params["initialization"])
    if name != "default":
        gain = gain_of(params)
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for layer in layers:
            # No activation follows the last one.
            INITIALIZATIONS[name](layer.weight, 1.0 if layer is layers[-1] else gain, params)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if params["zero_init_residual"]:
        for module in model.modules():
            if isinstance(module, ResidualBlock):
                _zero_last(module.body)


def gain_of(params: Mapping[str, Scalar]) -> float:
    """What keeps the signal's size through the activation: sqrt(2 / (1 + slope^2)) for rectifiers (He et al. 2015), 5/3
    for tanh, 1 for sigmoid. gelu, silu, elu and prelu are treated as the rectifiers that they are close to."""
    activation = str(params["activation"])
    if activation in ("tanh", "sigmoid"):
        return nn.init.calculate_gain("tanh" if activation == "tanh" else "sigmoid")
    slope = {"leaky_relu": float(params["activation_slope"]), "prelu": 0.25}.get(activation, 0.0)  # type: ignore[arg-type]
    return math.sqrt(2 / (1 + slope**2))


def _zero_last(body: nn.Module) -> None:
    """Goyal et al. 2017, section 5.1: the last normalization's scale is 0; without one, the last convolution."""
    scaled = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.Conv2d)]
    nn.init.zeros_(scaled[-1].weight)
    if scaled[-1].bias is not None:
        nn.init.zeros_(scaled[-1].bias)


def _std(params: Mapping[str, Scalar]) -> float:
    return float(params["initialization_std"])  # type: ignore[arg-type]
