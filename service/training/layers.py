"""Activations and normalizations by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

LEAKY_SLOPE = 0.01
CHANNELS_A_GROUP = 4  # at least, so that a group is more than one channel's instance norm
MOST_GROUPS = 32  # Wu and He 2018

ACTIVATIONS: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}

NORMALIZATIONS: Mapping[str, Callable[[int], nn.Module]] = {
    "none": lambda _channels: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "group": lambda channels: nn.GroupNorm(groups_of(channels), channels),
    # Ba et al. 2016 for images: one group of all channels.
    "layer": lambda channels: nn.GroupNorm(1, channels),
}


def groups_of(channels: int) -> int:
    """How many groups group normalization makes of so many channels: the most that divide them evenly, at most 32, with
    at least 4 channels each; 1 where nothing else divides."""
    most = max(1, min(MOST_GROUPS, channels // CHANNELS_A_GROUP))
    return next(groups for groups in range(most, 0, -1) if channels % groups == 0)
