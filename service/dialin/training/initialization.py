"""Initializations of the weights, by name.

A new initialization is a function here, its row in `INITIALIZATIONS`, its name among the choices of the knob
`initialization` in `specification/catalogue/network.py`, and a row in a table of `tests/training/test_models.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from dialin.training.configuration import Configuration, InitializationKnobs, NetworkKnobs
from dialin.training.models import ResidualBlock


def zeros(weight: Tensor, _gain: float, _knobs: InitializationKnobs) -> None:
    """All 0. Every unit of a layer then stays like every other, so nothing but the biases can be learnt."""
    nn.init.zeros_(weight)


def normal(weight: Tensor, _gain: float, knobs: InitializationKnobs) -> None:
    """Normal with standard deviation initialization_std; Krizhevsky et al. 2012, section 5."""
    nn.init.normal_(weight, std=knobs.initialization_std)


def truncated_normal(weight: Tensor, _gain: float, knobs: InitializationKnobs) -> None:
    """Normal with standard deviation initialization_std; values beyond two standard deviations are drawn again."""
    nn.init.trunc_normal_(
        weight, std=knobs.initialization_std, a=-2 * knobs.initialization_std, b=2 * knobs.initialization_std
    )


def xavier(weight: Tensor, _gain: float, knobs: InitializationKnobs) -> None:
    """Variance 2 / (fan_in + fan_out); Glorot and Bengio 2010, equations 12 and 16."""
    if knobs.initialization_distribution == "normal":
        nn.init.xavier_normal_(weight)
    else:
        nn.init.xavier_uniform_(weight)


def kaiming(weight: Tensor, gain: float, knobs: InitializationKnobs) -> None:
    """Variance gain^2 / fan_in, where gain^2 is 2 for relu; He et al. 2015, equations 10 and 15."""
    std = gain / math.sqrt(weight[0].numel())
    with torch.no_grad():
        if knobs.initialization_distribution == "normal":
            weight.normal_(0.0, std)
        else:
            weight.uniform_(-math.sqrt(3) * std, math.sqrt(3) * std)


def orthogonal(weight: Tensor, gain: float, _knobs: InitializationKnobs) -> None:
    """Orthogonal rows of length gain, where a row is the weights of one output; Saxe et al. 2014."""
    nn.init.orthogonal_(weight, gain)


INITIALIZATIONS: Mapping[str, Callable[[Tensor, float, InitializationKnobs], None]] = {
    "zeros": zeros,
    "normal": normal,
    "truncated_normal": truncated_normal,
    "xavier": xavier,
    "kaiming": kaiming,
    "orthogonal": orthogonal,
}


def initialize(model: nn.Module, configuration: Configuration) -> None:
    """Draw the weights of all convolutions and linear layers from torch's global generator; set their biases to 0.

    "default" leaves what torch has drawn. With zero_init_residual each residual block then starts as the identity.
    """
    knobs = configuration.initialization
    if knobs.initialization != "default":
        gain = gain_of(configuration.network)
        layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        for layer in layers:
            # No activation follows the last layer, so there is none to make up for.
            INITIALIZATIONS[knobs.initialization](layer.weight, 1.0 if layer is layers[-1] else gain, knobs)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    if knobs.zero_init_residual:
        for module in model.modules():
            if isinstance(module, ResidualBlock):
                _zero_last(module.body)


def gain_of(knobs: NetworkKnobs) -> float:
    """Return the gain that keeps the size of the signal through the activation.

    It is sqrt(2 / (1 + slope^2)) for rectifiers (He et al. 2015), 5/3 for tanh and 1 for sigmoid. gelu, silu, elu and
    prelu are treated as the rectifiers that they are close to.
    """
    if knobs.activation in ("tanh", "sigmoid"):
        return nn.init.calculate_gain("tanh" if knobs.activation == "tanh" else "sigmoid")
    slope = {"leaky_relu": knobs.activation_slope, "prelu": 0.25}.get(knobs.activation, 0.0)
    return math.sqrt(2 / (1 + slope**2))


def _zero_last(body: nn.Module) -> None:
    """Set the scale of the last normalization to 0, or the last convolution; Goyal et al. 2017, section 5.1."""
    scaled = [module for module in body.modules() if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.Conv2d)]
    nn.init.zeros_(scaled[-1].weight)
    if scaled[-1].bias is not None:
        nn.init.zeros_(scaled[-1].bias)
