"""Activations, normalizations and convolutional blocks by name.

A new one is a row in its table here, its name among the choices of its knob in `specification/catalogue/network.py`,
and a row in a table of `tests/training/test_models.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional

from dialin.training.configuration import NetworkKnobs

ACTIVATIONS: Mapping[str, Callable[[NetworkKnobs], nn.Module]] = {
    "relu": lambda _knobs: nn.ReLU(),
    "leaky_relu": lambda knobs: nn.LeakyReLU(knobs.activation_slope),
    "prelu": lambda _knobs: nn.PReLU(),
    "elu": lambda _knobs: nn.ELU(),
    "gelu": lambda _knobs: nn.GELU(),
    "silu": lambda _knobs: nn.SiLU(),
    "tanh": lambda _knobs: nn.Tanh(),
    "sigmoid": lambda _knobs: nn.Sigmoid(),
}

NORMALIZATIONS: Mapping[str, Callable[[int, NetworkKnobs], nn.Module]] = {
    "none": lambda _channels, _knobs: nn.Identity(),
    "batch": lambda channels, _knobs: nn.BatchNorm2d(channels),
    "group": lambda channels, knobs: nn.GroupNorm(groups_of(channels, knobs.groups), channels),
    # Ba et al. 2016 for images: one group of all channels.
    "layer": lambda channels, _knobs: nn.GroupNorm(1, channels),
    # Ulyanov et al. 2016: each channel of each image by itself, which is a group of one channel.
    "instance": lambda channels, _knobs: nn.GroupNorm(channels, channels),
}


def groups_of(channels: int, most: int) -> int:
    """Return the largest number of groups, up to `most`, that divides the channels evenly."""
    return next(groups for groups in range(min(most, channels), 0, -1) if channels % groups == 0)


class PoolingNormalization(nn.Module):
    """Normalizes features (n, c, h, w) over the channels of each position.

    `kind` l2 scales them to length 1 (Liu et al. 2015, ParseNet); softmax makes them add up to 1; none changes nothing.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, normalized."""
        if self.kind == "l2":
            return functional.normalize(features, dim=1)
        return features.softmax(1) if self.kind == "softmax" else features


class Blocks:
    """Builds the parts of a network with the normalization, activation and convolution of one configuration."""

    def __init__(self, knobs: NetworkKnobs) -> None:
        self._knobs = knobs

    def convolution(
        self, inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Return a convolution that is padded to keep the side of the image.

        It has no bias where a normalization follows, which would take the bias out again.
        """
        height, width = size if isinstance(size, tuple) else (size, size)
        padding = (height // 2, width // 2)
        bias = self._knobs.normalization == "none"
        return nn.Conv2d(inputs, outputs, (height, width), stride, padding, groups=groups, bias=bias)

    def normalization(self, channels: int) -> nn.Module:
        """Return a normalization of so many channels; the identity for "none"."""
        return NORMALIZATIONS[self._knobs.normalization](channels, self._knobs)

    def activation(self) -> nn.Module:
        """Return an activation."""
        return ACTIVATIONS[self._knobs.activation](self._knobs)

    def step(
        self, inputs: int, outputs: int, size: int | tuple[int, int], groups: int = 1
    ) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Return a convolution, its normalization and its activation."""
        convolution = self.convolution(inputs, outputs, size, groups=groups)
        return convolution, self.normalization(outputs), self.activation()

    def body(self, inputs: int, outputs: int) -> list[nn.Module]:
        """Return one block of the knob `convolution`, from `inputs` to `outputs` channels, with its last activation."""
        return CONVOLUTIONS[self._knobs.convolution](self, inputs, outputs)


def _bottleneck(blocks: Blocks, inputs: int, outputs: int) -> list[nn.Module]:
    """He et al. 2016, figure 5: 1x1 to a quarter of the channels, 3x3 there, 1x1 back."""
    inner = max(1, outputs // 4)
    return [*blocks.step(inputs, inner, 1), *blocks.step(inner, inner, 3), *blocks.step(inner, outputs, 1)]


CONVOLUTIONS: Mapping[str, Callable[[Blocks, int, int], list[nn.Module]]] = {
    "3x3": lambda blocks, inputs, outputs: [*blocks.step(inputs, outputs, 3)],
    "5x5": lambda blocks, inputs, outputs: [*blocks.step(inputs, outputs, 5)],
    # Simonyan and Zisserman 2015, section 2.3: sees as far as one 5x5, with fewer weights and one nonlinearity more.
    "stacked_3x3": lambda blocks, inputs, outputs: [
        *blocks.step(inputs, outputs, 3),
        *blocks.step(outputs, outputs, 3),
    ],
    "bottleneck": _bottleneck,
    # Howard et al. 2017, MobileNets, section 3.1.
    "depthwise_separable": lambda blocks, inputs, outputs: [
        *blocks.step(inputs, inputs, 3, groups=inputs),
        *blocks.step(inputs, outputs, 1),
    ],
    # Szegedy et al. 2016, section 3.2.
    "asymmetric": lambda blocks, inputs, outputs: [
        *blocks.step(inputs, outputs, (1, 3)),
        *blocks.step(outputs, outputs, (3, 1)),
    ],
}
