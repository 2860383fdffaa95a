"""The rules of the doctor, which diagnoses trials while they train, and the record of what a rule found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["warning", "fatal"]


@dataclass(frozen=True)
class Rule:
    """What the doctor can find in a trial.

    severity: "fatal" when the trial cannot recover; it is stopped if the study says so.
    cause: the likely cause.
    remedy: what to change, in terms of knobs.
    source: the article that describes it.
    """

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
        "a whole layer is 0 for every image, so no layer before it gets a gradient",
        "a smaller lr, activation leaky_relu or elu, initialization kaiming, normalization batch",
        "Lu et al. 2020, Dying ReLU and initialization",
    ),
    "loss_spike": Rule(
        "warning",
        "single batches move the weights very far",
        "a smaller lr, clip_norm, a larger batch_size, beta2 nearer to 0.99",
        "Molybog et al. 2023, A theory on Adam instability",
    ),
    "dead_units": Rule(
        "warning",
        "many units are 0 for every image: large steps or max pooling pushed them below 0",
        "a smaller lr, activation leaky_relu, pooling_normalization l2",
        "Lu et al. 2020",
    ),
    "vanishing_gradient": Rule(
        "warning",
        "the gradient shrinks from layer to layer as it is propagated back",
        "initialization kaiming (xavier for tanh), normalization batch, residual true, less depth, another activation",
        "Glorot and Bengio 2010; He et al. 2015",
    ),
    "exploding_gradient": Rule(
        "warning",
        "the gradient grows from layer to layer as it is propagated back",
        "clip_norm, a smaller initialization_std, normalization batch, initialization kaiming",
        "Pascanu et al. 2013",
    ),
    "saturated_activation": Rule(
        "warning",
        "tanh or sigmoid units are saturated, where they pass no gradient",
        "initialization xavier, normalization batch, a smaller lr or initialization_std, activation relu",
        "Glorot and Bengio 2010, section 3",
    ),
    "small_updates": Rule(
        "warning",
        "a step changes the weights by almost nothing",
        "a larger lr, less warm-up, a larger min_lr",
        "Karpathy 2015: about 1e-3 of the weights a step",
    ),
    "large_updates": Rule(
        "warning",
        "a step changes the weights by a large fraction of their size",
        "a smaller lr, warmup_epochs, clip_norm",
        "Karpathy 2015: about 1e-3 of the weights a step",
    ),
    "overfitting": Rule(
        "warning",
        "the network memorizes its training images while it gets worse on others",
        "augmentation, weight_decay, dropout, label_smoothing, a smaller width or depth",
        "Srivastava et al. 2014",
    ),
    "no_learning": Rule(
        "warning",
        "after a third of the training it is no better than guessing",
        "another lr by a factor of 10 (dialin lr-range-test), initialization kaiming, normalization batch",
        "Smith 2017",
    ),
    "lr_decayed_early": Rule(
        "warning",
        "the learning rate decayed to almost nothing while the loss was still falling",
        "a slower schedule (cosine, a larger final_factor or decay_every), a larger min_lr, a larger plateau_patience",
        "Bengio 2012, section 3.1.1",
    ),
}


@dataclass(frozen=True)
class Finding:
    """What a rule found in one trial.

    code: the name of the rule in `RULES`.
    epoch: the epoch after which it was found.
    evidence: the numbers that it was found by, each under its name.
    layer: the layer that it is about; empty for the whole network.
    """

    code: str
    epoch: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""

    @property
    def rule(self) -> Rule:
        """The rule that found it."""
        return RULES[self.code]

    @property
    def fatal(self) -> bool:
        """Whether the trial cannot recover."""
        return self.rule.severity == "fatal"

    def text(self) -> str:
        """One line: the rule, the layer, the epoch and the numbers."""
        numbers = ", ".join(f"{name} {_short(value)}" for name, value in self.evidence.items() if name != "batch")
        where = f" in {self.layer}" if self.layer else ""
        return f"{self.code}{where} after epoch {self.epoch}: {numbers}"

    def to_data(self) -> dict[str, Any]:
        """Plain data, from which `Finding(**data)` makes the same finding."""
        return {"code": self.code, "epoch": self.epoch, "evidence": dict(self.evidence), "layer": self.layer}


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
