"""The rows of the catalogue about the optimizer and its steps."""

from __future__ import annotations

from dialin.specification.catalogue.knob import Knob, Scaling, Start, always
from dialin.specification.domains import ALWAYS, Condition, FloatRange, IntRange

WITH_MOMENTUM: Condition = {"optimizer": ("sgd", "nesterov", "rmsprop")}
WITH_BETAS: Condition = {"optimizer": ("adam", "adamw", "nadam")}
SGD: Condition = {"optimizer": ("sgd", "nesterov")}
LR_EXPONENTS: tuple[tuple[Condition, float], ...] = (
    ({**SGD, "lr_scaling": ("linear",)}, 0.0),
    ({**SGD, "lr_scaling": ("square_root",)}, 0.5),
    (SGD, 1.0),
    ({"lr_scaling": ("linear",)}, -0.5),
    ({"lr_scaling": ("square_root",)}, 0.0),
    (ALWAYS, 0.5),
)
"""How a good lr follows the batch: in proportion for sgd, else with the square root, less what `lr_scaling` does."""

OPTIMIZER = (
    Knob(
        "optimizer",
        "optimizer",
        "choice",
        "the update rule; nesterov is sgd with Nesterov's form of momentum",
        "Ruder 2016, An overview of gradient descent optimization algorithms",
        always("sgd"),
        Start(
            "He et al. 2016; Wilson et al. 2017, The marginal value of adaptive gradient methods: better on images",
            then=("nesterov", "adamw", "adam", "nadam", "rmsprop", "adagrad"),
        ),
        choices=("sgd", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "nadam"),
    ),
    Knob(
        "lr",
        "optimizer",
        "float",
        "the learning rate; the highest one of its schedule",
        "Smith 2017, Cyclical learning rates for training neural networks",
        (({"optimizer": ("sgd", "nesterov")}, 0.1), ({"optimizer": ("adagrad",)}, 0.01), (ALWAYS, 1e-3)),
        Start(
            "sgd: He et al. 2016, section 4.2, in proportion to the batch (Goyal et al. 2017, section 2.1); adagrad: "
            "torch; others: Kingma and Ba 2015, with its square root (Krizhevsky 2014, section 5; Malladi et al. "
            "2022); less what lr_scaling does already",
            scaling=Scaling("batch_size", 128, LR_EXPONENTS),
        ),
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
        Start("sgd: He et al. 2016, section 4.2; rmsprop: torch"),
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
        Start(
            "Sutskever et al. 2013, table 1, and Zagoruyko and Komodakis 2016: at least as good; the default is "
            "torch's",
            always(True),
        ),
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
        Start("Kingma and Ba 2015, algorithm 1"),
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
        Start("Kingma and Ba 2015, algorithm 1"),
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
        Start(
            "between the 32 and fewer with which Masters and Luschi 2018 reach the best test accuracy in so many "
            "epochs, and the 128 of He et al. 2016, the default, which keep a GPU busier",
            always(64),
        ),
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
        Start(
            "sgd: Goyal et al. 2017, section 2.1; others: Krizhevsky 2014, section 5; Malladi et al. 2022; the "
            "default takes lr as it is written",
            (({"optimizer": ("sgd", "nesterov")}, "linear"), (ALWAYS, "square_root")),
            then=("square_root", "linear", "none"),
        ),
        choices=("none", "linear", "square_root"),
    ),
)
