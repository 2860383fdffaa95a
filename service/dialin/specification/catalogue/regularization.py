"""The rows of the catalogue about the loss and regularization."""

from __future__ import annotations

from dialin.specification.catalogue.knob import METRIC, Knob, Start, always
from dialin.specification.domains import ALWAYS, FloatRange

REGULARIZATION = (
    Knob(
        "weight_decay",
        "regularization",
        "float",
        "strength of the L2 penalty on the weights; biases and normalizations are exempt",
        "Krogh and Hertz 1992; Loshchilov and Hutter 2019, Decoupled weight decay regularization",
        always(5e-4),
        Start(
            "sgd: Zagoruyko and Komodakis 2016, section 3; adamw: torch; l2 in adaptive optimizers: a fifth of it, "
            "because they scale the penalty up (Loshchilov and Hutter 2019, section 2); sgd decoupled: times 1 / lr "
            "at 0.1",
            (
                ({"optimizer": ("adamw",)}, 1e-2),
                ({"optimizer": ("sgd", "nesterov"), "weight_decay_form": ("decoupled",)}, 5e-3),
                ({"weight_decay_form": ("decoupled",)}, 1e-2),
                ({"optimizer": ("sgd", "nesterov")}, 5e-4),
                (ALWAYS, 1e-4),
            ),
        ),
        low=0.0,
        high=10.0,
        typical=FloatRange(1e-6, 1e-2, log=True),
    ),
    Knob(
        "weight_decay_form",
        "regularization",
        "choice",
        "whether the penalty is part of the gradient (l2), or shrinks the weights separately (decoupled)",
        "Loshchilov and Hutter 2019",
        always("l2"),
        Start(
            "Loshchilov and Hutter 2019: decoupled is better in adaptive optimizers; the default is torch's",
            (({"optimizer": ("sgd", "nesterov")}, "l2"), (ALWAYS, "decoupled")),
        ),
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
        Start("no network for images in common use has one; in a log range the lowest value"),
        low=0.0,
        high=10.0,
        typical=FloatRange(1e-7, 1e-3, log=True),
    ),
    Knob(
        "dropout",
        "regularization",
        "float",
        "fraction of the features that is dropped in training",
        "Srivastava et al. 2014, Dropout",
        always(0.0),
        Start(
            "between none, which batch normalization allows (Ioffe and Szegedy 2015, section 4.2.1), and the 0.2 of "
            "Tan and Le 2019, EfficientNet-B0; the default is none",
            always(0.1),
        ),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.0, 0.5),
    ),
    Knob(
        "dropout_at",
        "regularization",
        "choice",
        "where dropout acts: before the last layer, or on whole channels after every block as well",
        "Srivastava et al. 2014; Tompson et al. 2015 (channels)",
        always("head"),
        Start("Srivastava et al. 2014; Tan and Le 2019: before the last layer"),
        choices=("head", "blocks"),
        applies={"model": ("small_cnn",)},
    ),
    Knob(
        "clip_norm",
        "regularization",
        "float",
        "the largest norm of the gradient of all weights, which is clipped to it; 0: no clipping",
        "Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
        always(0.0),
        Start(
            "Zhang et al. 2020, Why gradient clipping accelerates training; 1 is the usual norm; the default is "
            "none, which no log range has",
            always(1.0),
        ),
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
        Start("Hui and Belkin 2021: the usual one, and no worse on images"),
        choices=("cross_entropy", "mean_squared_error"),
    ),
    Knob(
        "label_smoothing",
        "regularization",
        "float",
        "fraction of the target that is spread evenly over all classes",
        "Szegedy et al. 2016, Rethinking the Inception architecture, section 7",
        always(0.0),
        Start(
            "Szegedy et al. 2016, section 7, and He et al. 2019, Bag of tricks: 0.1; none for val_loss, which is "
            "measured without; the default is none",
            (({METRIC: ("val_loss",)}, 0.0), (ALWAYS, 0.1)),
        ),
        low=0.0,
        high=1.0,
        high_open=True,
        typical=FloatRange(0.0, 0.2),
    ),
)
