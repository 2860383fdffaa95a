"""Networks, layers and initialization, proved on tensors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from service.spec.knobs import CATALOGUE
from service.training.initialization import initialize
from service.training.layers import ACTIVATIONS, NORMALIZATIONS, groups_of
from service.training.models import ImageShape, build_model, count_parameters

CIFAR = ImageShape(3, 32, 32, 10)
DIGITS = ImageShape(1, 8, 8, 10)


def params(**changes):
    base = {name: knob.default(changes) for name, knob in CATALOGUE.items()}
    return {**base, **changes}


def test_resnet18_is_the_one_of_the_paper():
    model = build_model(params(model="resnet18", width=64), CIFAR)
    assert count_parameters(model) == 11_173_962
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert (convolutions[0].kernel_size, convolutions[0].stride) == ((3, 3), (1, 1))
    assert not any(isinstance(module, nn.MaxPool2d) for module in model.modules())


@pytest.mark.parametrize(
    "shape", [DIGITS, CIFAR, ImageShape(1, 28, 28, 10), ImageShape(4, 5, 9, 3), ImageShape(1, 1, 1, 2)]
)
@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_any_image_and_number_of_classes(name, shape):
    model = build_model(params(model=name, width=4), shape).eval()
    assert model(torch.zeros(2, shape.channels, shape.height, shape.width)).shape == (2, shape.classes)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8])
def test_depth_counts_convolutions_and_width_their_channels(depth):
    model = build_model(params(depth=depth, width=6), CIFAR)
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == depth
    assert convolutions[0].out_channels == 6
    poolings = sum(isinstance(module, nn.MaxPool2d) for module in model.modules())
    assert convolutions[-1].out_channels == 6 * 2**poolings
    assert poolings == min(3, depth - 1)


@pytest.mark.parametrize("name", CATALOGUE["normalization"].choices)
def test_normalization(name):
    layer = NORMALIZATIONS[name](8)
    images = torch.randn(16, 8, 5, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
    axes = {"batch": (0, 2, 3), "layer": (1, 2, 3)}
    result = layer(images)
    if name == "none":
        assert torch.equal(result, images)
    elif name == "group":
        parts = result.view(16, 2, 4, 5, 5)
        assert torch.allclose(parts.mean((2, 3, 4)), torch.zeros(16, 2), atol=1e-4)
    else:
        assert torch.allclose(result.mean(axes[name]), torch.zeros(()), atol=1e-4)
        assert torch.allclose(result.std(axes[name], unbiased=False), torch.ones(()), atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (8, 2), (16, 4), (24, 6), (64, 16), (256, 32), (97, 1)]
)
def test_groups_divide_the_channels(channels, groups):
    assert groups_of(channels) == groups


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", [0.0, 0, 2]),
        ("leaky_relu", [-0.02, 0, 2]),
        ("tanh", [-0.96403, 0, 0.96403]),
        ("gelu", [-0.0455, 0, 1.9545]),
    ],
)
def test_activations(name, expected):
    assert torch.allclose(ACTIVATIONS[name]()(torch.tensor([-2.0, 0, 2])), torch.tensor(expected), atol=1e-4)


def test_the_catalogue_and_the_registries_name_the_same():
    assert set(CATALOGUE["activation"].choices) == set(ACTIVATIONS)
    assert set(CATALOGUE["normalization"].choices) == set(NORMALIZATIONS)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_kaiming_keeps_the_signal_through_thirty_layers(activation):
    """What He et al. derive it for: images still differ at the end; with torch's default they all look the same."""
    differences = {}
    for name in ("kaiming", "default"):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(part for _ in range(30) for part in (nn.Conv2d(32, 32, 3, padding=1), ACTIVATIONS[activation]()))
        )
        initialize(model, name, activation)
        with torch.no_grad():
            differences[name] = model(torch.randn(8, 32, 8, 8)).var(0).mean().item()
    assert differences["kaiming"] > 1e-6
    assert differences["default"] < 1e-15


@pytest.mark.parametrize(
    ("name", "std", "most"),
    [
        ("truncated_normal", 0.02 * 0.8796, 0.04),  # cut at two, a normal keeps 0.8796 of its deviation
        ("xavier", (2 / (64 * 9 + 128 * 9)) ** 0.5, (6 / (64 * 9 + 128 * 9)) ** 0.5),
        ("kaiming", (2 / (64 * 9)) ** 0.5, None),
    ],
)
def test_the_spread_of_the_weights(name, std, most):
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    initialize(nn.Sequential(layer), name, "relu")
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert most is None or layer.weight.abs().max().item() <= most
    assert layer.bias.abs().max() == 0


def test_default_leaves_the_weights_alone():
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.clone()
    initialize(nn.Sequential(layer), "default", "relu")
    assert torch.equal(layer.weight, before)
    assert layer.bias.abs().max() > 0
