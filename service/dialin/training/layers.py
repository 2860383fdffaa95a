"""Activations, normalizations and convolutional blocks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn import functional

from dialin.specification.domains import Scalar

Maker = Callable[[Mapping[str, Scalar]], nn.Module]

ACTIVATIONS: Mapping[str, Maker] = {
    "relu": lambda _params: nn.ReLU(),
    "leaky_relu": lambda params: nn.LeakyReLU(float(params["activation_slope"])),  # type: ignore[arg-type]
    "prelu": lambda _params: nn.PReLU(),
    "elu": lambda _params: nn.ELU(),
    "gelu": lambda _params: nn.GELU(),
    "silu": lambda _params: nn.SiLU(),
    "tanh": lambda _params: nn.Tanh(),
    "sigmoid": lambda _params: nn.Sigmoid(),
}

NORMALIZATIONS: Mapping[str, Callable[[int, Mapping[str, Scalar]], nn.Module]] = {
    "none": lambda _channels, _params: nn.Identity(),
    "batch": lambda channels, _params: nn.BatchNorm2d(channels),
    "group": lambda channels, params: nn.GroupNorm(groups_of(channels, int(params["groups"])), channels),  # type: ignore[arg-type]
    # Ba et al. 2016 for images: one group of all channels.
    "layer": lambda channels, _params: nn.GroupNorm(1, channels),
    # Ulyanov et al. 2016: each channel of each image by itself, which is a group of one channel.
    "instance": lambda channels, _params: nn.GroupNorm(channels, channels),
}


def groups_of(channels: int, most: int) -> int:
    """How many groups group normalization makes: the most, up to `most`, that divide the channels evenly."""
    return next(groups for groups in range(min(most, channels), 0, -1) if channels % groups == 0)


class PoolingNormalization(nn.Module):
    """Features (n, c, h, w) normalized over the channels of each position: "l2" to length 1 (Liu et al. 2015,
    ParseNet), "softmax" to shares that add up to 1."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, features: Tensor) -> Tensor:
        if self.kind == "l2":
            return functional.normalize(features, dim=1)
        return features.softmax(1) if self.kind == "softmax" else features


class Blocks:
    """Makes the parts of a network with the normalization, activation and convolution of one configuration."""

    def __init__(self, params: Mapping[str, Scalar]) -> None:
        self._params = params
        self._normalization = str(params["normalization"])

    def convolution(
        self, inputs: int, outputs: int, size: int | tuple[int, int], stride: int = 1, groups: int = 1
    ) -> nn.Conv2d:
        """Padded to keep the side; without a bias where a normalization follows, which would take it out again."""
        height, width = size if isinstance(size, tuple) else (size, size)
        padding = (height // 2, width // 2)
        bias = self._normalization == "none"
        return nn.Conv2d(inputs, outputs, (height, width), stride, padding, groups=groups, bias=bias)

    def normalization(self, channels: int) -> nn.Module:
        return NORMALIZATIONS[self._normalization](channels, self._params)

    def activation(self) -> nn.Module:
        return ACTIVATIONS[str(self._params["activation"])](self._params)

    def step(
        self, inputs: int, outputs: int, size: int | tuple[int, int], groups: int = 1
    ) -> tuple[nn.Module, nn.Module, nn.Module]:
        """Convolution, normalization, activation."""
        convolution = self.convolution(inputs, outputs, size, groups=groups)
        return convolution, self.normalization(outputs), self.activation()

    def body(self, inputs: int, outputs: int) -> list[nn.Module]:
        """One block of the knob `convolution`, from `inputs` to `outputs` channels, up to and with its activation."""
        return CONVOLUTIONS[str(self._params["convolution"])](self, inputs, outputs)


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
