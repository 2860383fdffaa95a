"""Optimizers by name, and what is done to gradients and weights around a step."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from dialin.specification.domains import Scalar

Groups = list[dict[str, Any]]
Maker = Callable[[Groups, Mapping[str, Scalar]], Optimizer]


def sgd(groups: Groups, params: Mapping[str, Scalar]) -> Optimizer:
    """Stochastic gradient descent with momentum; Nesterov's form needs momentum above 0 and is plain SGD without."""
    momentum = _float(params, "momentum")
    wanted = bool(params["nesterov"]) or params["optimizer"] == "nesterov"
    return SGD(groups, _float(params, "lr"), momentum=momentum, nesterov=wanted and momentum > 0, fused=True)


def adagrad(groups: Groups, params: Mapping[str, Scalar]) -> Optimizer:
    """Duchi et al. 2011."""
    return Adagrad(groups, _float(params, "lr"))


def rmsprop(groups: Groups, params: Mapping[str, Scalar]) -> Optimizer:
    """Tieleman and Hinton 2012, with momentum."""
    return RMSprop(groups, _float(params, "lr"), momentum=_float(params, "momentum"))


def adam(groups: Groups, params: Mapping[str, Scalar]) -> Optimizer:
    """Kingma and Ba 2015."""
    return Adam(groups, _float(params, "lr"), betas=_betas(params), fused=True)


def adamw(groups: Groups, params: Mapping[str, Scalar]) -> Optimizer:
    """Loshchilov and Hutter 2019."""
    return AdamW(groups, _float(params, "lr"), betas=_betas(params), fused=True)


def nadam(groups: Groups, params: Mapping[str, Scalar]) -> Optimizer:
    """Dozat 2016: Adam with Nesterov's momentum."""
    return NAdam(groups, _float(params, "lr"), betas=_betas(params))


OPTIMIZERS: Mapping[str, Maker] = {
    "sgd": sgd,
    "nesterov": sgd,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "adam": adam,
    "adamw": adamw,
    "nadam": nadam,
}


def build_optimizer(model: nn.Module, params: Mapping[str, Scalar]) -> Optimizer:
    """The optimizer of a whole configuration, with the L2 penalty where that is its own to apply: part of the gradient
    for weight_decay_form l2, and adamw's. It acts on weights only, not on biases and normalizations, whose size says
    nothing about how complex the function is."""
    _do_without_the_compiler()
    own = params["optimizer"] == "adamw" or params["weight_decay_form"] == "l2"
    groups: Groups = [
        {"params": weights_of(model), "weight_decay": _float(params, "weight_decay") if own else 0.0},
        {"params": [parameter for parameter in model.parameters() if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[str(params["optimizer"])]([group for group in groups if group["params"]], params)


def _do_without_the_compiler() -> None:
    """Before the first optimizer of a process. These methods import torch's compiler at their first call, to tell it to
    leave them as they are when it should meet them; that takes a worker a second and a half. A compiled network calls
    none of them, so they are marked as if it had been told. Where torch marks them otherwise, it imports what it likes.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            vars(plain).setdefault("__dynamo_disable", plain)


@torch.no_grad()
def take_step(optimizer: Optimizer) -> None:
    """`optimizer.step()`, without what torch wraps around it: hooks and a profiler's mark, of which there are none, and
    a word to the compiler, which it imports for that."""
    inspect.unwrap(type(optimizer).step)(optimizer)


def weights_of(model: nn.Module) -> list[Tensor]:
    """The weights of convolutions and linear layers: what penalties act on."""
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


class Penalties:
    """L1, decoupled weight decay and gradient clipping: what surrounds an optimizer's step."""

    def __init__(self, model: nn.Module, params: Mapping[str, Scalar]) -> None:
        self._weights = weights_of(model)
        self._all: Sequence[Tensor] = list(model.parameters())
        decoupled = params["weight_decay_form"] == "decoupled" and params["optimizer"] != "adamw"
        self._decay = _float(params, "weight_decay") if decoupled else 0.0
        self._l1, self._clip = _float(params, "l1"), _float(params, "clip_norm")

    @torch.no_grad()
    def before_step(self, lr: float) -> None:
        """To the gradients: add l1 * sign(weight), the subgradient of the L1 penalty, then shorten them all together to
        clip_norm (Pascanu et al. 2013). To the weights: times 1 - lr * weight_decay (Loshchilov and Hutter 2019)."""
        if self._l1:
            with_gradient = [weight for weight in self._weights if weight.grad is not None]
            gradients = [weight.grad for weight in with_gradient if weight.grad is not None]
            torch._foreach_add_(gradients, torch._foreach_sign(with_gradient), alpha=self._l1)
        if self._clip:
            nn.utils.clip_grad_norm_(self._all, self._clip)
        if self._decay:
            torch._foreach_mul_(self._weights, 1 - lr * self._decay)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _betas(params: Mapping[str, Scalar]) -> tuple[float, float]:
    return _float(params, "beta1"), _float(params, "beta2")


def _float(params: Mapping[str, Scalar], name: str) -> float:
    return float(params[name])  # type: ignore[arg-type]
