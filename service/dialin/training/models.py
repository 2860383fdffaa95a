"""The networks. All take images (n, channels, height, width) and give logits (n, classes)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dialin.specification.domains import Scalar
from dialin.training.layers import Blocks, PoolingNormalization

SMALLEST_SIDE = 4  # a plain network pools while the side stays at least this
HIDDEN_UNITS = 128


@dataclass(frozen=True)
class ImageShape:
    """What a network is fitted to."""

    channels: int
    height: int
    width: int
    classes: int


def small_cnn(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """`depth` blocks of the knob `convolution`, plain or residual, in stages of equal length; a 2x2 max pooling between
    stages halves the side, and the channels, `width` at first, double."""
    blocks, depth, width = Blocks(params), _int(params, "depth"), _int(params, "width")
    stages = _poolings(min(shape.height, shape.width)) + 1
    layers: list[nn.Module] = []
    channels, stage = shape.channels, 0
    for index in range(depth):
        if index * stages // depth > stage:
            stage += 1
            layers.append(nn.MaxPool2d(2))
        outputs = width * 2**stage
        body = blocks.body(channels, outputs)
        layers += [ResidualBlock(blocks, body, channels, outputs)] if params["residual"] else body
        if params["dropout_at"] == "blocks":
            layers.append(nn.Dropout2d(_float(params, "dropout")))
        channels = outputs
    return nn.Sequential(*layers, *_head(params, shape, channels, stage))


def resnet18(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """ResNet-18 for small images (He et al. 2016, with the CIFAR stem of section 4.2): one 3x3 convolution instead of
    7x7 and max pooling, then four stages of two basic blocks with `width` times 1, 2, 4, 8 channels."""
    blocks, width = Blocks(params), _int(params, "width")
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
    return nn.Sequential(*layers, *_head(params, shape, channels, halvings=3))


def mobilenet_v3_small(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """torchvision's MobileNetV3-Small (Howard et al. 2019) for small images: the first convolution keeps the side."""
    from torchvision import models

    model: Any = models.mobilenet_v3_small(weights=None, num_classes=shape.classes, dropout=_float(params, "dropout"))
    first = model.features[0][0]
    model.features[0][0] = nn.Conv2d(shape.channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    result: nn.Module = model
    return result


def googlenet(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """torchvision's GoogLeNet (Szegedy et al. 2015, with batch normalization, without the auxiliary classifiers) for
    small images: a 3x3 stem that keeps the side, and no pooling before the first inception block."""
    from torchvision import models

    model: Any = models.googlenet(
        weights=None,
        num_classes=shape.classes,
        aux_logits=False,
        transform_input=False,
        init_weights=False,
        dropout=_float(params, "dropout"),
    )
    model.conv1.conv = nn.Conv2d(shape.channels, 64, 3, stride=1, padding=1, bias=False)
    model.maxpool1, model.maxpool2 = nn.Identity(), nn.Identity()
    result: nn.Module = model
    return result


MODELS: Mapping[str, Callable[[Mapping[str, Scalar], ImageShape], nn.Module]] = {
    "small_cnn": small_cnn,
    "resnet18": resnet18,
    "mobilenet_v3_small": mobilenet_v3_small,
    "googlenet": googlenet,
}


class ResidualBlock(nn.Module):
    """A body beside a shortcut, added before the body's last activation; the shortcut is a 1x1 convolution where the
    shape changes (He et al. 2016, option B)."""

    def __init__(self, blocks: Blocks, body: list[nn.Module], inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(*body[:-1])
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = blocks.convolution(inputs, outputs, 1, stride)
            self.shortcut = nn.Sequential(projection, blocks.normalization(outputs))
        self.activation = body[-1]

    def forward(self, images: Tensor) -> Tensor:
        result: Tensor = self.activation(self.body(images) + self.shortcut(images))
        return result


def _head(params: Mapping[str, Scalar], shape: ImageShape, channels: int, halvings: int) -> list[nn.Module]:
    """From features to logits: pooling, its normalization, dropout, and a mean or a hidden layer before the last one.
    `halvings`: how often the backbone has halved the side."""
    height, width = _side(shape.height, halvings, params), _side(shape.width, halvings, params)
    pool = nn.AvgPool2d if params["pooling"] == "average" else nn.MaxPool2d
    pooled = height >= 2 and width >= 2
    # In ceil mode an odd last row is not lost.
    layers: list[nn.Module] = [pool(2, ceil_mode=True)] if pooled else []
    layers.append(PoolingNormalization(str(params["pooling_normalization"])))
    if params["head"] == "global_average":
        return [*layers, _Mean(), nn.Dropout(_float(params, "dropout")), nn.Linear(channels, shape.classes)]
    features = channels * ((height + 1) // 2) * ((width + 1) // 2) if pooled else channels * height * width
    hidden = [nn.Flatten(), nn.Linear(features, HIDDEN_UNITS), Blocks(params).activation()]
    return [*layers, *hidden, nn.Dropout(_float(params, "dropout")), nn.Linear(HIDDEN_UNITS, shape.classes)]


def _side(side: int, halvings: int, params: Mapping[str, Scalar]) -> int:
    for _ in range(halvings):
        # A pooling leaves out an odd last row; a strided convolution keeps it.
        side = side // 2 if params["model"] == "small_cnn" else (side + 1) // 2
    return side


class _Mean(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3))


def build_model(params: Mapping[str, Scalar], shape: ImageShape) -> nn.Module:
    """The network that a whole configuration describes, with torch's own initialization, drawn from torch's global
    generator."""
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
