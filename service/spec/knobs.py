"""The catalogue: every training knob that a search space may name.

A new knob is one row here, its function in `training/`, and its test. The table is data: it imports nothing heavy,
so the command line can print it at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from service.spec.domains import ALWAYS, Condition, FloatRange, IntRange, Scalar, holds


@dataclass(frozen=True)
class Knob:
    """One row of the catalogue.

    `choices` lists the values of a knob of kind "choice"; `parts` those of kind "parts", whose value is "none" or
    some of them joined by "+". `low` and `high` are the hard bounds of a number. `typical` is a good range to search.
    `applies` says when the knob does anything at all; `defaults` are tried in order, the first whose condition holds.
    """

    name: str
    group: str
    kind: Literal["float", "int", "bool", "choice", "parts"]
    summary: str
    source: str
    defaults: tuple[tuple[Condition, Scalar], ...]
    choices: tuple[Scalar, ...] = ()
    parts: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    typical: FloatRange | IntRange | None = None
    applies: Condition = field(default_factory=dict)

    def default(self, params: Mapping[str, Scalar]) -> Scalar:
        """The value that the knob takes beside `params` when a search space does not name it."""
        return next(value for when, value in self.defaults if holds(when, params))


def _always(value: Scalar) -> tuple[tuple[Condition, Scalar], ...]:
    return ((ALWAYS, value),)


SGD_LIKE: Condition = {"optimizer": ("sgd", "rmsprop")}

_TABLE = (
    Knob(
        "model",
        "architecture",
        "choice",
        "the network: a few plain 3x3 convolutions, or ResNet-18 in its CIFAR form (3x3 stem, no max pool)",
        "He et al. 2016, Deep residual learning, section 4.2",
        _always("small_cnn"),
        choices=("small_cnn", "resnet18"),
    ),
    Knob(
        "width",
        "architecture",
        "int",
        "channels of the first stage; later stages double them",
        "Zagoruyko and Komodakis 2016, Wide residual networks",
        (({"model": ("resnet18",)}, 64), (ALWAYS, 16)),
        low=1,
        high=1024,
        typical=IntRange(8, 64, log=True),
    ),
    Knob(
        "depth",
        "architecture",
        "int",
        "number of convolutional layers",
        "Simonyan and Zisserman 2015, Very deep convolutional networks",
        _always(3),
        low=1,
        high=16,
        typical=IntRange(2, 6),
        applies={"model": ("small_cnn",)},
    ),
    Knob(
        "optimizer",
        "optimizer",
        "choice",
        "the rule that turns gradients into steps",
        "Ruder 2016, An overview of gradient descent optimization algorithms",
        _always("sgd"),
        choices=("sgd", "adam", "adamw", "rmsprop"),
    ),
    Knob(
        "lr",
        "optimizer",
        "float",
        "learning rate at the top of the schedule",
        "Smith 2017, Cyclical learning rates for training neural networks",
        (({"optimizer": ("sgd",)}, 0.1), (ALWAYS, 1e-3)),
        low=0.0,
        low_open=True,
        high=100.0,
        typical=FloatRange(1e-4, 1.0, log=True),
    ),
    Knob(
        "momentum",
        "optimizer",
        "float",
        "share of the last step that is taken again",
        "Sutskever et al. 2013, On the importance of initialization and momentum in deep learning",
        (({"optimizer": ("sgd",)}, 0.9), (ALWAYS, 0.0)),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.5, 0.99),
        applies=SGD_LIKE,
    ),
    Knob(
        "nesterov",
        "optimizer",
        "bool",
        "whether the gradient is taken after the momentum step; needs momentum > 0",
        "Sutskever et al. 2013, section 2",
        _always(False),
        choices=(False, True),
        applies={"optimizer": ("sgd",)},
    ),
    Knob(
        "weight_decay",
        "regularization",
        "float",
        "strength of the L2 penalty on the weights (decoupled from the gradient in adamw)",
        "Loshchilov and Hutter 2019, Decoupled weight decay regularization",
        _always(5e-4),
        low=0.0,
        high=10.0,
        typical=FloatRange(1e-6, 1e-2, log=True),
    ),
    Knob(
        "batch_size",
        "optimizer",
        "int",
        "images per step",
        "Masters and Luschi 2018, Revisiting small batch training for deep neural networks",
        _always(128),
        low=1,
        high=65536,
        typical=IntRange(16, 512, log=True),
    ),
    Knob(
        "schedule",
        "schedule",
        "choice",
        "how the learning rate falls: not at all; by 10 at half and at three quarters; along a cosine to 0; "
        "by 10 when val_loss has not improved for 3 epochs",
        "Loshchilov and Hutter 2017, SGDR; He et al. 2016 for step",
        _always("cosine"),
        choices=("fixed", "step", "cosine", "plateau"),
    ),
    Knob(
        "warmup_epochs",
        "schedule",
        "float",
        "epochs in which the learning rate rises linearly from 0 to its schedule",
        "Goyal et al. 2017, Accurate, large minibatch SGD, section 2.2",
        _always(0.0),
        low=0.0,
        high=1000.0,
        typical=FloatRange(0.0, 2.0),
    ),
    Knob(
        "initialization",
        "initialization",
        "choice",
        "how the weights start: torch's own, normal with std 0.02 cut at 2 std, Xavier uniform, or Kaiming normal",
        "Glorot and Bengio 2010; He et al. 2015, Delving deep into rectifiers",
        _always("default"),
        choices=("default", "truncated_normal", "xavier", "kaiming"),
    ),
    Knob(
        "normalization",
        "normalization",
        "choice",
        "what is normalized after each convolution",
        "Ioffe and Szegedy 2015; Wu and He 2018; Ba et al. 2016",
        _always("batch"),
        choices=("none", "batch", "group", "layer"),
    ),
    Knob(
        "activation",
        "activation",
        "choice",
        "the nonlinearity; leaky_relu has slope 0.01",
        "Nair and Hinton 2010; Maas et al. 2013; Hendrycks and Gimpel 2016",
        _always("relu"),
        choices=("relu", "leaky_relu", "tanh", "gelu"),
    ),
    Knob(
        "dropout",
        "regularization",
        "float",
        "share of features dropped before the last layer while training",
        "Srivastava et al. 2014, Dropout",
        _always(0.0),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.0, 0.5),
    ),
    Knob(
        "label_smoothing",
        "regularization",
        "float",
        "share of the target spread evenly over all classes",
        "Szegedy et al. 2016, Rethinking the Inception architecture, section 7",
        _always(0.0),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.0, 0.2),
    ),
    Knob(
        "augmentation",
        "augmentation",
        "parts",
        "random changes to each training image: a crop after padding by an eighth of the side, a horizontal flip",
        "He et al. 2016, section 4.2",
        _always("none"),
        parts=("crop", "flip"),
    ),
)

CATALOGUE: Mapping[str, Knob] = {knob.name: knob for knob in _TABLE}
