"""Networks, layers and initialization, proved on tensors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dialin.specification.catalogue import CATALOGUE
from dialin.training.configuration import Configuration
from dialin.training.initialization import INITIALIZATIONS, initialize
from dialin.training.layers import ACTIVATIONS, CONVOLUTIONS, NORMALIZATIONS, PoolingNormalization, groups_of
from dialin.training.models import MODELS, ImageShape, ResidualBlock, build_model, count_parameters

CIFAR = ImageShape(3, 32, 32, 10)
DIGITS = ImageShape(1, 8, 8, 10)


def build(shape=CIFAR, **params):
    return build_model(Configuration.from_params(params).network, shape)


def convolutions(model):
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)]


def test_resnet18_is_the_one_of_the_paper():
    model = build(model="resnet18")
    assert count_parameters(model) == 11_173_962
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert (convolutions(model)[0].kernel_size, convolutions(model)[0].stride) == ((3, 3), (1, 1))
    assert not any(isinstance(module, nn.MaxPool2d) for module in model.modules())


def test_torchvisions_networks_are_torchvisions_but_for_stem_and_classes():
    from torchvision import models

    theirs = count_parameters(models.mobilenet_v3_small(weights=None, num_classes=10))
    assert count_parameters(build(model="mobilenet_v3_small")) == theirs
    theirs = count_parameters(models.googlenet(weights=None, num_classes=10, aux_logits=False, init_weights=False))
    assert count_parameters(build(model="googlenet")) == theirs - 64 * 3 * (49 - 9)  # 7x7 became 3x3


@pytest.mark.parametrize("shape", [DIGITS, CIFAR, ImageShape(1, 28, 28, 10), ImageShape(4, 9, 13, 3)])
@pytest.mark.parametrize("model", list(MODELS))
def test_any_image_and_number_of_classes(model, shape):
    width = {"width": 4} if model in ("small_cnn", "resnet18") else {}
    network = build(shape, model=model, **width).eval()
    assert network(torch.zeros(2, shape.channels, shape.height, shape.width)).shape == (2, shape.classes)


@pytest.mark.parametrize("head", ["global_average", "fully_connected"])
@pytest.mark.parametrize("pooling", ["average", "max"])
@pytest.mark.parametrize("model", ["small_cnn", "resnet18"])
@pytest.mark.parametrize("side", [1, 5, 7, 8, 28])
def test_heads_fit_any_side(model, pooling, head, side):
    shape = ImageShape(2, side, side + 2, 3)
    network = build(shape, model=model, pooling=pooling, head=head, width=4).eval()
    assert network(torch.zeros(2, 2, side, side + 2)).shape == (2, 3)


def test_the_head_is_what_its_name_says():
    plain = build(DIGITS, width=4)
    full = build(DIGITS, width=4, head="fully_connected")
    assert [m.out_features for m in plain.modules() if isinstance(m, nn.Linear)] == [10]
    assert [m.out_features for m in full.modules() if isinstance(m, nn.Linear)] == [128, 10]
    assert sum(isinstance(m, nn.AvgPool2d) for m in plain.modules()) == 1
    assert sum(isinstance(m, nn.AvgPool2d) for m in build(DIGITS, pooling="max").modules()) == 0


def test_average_pooling_before_the_mean_changes_nothing():
    torch.manual_seed(0)
    model = build(DIGITS, width=4).eval()
    images = torch.randn(3, 1, 8, 8)
    without = nn.Sequential(*(part for part in model if not isinstance(part, nn.AvgPool2d)))
    assert torch.allclose(model(images), without(images), atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 8])
def test_depth_counts_blocks_and_width_their_channels(depth):
    model = build(depth=depth, width=6)
    poolings = sum(isinstance(module, nn.MaxPool2d) for module in model.modules())
    assert len(convolutions(model)) == depth
    assert convolutions(model)[0].out_channels == 6
    assert convolutions(model)[-1].out_channels == 6 * 2**poolings
    assert poolings == min(3, depth - 1)


@pytest.mark.parametrize(
    ("name", "kernels", "weights"),
    [
        ("3x3", [(3, 3)], 8 * 16 * 9),
        ("5x5", [(5, 5)], 8 * 16 * 25),
        ("stacked_3x3", [(3, 3), (3, 3)], 8 * 16 * 9 + 16 * 16 * 9),
        ("bottleneck", [(1, 1), (3, 3), (1, 1)], 8 * 4 + 4 * 4 * 9 + 4 * 16),
        ("depthwise_separable", [(3, 3), (1, 1)], 8 * 9 + 8 * 16),
        ("asymmetric", [(1, 3), (3, 1)], 8 * 16 * 3 + 16 * 16 * 3),
    ],
)
def test_convolutions(name, kernels, weights):
    model = build(ImageShape(8, 8, 8, 10), depth=1, width=16, convolution=name)
    assert [layer.kernel_size for layer in convolutions(model)] == kernels
    assert sum(layer.weight.numel() for layer in convolutions(model)) == weights
    assert len([m for m in model.modules() if isinstance(m, nn.ReLU)]) == len(kernels)


def field_of_view(name):
    """How many pixels of a row one output of a block sees."""
    model = build(ImageShape(1, 15, 15, 2), depth=1, width=4, convolution=name, normalization="none", activation="elu")
    images = torch.zeros(1, 1, 15, 15, requires_grad=True)
    nn.Sequential(*list(model)[: -1 - len([m for m in model if isinstance(m, nn.Dropout | nn.AvgPool2d)]) - 2])(images)[
        0, :, 7, 7
    ].sum().backward()
    return int((images.grad[0, 0, 7] != 0).sum())


def test_two_stacked_3x3_see_as_far_as_one_5x5():
    assert field_of_view("stacked_3x3") == field_of_view("5x5") == 5
    assert field_of_view("3x3") == field_of_view("asymmetric") == field_of_view("depthwise_separable") == 3


def test_residual_blocks_add_what_they_were_given():
    params = Configuration.from_params({"depth": 1, "width": 8, "residual": True, "zero_init_residual": True})
    model = build_model(params.network, ImageShape(8, 8, 8, 2))
    initialize(model, params)
    block = next(module for module in model.modules() if isinstance(module, ResidualBlock))
    images = torch.randn(4, 8, 8, 8)
    assert torch.equal(block(images), images.relu())
    assert not any(isinstance(module, ResidualBlock) for module in build(residual=False).modules())


@pytest.mark.parametrize("normalization", ["batch", "none"])
def test_zero_init_makes_resnet_blocks_start_as_the_identity(normalization):
    for zero, expected in ((True, 0.0), (False, None)):
        torch.manual_seed(0)
        params = Configuration.from_params(
            {"model": "resnet18", "width": 4, "normalization": normalization, "zero_init_residual": zero}
        )
        model = build_model(params.network, CIFAR)
        initialize(model, params)
        bodies = [module.body for module in model.modules() if isinstance(module, ResidualBlock)]
        most = max(body(torch.randn(2, body[0].in_channels, 8, 8)).abs().max().item() for body in bodies)
        assert (most == expected) if zero else most > 0.01


@pytest.mark.parametrize("name", CATALOGUE["normalization"].choices)
def test_normalization(name):
    layer = NORMALIZATIONS[name](8, whole(groups=2).network)
    images = torch.randn(16, 8, 5, 5, generator=torch.Generator().manual_seed(0)) * 7 + 3
    axes = {"batch": (0, 2, 3), "layer": (1, 2, 3), "instance": (2, 3)}
    result = layer(images)
    if name == "none":
        assert torch.equal(result, images)
    elif name == "group":
        parts = result.view(16, 2, 4, 5, 5)
        assert torch.allclose(parts.mean((2, 3, 4)), torch.zeros(16, 2), atol=1e-4)
        assert torch.allclose(parts.std((2, 3, 4), unbiased=False), torch.ones(()), atol=1e-3)
    else:
        assert torch.allclose(result.mean(axes[name]), torch.zeros(()), atol=1e-4)
        assert torch.allclose(result.std(axes[name], unbiased=False), torch.ones(()), atol=1e-3)


@pytest.mark.parametrize(
    ("channels", "most", "groups"), [(1, 8, 1), (3, 8, 3), (8, 2, 2), (24, 7, 6), (64, 32, 32), (97, 32, 1)]
)
def test_groups_divide_the_channels(channels, most, groups):
    assert groups_of(channels, most) == groups


def test_normalization_after_pooling():
    features = torch.randn(2, 6, 3, 3)
    assert torch.equal(PoolingNormalization("none")(features), features)
    assert torch.allclose(PoolingNormalization("l2")(features).norm(dim=1), torch.ones(2, 3, 3))
    shares = PoolingNormalization("softmax")(features)
    assert torch.allclose(shares.sum(1), torch.ones(2, 3, 3))
    assert torch.equal(shares.argmax(1), features.argmax(1))
    model = build(DIGITS, pooling_normalization="l2")
    assert [m.kind for m in model.modules() if isinstance(m, PoolingNormalization)] == ["l2"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", [0.0, 0, 2]),
        ("leaky_relu", [-0.4, 0, 2]),
        ("prelu", [-0.5, 0, 2]),
        ("elu", [math.exp(-2) - 1, 0, 2]),
        ("gelu", [-0.0455, 0, 1.9545]),
        ("silu", [-2 / (1 + math.exp(2)), 0, 2 / (1 + math.exp(-2))]),
        ("tanh", [-0.96403, 0, 0.96403]),
        ("sigmoid", [1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-2))]),
    ],
)
def test_activations(name, expected):
    layer = ACTIVATIONS[name](whole(activation_slope=0.2).network)
    assert torch.allclose(layer(torch.tensor([-2.0, 0, 2])), torch.tensor(expected), atol=1e-4)
    assert any(type(module) is type(layer) for module in build(activation=name).modules())


@pytest.mark.parametrize(
    ("knob", "registry"),
    [
        ("activation", ACTIVATIONS),
        ("normalization", NORMALIZATIONS),
        ("convolution", CONVOLUTIONS),
        ("model", MODELS),
        ("initialization", {"default": None, **INITIALIZATIONS}),
    ],
)
def test_the_catalogue_and_the_registries_name_the_same(knob, registry):
    assert set(CATALOGUE[knob].choices) == set(registry)


def whole(**params):
    return Configuration.from_params(params)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_kaiming_keeps_the_signal_through_thirty_layers(activation):
    """What He et al. derive it for: images still differ at the end; with torch's default they all look the same."""
    differences = {}
    for name in ("kaiming", "default"):
        torch.manual_seed(0)
        params = whole(activation=activation, initialization=name)
        parts = (
            part
            for _ in range(30)
            for part in (nn.Conv2d(32, 32, 3, padding=1), ACTIVATIONS[activation](params.network))
        )
        model = nn.Sequential(*parts)
        initialize(model, params)
        with torch.no_grad():
            differences[name] = model(torch.randn(8, 32, 8, 8)).var(0).mean().item()
    assert differences["kaiming"] > 1e-6
    assert differences["default"] < 1e-15


FAN_IN, FAN_OUT = 64 * 9, 128 * 9


@pytest.mark.parametrize(
    ("params", "std", "most"),
    [
        ({"initialization": "zeros"}, 0.0, 0.0),
        ({"initialization": "normal", "initialization_std": 0.1}, 0.1, None),
        # Cut at two deviations, a normal keeps 0.8796 of its own.
        ({"initialization": "truncated_normal", "initialization_std": 0.1}, 0.1 * 0.8796, 0.2),
        ({"initialization": "truncated_normal"}, 0.02 * 0.8796, 0.04),
        ({"initialization": "xavier"}, (2 / (FAN_IN + FAN_OUT)) ** 0.5, (6 / (FAN_IN + FAN_OUT)) ** 0.5),
        ({"initialization": "xavier", "initialization_distribution": "normal"}, (2 / (FAN_IN + FAN_OUT)) ** 0.5, None),
        ({"initialization": "kaiming"}, (2 / FAN_IN) ** 0.5, None),
        (
            {"initialization": "kaiming", "initialization_distribution": "uniform"},
            (2 / FAN_IN) ** 0.5,
            (6 / FAN_IN) ** 0.5,
        ),
        ({"initialization": "kaiming", "activation": "tanh"}, 5 / 3 / FAN_IN**0.5, None),
        (
            {"initialization": "kaiming", "activation": "leaky_relu", "activation_slope": 0.5},
            (2 / 1.25 / FAN_IN) ** 0.5,
            None,
        ),
    ],
)
def test_the_spread_of_the_weights(params, std, most):
    """He et al. multiply by sqrt(2 / fan_in); one article divides by it."""
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    initialize(nn.Sequential(layer, nn.Linear(2, 2)), whole(**params))
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert most is None or layer.weight.abs().max().item() <= most * (1 + 1e-6)
    assert layer.bias.abs().max() == 0


def test_orthogonal_rows_are_orthogonal():
    layer = nn.Conv2d(8, 16, 3)
    initialize(nn.Sequential(layer, nn.Linear(2, 2)), whole(initialization="orthogonal"))
    rows = layer.weight.detach().reshape(16, -1)
    assert torch.allclose(rows @ rows.T, 2 * torch.eye(16), atol=1e-5)  # of length sqrt(2), relu's gain


def test_the_last_layer_has_no_gain_for_an_activation():
    torch.manual_seed(0)
    last = nn.Linear(1000, 500)
    initialize(nn.Sequential(nn.Linear(2, 2), last), whole(initialization="kaiming"))
    assert last.weight.std().item() == pytest.approx((1 / 1000) ** 0.5, rel=0.02)


def test_zeros_cannot_learn():
    torch.manual_seed(0)
    params = whole(initialization="zeros", normalization="none", width=4)
    model = build_model(params.network, DIGITS)
    initialize(model, params)
    model(torch.randn(4, 1, 8, 8)).square().mean().backward()
    assert all(layer.weight.grad.abs().max() == 0 for layer in convolutions(model))


def test_default_leaves_the_weights_alone():
    layer = nn.Conv2d(3, 4, 3)
    before = layer.weight.clone()
    initialize(nn.Sequential(layer), whole(initialization="default"))
    assert torch.equal(layer.weight, before)
    assert layer.bias.abs().max() > 0


def test_dropout_before_the_head_or_after_every_block():
    def kinds(**params):
        model = build(DIGITS, dropout=0.3, **params)
        return [type(m) for m in model.modules() if isinstance(m, nn.Dropout | nn.Dropout2d) and m.p == 0.3]

    assert kinds() == [nn.Dropout]
    assert kinds(dropout_at="blocks", depth=3) == [nn.Dropout2d] * 3 + [nn.Dropout]
