"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from service.spec.domains import Scalar

Groups = list[dict[str, Any]]


def sgd(groups: Groups, params: Mapping[str, Scalar], fused: bool) -> Optimizer:
    """Stochastic gradient descent with momentum; Nesterov's form needs momentum above 0 and is plain SGD without."""
    momentum = _float(params, "momentum")
    return SGD(
        groups, _float(params, "lr"), momentum=momentum, nesterov=bool(params["nesterov"]) and momentum > 0, fused=fused
    )


def adam(groups: Groups, params: Mapping[str, Scalar], fused: bool) -> Optimizer:
    """Kingma and Ba 2015; weight decay is part of the gradient."""
    return Adam(groups, _float(params, "lr"), fused=fused)


def adamw(groups: Groups, params: Mapping[str, Scalar], fused: bool) -> Optimizer:
    """Loshchilov and Hutter 2019; weight decay is apart from the gradient."""
    return AdamW(groups, _float(params, "lr"), fused=fused)


def rmsprop(groups: Groups, params: Mapping[str, Scalar], _fused: bool) -> Optimizer:
    """Tieleman and Hinton 2012, with momentum."""
    return RMSprop(groups, _float(params, "lr"), momentum=_float(params, "momentum"))


OPTIMIZERS: Mapping[str, Callable[[Groups, Mapping[str, Scalar], bool], Optimizer]] = {
    "sgd": sgd,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
}


def build_optimizer(model: nn.Module, params: Mapping[str, Scalar]) -> Optimizer:
    """The optimizer that `params` describe. Weight decay acts on weights only, not on biases and normalizations, whose
    size says nothing about how complex the function is."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups: Groups = [{"params": decayed, "weight_decay": _float(params, "weight_decay")}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    return OPTIMIZERS[str(params["optimizer"])](groups, params, True)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _float(params: Mapping[str, Scalar], name: str) -> float:
    return float(params[name])  # type: ignore[arg-type]
