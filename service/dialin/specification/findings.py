"""What the doctor can find: every rule's name, severity, likely cause, remedy in terms of knobs, and source. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["warning", "fatal"]


@dataclass(frozen=True)
class Rule:
    """One disease. `fatal`: the trial cannot recover, and is stopped where the study says so."""

    severity: Severity
    cause: str
    remedy: str
    source: str


RULES: Mapping[str, Rule] = {
    "non_finite_loss": Rule(
        "fatal",
        "the loss or the weights overflowed",
        "a smaller lr or momentum, warmup_epochs, clip_norm, normalization other than none",
        "Pascanu et al. 2013, section 3.2",
    ),
    "diverged": Rule(
        "fatal",
        "the steps are too large: the loss left its best level for good",
        "a smaller lr or momentum, warmup_epochs, clip_norm",
        "Smith 2017, section 3.3",
    ),
    "dead_network": Rule(
        "fatal",
        "a whole layer gives 0 for every image, so nothing before it gets a gradient",
        "a smaller lr, activation leaky_relu or elu, initialization kaiming, normalization batch",
        "Lu et al. 2020, Dying ReLU and initialization",
    ),
    "loss_spike": Rule(
        "warning",
        "single batches throw the weights far off",
        "a smaller lr, clip_norm, a larger batch_size, beta2 nearer to 0.99",
        "Molybog et al. 2023, A theory on Adam instability",
    ),
    "dead_units": Rule(
        "warning",
        "many units give 0 for every image: large steps or max pooling pushed them below 0",
        "a smaller lr, activation leaky_relu, pooling_normalization l2",
        "Lu et al. 2020",
    ),
    "vanishing_gradient": Rule(
        "warning",
        "the gradient shrinks from layer to layer on its way back",
        "initialization kaiming (xavier for tanh), normalization batch, residual true, less depth, another activation",
        "Glorot and Bengio 2010; He et al. 2015",
    ),
    "exploding_gradient": Rule(
        "warning",
        "the gradient grows from layer to layer on its way back",
        "clip_norm, a smaller initialization_std, normalization batch, initialization kaiming",
        "Pascanu et al. 2013",
    ),
    "saturated_activation": Rule(
        "warning",
        "tanh or sigmoid units sit at their ends, where they pass no gradient",
        "initialization xavier, normalization batch, a smaller lr or initialization_std, activation relu",
        "Glorot and Bengio 2010, section 3",
    ),
    "small_updates": Rule(
        "warning",
        "a step changes the weights by next to nothing",
        "a larger lr, less warm-up, a larger min_lr",
        "Karpathy 2015: about 1e-3 of the weights a step",
    ),
    "large_updates": Rule(
        "warning",
        "a step changes the weights by a large part of themselves",
        "a smaller lr, warmup_epochs, clip_norm",
        "Karpathy 2015: about 1e-3 of the weights a step",
    ),
    "overfitting": Rule(
        "warning",
        "the network learns its training images by heart while it gets worse on others",
        "augmentation, weight_decay, dropout, label_smoothing, a smaller width or depth",
        "Srivastava et al. 2014",
    ),
    "no_learning": Rule(
        "warning",
        "after a third of the training it still only guesses",
        "another lr by a factor of 10 (dialin lr-range-test), initialization kaiming, normalization batch",
        "Smith 2017",
    ),
    "lr_decayed_early": Rule(
        "warning",
        "the learning rate fell to nothing while the loss was still falling",
        "a slower schedule (cosine, a larger final_factor or decay_every), a larger min_lr, a larger plateau_patience",
        "Bengio 2012, section 3.1.1",
    ),
}


@dataclass(frozen=True)
class Finding:
    """What was seen in one trial: a rule's code, the epoch, the layer where it is one layer's, and the numbers."""

    code: str
    epoch: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""

    @property
    def rule(self) -> Rule:
        return RULES[self.code]

    @property
    def fatal(self) -> bool:
        return self.rule.severity == "fatal"

    def text(self) -> str:
        """One line: the code, where and when, and the numbers."""
        numbers = ", ".join(f"{name} {_short(value)}" for name, value in self.evidence.items() if name != "batch")
        where = f" in {self.layer}" if self.layer else ""
        return f"{self.code}{where} after epoch {self.epoch}: {numbers}"

    def to_data(self) -> dict[str, Any]:
        return {"code": self.code, "epoch": self.epoch, "evidence": dict(self.evidence), "layer": self.layer}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
