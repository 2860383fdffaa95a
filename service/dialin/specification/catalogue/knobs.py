"""The catalogue: every training knob that a search space may name.

A new knob is one row, its function in `training/`, and its test. The table is data: it imports nothing heavy, so the
command line can print it at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from dialin.specification.catalogue.knob import Knob, always
from dialin.specification.catalogue.network import ARCHITECTURE, INPUT, NETWORK
from dialin.specification.catalogue.schedule import SCHEDULE
from dialin.specification.domains import ALWAYS, Condition, FloatRange, IntRange

WITH_MOMENTUM: Condition = {"optimizer": ("sgd", "nesterov", "rmsprop")}
WITH_BETAS: Condition = {"optimizer": ("adam", "adamw", "nadam")}

_OPTIMIZER = (
    Knob(
        "optimizer",
        "optimizer",
        "choice",
        "the rule that turns gradients into steps; nesterov is sgd with its momentum in Nesterov's form",
        "Ruder 2016, An overview of gradient descent optimization algorithms",
        always("sgd"),
        choices=("sgd", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam"),
    ),
    Knob(
        "lr",
        "optimizer",
        "float",
        "learning rate at the top of the schedule",
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
        "share of the last step that is taken again",
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
        "whether the gradient is taken after the momentum step; plain sgd where momentum is 0",
        "Sutskever et al. 2013, section 2",
        always(False),
        choices=(False, True),
        applies={"optimizer": ("sgd",)},
    ),
    Knob(
        "beta1",
        "optimizer",
        "float",
        "how slowly the running mean of the gradient forgets",
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
        "how slowly the running mean of the squared gradient forgets",
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
        "how the learning rate follows the batch size: not, in proportion to batch_size / 128, or to its square root",
        "Goyal et al. 2017, Accurate, large minibatch SGD; Krizhevsky 2014, One weird trick",
        always("none"),
        choices=("none", "linear", "square_root"),
    ),
)

_REGULARIZATION = (
    Knob(
        "weight_decay",
        "regularization",
        "float",
        "strength of the L2 penalty on the weights, biases and normalizations spared",
        "Krogh and Hertz 1992; Loshchilov and Hutter 2019, Decoupled weight decay regularization",
        always(5e-4),
        low=0.0,
        high=10.0,
        typical=FloatRange(1e-6, 1e-2, log=True),
    ),
    Knob(
        "weight_decay_form",
        "regularization",
        "choice",
        "whether the penalty is part of the gradient, or shrinks the weights apart from it, as adamw does",
        "Loshchilov and Hutter 2019",
        always("l2"),
        choices=("l2", "decoupled"),
        applies={"optimizer": ("sgd", "nesterov", "adagrad", "rmsprop", "adam", "nadam")},
    ),
    Knob(
        "l1",
        "regularization",
        "float",
        "strength of the penalty on the absolute values of the weights",
        "Tibshirani 1996",
        always(0.0),
        low=0.0,
        high=10.0,
        typical=FloatRange(1e-7, 1e-3, log=True),
    ),
    Knob(
        "dropout",
        "regularization",
        "float",
        "share of features dropped while training",
        "Srivastava et al. 2014, Dropout",
        always(0.0),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.0, 0.5),
    ),
    Knob(
        "dropout_at",
        "regularization",
        "choice",
        "where dropout acts: before the last layer, or on whole channels after every block too",
        "Srivastava et al. 2014; Tompson et al. 2015 (channels)",
        always("head"),
        choices=("head", "blocks"),
        applies={"model": ("small_cnn",)},
    ),
    Knob(
        "clip_norm",
        "regularization",
        "float",
        "the gradient of all weights together is shortened to this length; 0: never",
        "Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
        always(0.0),
        low=0.0,
        high=1e6,
        typical=FloatRange(0.1, 10.0, log=True),
    ),
    Knob(
        "loss",
        "loss",
        "choice",
        "what is minimized: the cross entropy, or the mean squared error of the outputs against one-hot labels",
        "Hui and Belkin 2021, Evaluation of neural architectures trained with square loss",
        always("cross_entropy"),
        choices=("cross_entropy", "mean_squared_error"),
    ),
    Knob(
        "label_smoothing",
        "regularization",
        "float",
        "share of the target spread evenly over all classes",
        "Szegedy et al. 2016, Rethinking the Inception architecture, section 7",
        always(0.0),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.0, 0.2),
    ),
)

# What others depend on comes before them.
CATALOGUE: Mapping[str, Knob] = {
    knob.name: knob for knob in (*ARCHITECTURE, *_OPTIMIZER, *SCHEDULE, *NETWORK, *_REGULARIZATION, *INPUT)
}

__all__ = ["CATALOGUE", "Knob"]
