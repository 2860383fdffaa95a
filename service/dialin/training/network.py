"""The network of a configuration, built, initialized and placed where the data is."""

from __future__ import annotations

import torch
from torch import nn

from dialin.training.configuration import Configuration
from dialin.training.device_data import Splits
from dialin.training.initialization import initialize
from dialin.training.models import ImageShape, build_model


def build_network(configuration: Configuration, splits: Splits) -> nn.Module:
    """Return a new network, its weights drawn from torch's global generators, on the device of the data."""
    _, channels, height, width = splits.train.images.shape
    model = build_model(configuration.network, ImageShape(channels, height, width, splits.classes))
    initialize(model, configuration)
    # Channels last makes convolutions 1.3 to 1.4 times as fast on a CPU (torch 2.13 to 2.15).
    placed: nn.Module = model.to(splits.train.images.device).to(memory_format=torch.channels_last)
    return placed
