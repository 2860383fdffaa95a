"""Optimizers by name, and what changes gradients and weights around an optimizer's step.

A new optimizer is a function here, its row in `OPTIMIZERS`, its name among the choices of the knob `optimizer` in
`specification/catalogue/optimizer.py`, and a row in the table of `tests/training/test_steps.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from dialin.training.configuration import Configuration, OptimizerKnobs

Groups = list[dict[str, Any]]
"""Parameter groups as torch takes them."""
OptimizerFactory = Callable[[Groups, OptimizerKnobs], Optimizer]


def sgd(groups: Groups, knobs: OptimizerKnobs) -> Optimizer:
    """Stochastic gradient descent with momentum. Without momentum, Nesterov's form is plain SGD."""
    # torch refuses nesterov=True with a momentum of 0.
    nesterov = (knobs.nesterov or knobs.optimizer == "nesterov") and knobs.momentum > 0
    return SGD(groups, knobs.lr, momentum=knobs.momentum, nesterov=nesterov, fused=True)


def adagrad(groups: Groups, knobs: OptimizerKnobs) -> Optimizer:
    """Duchi et al. 2011."""
    return Adagrad(groups, knobs.lr)


def rmsprop(groups: Groups, knobs: OptimizerKnobs) -> Optimizer:
    """Tieleman and Hinton 2012, with momentum."""
    return RMSprop(groups, knobs.lr, momentum=knobs.momentum)


def adam(groups: Groups, knobs: OptimizerKnobs) -> Optimizer:
    """Kingma and Ba 2015."""
    return Adam(groups, knobs.lr, betas=(knobs.beta1, knobs.beta2), fused=True)


def adamw(groups: Groups, knobs: OptimizerKnobs) -> Optimizer:
    """Loshchilov and Hutter 2019."""
    return AdamW(groups, knobs.lr, betas=(knobs.beta1, knobs.beta2), fused=True)


def nadam(groups: Groups, knobs: OptimizerKnobs) -> Optimizer:
    """Dozat 2016: Adam with Nesterov's momentum."""
    return NAdam(groups, knobs.lr, betas=(knobs.beta1, knobs.beta2))


OPTIMIZERS: Mapping[str, OptimizerFactory] = {
    "sgd": sgd,
    "nesterov": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "nadam": nadam,
}


def build_optimizer(model: nn.Module, configuration: Configuration) -> Optimizer:
    """Return the optimizer of a configuration, with the L2 penalty where the optimizer itself applies it.

    It does so for adamw, and as part of the gradient for weight_decay_form l2; otherwise `Penalties` applies it. The
    penalty acts on weights only: the size of biases and normalizations says nothing about how complex the function is.
    """
    knobs, regularization = configuration.optimizer, configuration.regularization
    applies_decay = knobs.optimizer == "adamw" or regularization.weight_decay_form == "l2"
    groups: Groups = [
        {"params": weights_of(model), "weight_decay": regularization.weight_decay if applies_decay else 0.0},
        {"params": [parameter for parameter in model.parameters() if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[knobs.optimizer]([group for group in groups if group["params"]], knobs)


def weights_of(model: nn.Module) -> list[Tensor]:
    """Return the weights of convolutions and linear layers, which are what penalties act on."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


class Penalties:
    """L1 penalty, decoupled weight decay and gradient clipping: what surrounds an optimizer's step."""

    def __init__(self, model: nn.Module, configuration: Configuration) -> None:
        knobs = configuration.regularization
        self._weights = weights_of(model)
        self._parameters: Sequence[Tensor] = list(model.parameters())
        decoupled = knobs.weight_decay_form == "decoupled" and configuration.optimizer.optimizer != "adamw"
        self._decay = knobs.weight_decay if decoupled else 0.0
        self._l1, self._clip_norm = knobs.l1, knobs.clip_norm

    @torch.no_grad()
    def apply_before_step(self, lr: float) -> None:
        """Change gradients and weights for the optimizer's next step, which has the learning rate `lr`.

        Adds l1 * sign(weight), the subgradient of the L1 penalty, to the gradients, then clips all gradients together
        to the norm clip_norm (Pascanu et al. 2013), and multiplies the weights by 1 - lr * weight_decay (Loshchilov and
        Hutter 2019).
        """
        # The torch._foreach_* functions update all tensors in a few kernels; a loop over hundreds of weights would
        # leave a GPU waiting for Python. torch's own optimizers rest on them.
        if self._l1:
            with_gradient = [weight for weight in self._weights if weight.grad is not None]
            gradients = [weight.grad for weight in with_gradient if weight.grad is not None]
            torch._foreach_add_(gradients, torch._foreach_sign(with_gradient), alpha=self._l1)
        if self._clip_norm:
            nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        if self._decay:
            torch._foreach_mul_(self._weights, 1 - lr * self._decay)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
