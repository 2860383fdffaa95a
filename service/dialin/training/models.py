"""The networks, by name. All take images (n, channels, height, width) and give logits (n, classes).

A new network is a function here, its row in `MODELS`, its name among the choices of the knob `model` in
`specification/catalogue/network.py`, and a test in `tests/training/test_models.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dialin.training.configuration import NetworkKnobs
from dialin.training.layers import Blocks, PoolingNormalization

SMALLEST_SIDE = 4
"""Pixels. small_cnn pools between its stages while the side stays at least this."""
HIDDEN_UNITS = 128
"""Units of the hidden layer of the fully connected head."""


@dataclass(frozen=True)
class ImageShape:
    """The images and the classes that a network is built for."""

    channels: int
    """Channels of an image."""
    height: int
    """Pixels of a column."""
    width: int
    """Pixels of a row."""
    classes: int
    """Number of classes."""


def small_cnn(knobs: NetworkKnobs, shape: ImageShape) -> nn.Module:
    """A plain or residual network of `depth` blocks of the knob `convolution`, in stages of equal length.

    Between two stages a 2x2 max pooling halves the side, and the channels, `width` in the first stage, double.
    """
    blocks, depth, width = Blocks(knobs), knobs.depth, knobs.width
    stages = _poolings(min(shape.height, shape.width)) + 1
    layers: list[nn.Module] = []
    channels, stage = shape.channels, 0
    for index in range(depth):
        if index * stages // depth > stage:
            stage += 1
            layers.append(nn.MaxPool2d(2))
        outputs = width * 2**stage
        body = blocks.body(channels, outputs)
        layers += [ResidualBlock(blocks, body, channels, outputs)] if knobs.residual else body
        if knobs.dropout_at == "blocks":
            layers.append(nn.Dropout2d(knobs.dropout))
        channels = outputs
    return nn.Sequential(*layers, *_head(knobs, shape, channels, stage))


def resnet18(knobs: NetworkKnobs, shape: ImageShape) -> nn.Module:
    """ResNet-18 for small images (He et al. 2016, with the CIFAR stem of section 4.2).

    One 3x3 convolution takes the place of the 7x7 one and its max pooling; four stages of two basic blocks follow, with
    `width` times 1, 2, 4 and 8 channels.
    """
    blocks, width = Blocks(knobs), knobs.width
    layers: list[nn.Module] = [*blocks.step(shape.channels, width, 3)]
    channels = width
    for stage in range(4):
        outputs = width * 2**stage
        for stride in (1 if stage == 0 else 2, 1):
            body = [
                blocks.convolution(channels, outputs, 3, stride),
                blocks.normalization(outputs),
                blocks.activation(),
                blocks.convolution(outputs, outputs, 3),
                blocks.normalization(outputs),
                blocks.activation(),
            ]
            layers.append(ResidualBlock(blocks, body, channels, outputs, stride))
            channels = outputs
    return nn.Sequential(*layers, *_head(knobs, shape, channels, halvings=3))


def mobilenet_v3_small(knobs: NetworkKnobs, shape: ImageShape) -> nn.Module:
    """torchvision's MobileNetV3-Small (Howard et al. 2019) for small images: the first convolution keeps the side."""
    from torchvision import models  # takes a while to import, and small_cnn does without

    model: Any = models.mobilenet_v3_small(weights=None, num_classes=shape.classes, dropout=knobs.dropout)
    # torchvision has no parameter for the stem, so the layer is replaced where torchvision keeps it; a test counts the
    # weights of the result.
    first = model.features[0][0]
    model.features[0][0] = nn.Conv2d(shape.channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    result: nn.Module = model
    return result


def googlenet(knobs: NetworkKnobs, shape: ImageShape) -> nn.Module:
    """torchvision's GoogLeNet (Szegedy et al. 2015) for small images.

    It has batch normalization and no auxiliary classifiers. Its stem is a 3x3 convolution that keeps the side, and
    nothing is pooled before the first inception block.
    """
    from torchvision import models

    model: Any = models.googlenet(
        weights=None,
        num_classes=shape.classes,
        aux_logits=False,
        transform_input=False,
        init_weights=False,
        dropout=knobs.dropout,
    )
    model.conv1.conv = nn.Conv2d(shape.channels, 64, 3, stride=1, padding=1, bias=False)
    model.maxpool1, model.maxpool2 = nn.Identity(), nn.Identity()
    result: nn.Module = model
    return result


MODELS: Mapping[str, Callable[[NetworkKnobs, ImageShape], nn.Module]] = {
    "small_cnn": small_cnn,
    "resnet18": resnet18,
    "mobilenet_v3_small": mobilenet_v3_small,
    "googlenet": googlenet,
}


class ResidualBlock(nn.Module):
    """A body beside a shortcut; the two are added before the body's last activation.

    The shortcut is the identity, or a 1x1 convolution where the shape changes (He et al. 2016, option B).
    """

    def __init__(self, blocks: Blocks, body: list[nn.Module], inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*body[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = blocks.convolution(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(projection, blocks.normalization(outputs))
        self.activation = body[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Return the activation of body plus shortcut."""
        result: Tensor = self.activation(self.body(images) + self.shortcut(images))
        return result


def _head(knobs: NetworkKnobs, shape: ImageShape, channels: int, halvings: int) -> list[nn.Module]:
    """The layers from features to logits: pooling, normalization, a mean or a hidden layer, dropout, a linear layer.

    `halvings` says how often the backbone has halved the side.
    """
    height, width = _side(shape.height, halvings, knobs), _side(shape.width, halvings, knobs)
    pool = nn.AvgPool2d if knobs.pooling == "average" else nn.MaxPool2d
    pooled = height >= 2 and width >= 2
    # In ceil mode the pooling keeps an odd last row.
    layers: list[nn.Module] = [pool(2, ceil_mode=True)] if pooled else []
    layers.append(PoolingNormalization(knobs.pooling_normalization))
    if knobs.head == "global_average":
        return [*layers, _Mean(), nn.Dropout(knobs.dropout), nn.Linear(channels, shape.classes)]
    features = channels * ((height + 1) // 2) * ((width + 1) // 2) if pooled else channels * height * width
    hidden = [nn.Flatten(), nn.Linear(features, HIDDEN_UNITS), Blocks(knobs).activation()]
    return [*layers, *hidden, nn.Dropout(knobs.dropout), nn.Linear(HIDDEN_UNITS, shape.classes)]


def _side(side: int, halvings: int, knobs: NetworkKnobs) -> int:
    """Pixels of a side after so many halvings."""
    for _ in range(halvings):
        # The max pooling of small_cnn drops an odd last row; the strided convolution of resnet18 keeps it.
        side = side // 2 if knobs.model == "small_cnn" else (side + 1) // 2
    return side


class _Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        """Return the mean over all positions."""
        return features.mean(dim=(2, 3))


def build_model(knobs: NetworkKnobs, shape: ImageShape) -> nn.Module:
    """Return the network of a configuration, with torch's default initialization from torch's global generator."""
    return MODELS[knobs.model](knobs, shape)


def count_parameters(model: nn.Module) -> int:
    """Return the number of weights, biases and other trained numbers."""
    return sum(parameter.numel() for parameter in model.parameters())


def _poolings(side: int) -> int:
    """How often small_cnn pools images with so many pixels a side."""
    count = 0
    while side // 2 >= SMALLEST_SIDE:
        side //= 2
        count += 1
    return count
