"""The rows of the catalogue about the optimizer and its steps."""

from __future__ import annotations

from dialin.specification.catalogue.knob import Knob, always
from dialin.specification.domains import ALWAYS, Condition, FloatRange, IntRange

WITH_MOMENTUM: Condition = {"optimizer": ("sgd", "nesterov", "rmsprop")}
WITH_BETAS: Condition = {"optimizer": ("adam", "adamw", "nadam")}

OPTIMIZER = (
    Knob(
        "optimizer",
        "optimizer",
        "choice",
        "the update rule; nesterov is sgd with Nesterov's form of momentum",
        "Ruder 2016, An overview of gradient descent optimization algorithms",
        always("sgd"),
        choices=("sgd", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam"),
    ),
    Knob(
        "lr",
        "optimizer",
        "float",
        "the learning rate; the highest one of its schedule",
        "Smith 2017, Cyclical learning rates for training neural networks",
        (({"optimizer": ("sgd", "nesterov")}, 0.1), ({"optimizer": ("adagrad",)}, 0.01), (ALWAYS, 1e-3)),
        low=0.0,
        low_open=True,
        high=100.0,
        typical=FloatRange(1e-4, 1.0, log=True),
    ),
    Knob(
        "momentum",
        "optimizer",
        "float",
        "fraction of the previous step that is added to the next one",
        "Sutskever et al. 2013, On the importance of initialization and momentum in deep learning",
        (({"optimizer": ("sgd", "nesterov")}, 0.9), (ALWAYS, 0.0)),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.5, 0.99),
        applies=WITH_MOMENTUM,
    ),
    Knob(
        "nesterov",
        "optimizer",
        "bool",
        "whether momentum has Nesterov's form; no effect where momentum is 0",
        "Sutskever et al. 2013, section 2",
        always(False),
        choices=(False, True),
        applies={"optimizer": ("sgd",)},
    ),
    Knob(
        "beta1",
        "optimizer",
        "float",
        "decay rate of the running mean of the gradient",
        "Kingma and Ba 2015, Adam",
        always(0.9),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.8, 0.99),
        applies=WITH_BETAS,
    ),
    Knob(
        "beta2",
        "optimizer",
        "float",
        "decay rate of the running mean of the squared gradient",
        "Kingma and Ba 2015, Adam",
        always(0.999),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.9, 0.9999),
        applies=WITH_BETAS,
    ),
    Knob(
        "batch_size",
        "optimizer",
        "int",
        "images per step",
        "Masters and Luschi 2018, Revisiting small batch training for deep neural networks",
        always(128),
        low=1,
        high=65536,
        typical=IntRange(16, 512, log=True),
    ),
    Knob(
        "lr_scaling",
        "optimizer",
        "choice",
        "how the learning rate scales with the batch size: not at all, by batch_size / 128, or by its square root",
        "Goyal et al. 2017, Accurate, large minibatch SGD; Krizhevsky 2014, One weird trick",
        always("none"),
        choices=("none", "linear", "square_root"),
    ),
)
