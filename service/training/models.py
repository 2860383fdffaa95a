"""The networks. All take images (n, channels, height, width) and give logits (n, classes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from service.spec.domains import Scalar
from service.training.layers import ACTIVATIONS, NORMALIZATIONS

SMALLEST_SIDE = 4  # a plain network pools while the side stays at least this


@dataclass(frozen=True)
class ImageShape:
    """What a network is fitted to."""

    channels: int
    height: int
    width: int
    classes: int


class Blocks:
    """Makes the parts of a network with one choice of normalization and activation."""

    def __init__(self, params: Mapping[str, Scalar]) -> None:
        self._normalization = str(params["normalization"])
        self._activation = str(params["activation"])

    def convolution(self, inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
        """Padded to keep the side; without a bias where a normalization follows, which would take it out again."""
        bias = self._normalization == "none"
        return nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=bias)

    def normalization(self, channels: int) -> nn.Module:
        return NORMALIZATIONS[self._normalization](channels)

    def activation(self) -> nn.Module:
        return ACTIVATIONS[self._activation]()


def small_cnn(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """`depth` 3x3 convolutions in stages of equal length; a 2x2 max pooling between stages halves the side, and the
    channels, `width` at first, double. Then global average pooling, dropout and a linear layer."""
    blocks, depth, width = Blocks(params), _int(params, "depth"), _int(params, "width")
    stages = _poolings(min(shape.height, shape.width)) + 1
    layers: list[nn.Module] = []
    channels, stage = shape.channels, 0
    for index in range(depth):
        if index * stages // depth > stage:
            stage += 1
            layers.append(nn.MaxPool2d(2))
        outputs = width * 2**stage
        layers += [blocks.convolution(channels, outputs, 3), blocks.normalization(outputs), blocks.activation()]
        channels = outputs
    return nn.Sequential(*layers, _Head(channels, shape.classes, _float(params, "dropout")))


def resnet18(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """ResNet-18 for small images (He et al. 2016, with the CIFAR stem of section 4.2): one 3x3 convolution instead of
    7x7 and max pooling, then four stages of two basic blocks with `width` times 1, 2, 4, 8 channels."""
    blocks, width = Blocks(params), _int(params, "width")
    layers: list[nn.Module] = [
        blocks.convolution(shape.channels, width, 3),
        blocks.normalization(width),
        blocks.activation(),
    ]
    channels = width
    for stage in range(4):
        outputs = width * 2**stage
        layers += [
            BasicBlock(blocks, channels, outputs, stride=1 if stage == 0 else 2),
            BasicBlock(blocks, outputs, outputs),
        ]
        channels = outputs
    return nn.Sequential(*layers, _Head(channels, shape.classes, _float(params, "dropout")))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, blocks: Blocks, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            blocks.convolution(inputs, outputs, 3, stride),
            blocks.normalization(outputs),
            blocks.activation(),
            blocks.convolution(outputs, outputs, 3),
            blocks.normalization(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(blocks.convolution(inputs, outputs, 1, stride), blocks.normalization(outputs))
        )
        self.activation = blocks.activation()

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.activation(self.body(images) + self.shortcut(images))
        return result


class _Head(nn.Module):
    """Global average pooling, dropout, linear."""

    def __init__(self, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.dropout(features.mean(dim=(2, 3))))
        return logits


MODELS: Mapping[str, Callable[[Mapping[str, Scalar], ImageShape], nn.Module]] = {
    "small_cnn": small_cnn,
    "resnet18": resnet18,
}


def build_model(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """The network that `params` describe, with torch's own initialization, drawn from torch's global generator."""
    return MODELS[str(params["model"])](params, shape)


def count_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _poolings(side: int) -> int:
    count = 0
    while side // 2 >= SMALLEST_SIDE:
        side //= 2
        count += 1
    return count


def _int(params: Mapping[str, Scalar], name: str) -> int:
    return int(params[name])  # type: ignore[arg-type]


def _float(params: Mapping[str, Scalar], name: str) -> float:
    return float(params[name])  # type: ignore[arg-type]
