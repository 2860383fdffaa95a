"""The typed form of a trial's configuration: every training knob as a field of its type, in groups.

Params come as a mapping of names to scalars, which is how a search suggests and stores them.
`Configuration.from_params` checks and converts them once; the rest of `training/` reads the fields only.

A new knob is added in three places: its row in `specification/catalogue/`, its field in a group below (with the name of
the row), and the code that reads the field. A test compares the fields with the catalogue. This module loads no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

from dialin.specification import complete
from dialin.specification.domains import Scalar
from dialin.specification.study_spec import Precision

Group = TypeVar("Group")


@dataclass(frozen=True)
class NetworkKnobs:
    """The architecture and the layers of a network. The catalogue describes each knob (`dialin knobs`)."""

    model: str
    """Name in `models.MODELS`."""
    width: int
    """Channels of the first stage."""
    depth: int
    """Number of convolutional blocks of small_cnn."""
    convolution: str
    """Name in `layers.CONVOLUTIONS`."""
    residual: bool
    """Whether each block of small_cnn has a shortcut."""
    pooling: str
    """Pooling at the end of the backbone: average or max."""
    head: str
    """Classifier: global_average or fully_connected."""
    normalization: str
    """Name in `layers.NORMALIZATIONS`."""
    groups: int
    """Largest number of groups of group normalization."""
    pooling_normalization: str
    """Normalization of the pooled features: none, l2 or softmax."""
    activation: str
    """Name in `layers.ACTIVATIONS`."""
    activation_slope: float
    """Slope of leaky_relu for negative inputs."""
    dropout: float
    """Probability that a feature is dropped, from 0 to below 1."""
    dropout_at: str
    """Position of the dropout: head, or blocks for whole channels after every block as well."""


@dataclass(frozen=True)
class InitializationKnobs:
    """How the weights are drawn."""

    initialization: str
    """Name in `initialization.INITIALIZATIONS`, or "default" for torch's own."""
    initialization_std: float
    """Standard deviation of normal and truncated_normal."""
    initialization_distribution: str
    """Distribution of xavier and kaiming: normal or uniform."""
    zero_init_residual: bool
    """Whether each residual block starts as the identity."""


@dataclass(frozen=True)
class OptimizerKnobs:
    """The optimizer, and what its base learning rate depends on."""

    optimizer: str
    """Name in `optimizers.OPTIMIZERS`."""
    lr: float
    """Learning rate at the top of the schedule, before `lr_scaling`."""
    momentum: float
    """Momentum of sgd, nesterov and rmsprop, from 0 to below 1."""
    nesterov: bool
    """Whether sgd uses Nesterov's form of momentum."""
    beta1: float
    """Decay of the running mean of the gradient, of adam, adamw and nadam."""
    beta2: float
    """Decay of the running mean of the squared gradient, of adam, adamw and nadam."""
    batch_size: int
    """Images a step."""
    lr_scaling: str
    """How `lr` follows the batch size: none, linear or square_root."""


@dataclass(frozen=True)
class ScheduleKnobs:
    """The learning-rate schedule. Each schedule reads its own knobs and ignores the others."""

    schedule: str
    """Name in `schedules.SCHEDULES`."""
    min_lr: float
    """Lower bound of the learning rate at every step."""
    decay_factor: float
    """Factor of each fall of step, multistep and plateau."""
    decay_every: float
    """Fraction of the training between two falls of step."""
    final_factor: float
    """Factor at the end of the training, of exponential and inverse."""
    power: float
    """Exponent of polynomial."""
    cycle_epochs: float
    """Length of the first cycle of sgdr, and of each cycle of cyclical, in epochs."""
    cycle_growth: float
    """Length of each cycle of sgdr over that of the one before."""
    cycle_shape: str
    """Shape of cyclical: triangular, triangular2 or exp_range."""
    cycle_floor: float
    """Lowest factor of cyclical."""
    plateau_metric: str
    """Metric that plateau watches."""
    plateau_mode: str
    """Whether plateau takes lower (min) or higher (max) values for better."""
    plateau_patience: int
    """Epochs without improvement that plateau tolerates."""
    warmup: str
    """Shape of the warm-up: none, linear or quadratic."""
    warmup_epochs: float
    """Length of the warm-up in epochs, where `warmup_steps` is 0."""
    warmup_steps: int
    """Length of the warm-up in steps."""


@dataclass(frozen=True)
class RegularizationKnobs:
    """Penalties on the weights, and gradient clipping."""

    weight_decay: float
    """Strength of the L2 penalty."""
    weight_decay_form: str
    """l2: the penalty is part of the gradient; decoupled: it shrinks the weights separately."""
    l1: float
    """Strength of the L1 penalty."""
    clip_norm: float
    """Largest norm of the gradient of all weights together; 0: no clipping."""


@dataclass(frozen=True)
class LossKnobs:
    """What the training minimizes."""

    loss: str
    """Name in `losses.LOSSES`."""
    label_smoothing: float
    """Fraction of the target that is spread evenly over all classes."""


@dataclass(frozen=True)
class ImageKnobs:
    """What happens to images before the network sees them."""

    input: str
    """Name in `inputs.INPUTS`."""
    augmentation: str
    """Names in `augmentation.AUGMENTATIONS`, joined by "+", or "none"."""


@dataclass(frozen=True)
class Configuration:
    """A value for every training knob, by group."""

    network: NetworkKnobs
    initialization: InitializationKnobs
    optimizer: OptimizerKnobs
    schedule: ScheduleKnobs
    regularization: RegularizationKnobs
    loss: LossKnobs
    images: ImageKnobs

    @classmethod
    def from_params(cls, params: Mapping[str, Scalar]) -> Configuration:
        """Return the configuration of a trial's params; a knob that they leave out takes the catalogue's default.

        Raises TypeError for a value that is not of the knob's type. Values within the type are not checked against the
        catalogue's bounds: `specification` has done that when it read the search space.
        """
        whole = complete(params)
        groups = get_type_hints(cls)
        return cls(**{name: _read_group(group, whole) for name, group in groups.items()})


@dataclass(frozen=True)
class TrainingOptions:
    """How a trial trains and is judged, apart from its knobs: the same for all trials of a study."""

    epochs: int
    """Epochs of a full trial: the length that schedules are fitted to."""
    metric: str
    """Metric whose best epoch gives the weights that `test` evaluates."""
    maximize: bool
    """Whether higher values of `metric` are better."""
    doctor: bool = True
    """Whether the doctor watches the training and reports findings."""
    compile: bool = False
    """Whether torch compiles the network."""
    precision: Precision = "auto"
    """Arithmetic of forward pass and loss; see `precision.resolve`."""
    measured: tuple[str, ...] = ()
    """What is measured beside accuracy and loss; see `measures.TrialMeasures`."""


def _read_group(group: type[Group], params: Mapping[str, Scalar]) -> Group:
    kinds = get_type_hints(group)
    values = {field.name: _read_knob(field.name, params[field.name], kinds[field.name]) for field in fields(group)}  # type: ignore[arg-type]
    return group(**values)


def _read_knob(name: str, value: Scalar, kind: type[Any]) -> Scalar:
    """The value as an instance of `kind`. Only numbers are converted, and only without loss: 1 to 1.0 and back."""
    # bool is a subclass of int, and `batch_size: true` is a mistake.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind in (int, float) and is_number and value == kind(value):
        return kind(value)  # type: ignore[no-any-return]
    if kind in (int, float) or not isinstance(value, kind):
        raise TypeError(f"knob {name}: {value!r} is not of type {kind.__name__}")
    return value  # type: ignore[no-any-return]
