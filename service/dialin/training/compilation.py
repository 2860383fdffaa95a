"""A network compiled by torch, for trials that are long enough to pay for it (`objective.compile`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def compiled(model: nn.Module) -> nn.Module:
    """The same network with the same weights, compiled at its first call for that call's shapes; that takes seconds.

    On a GPU its kernels are replayed as CUDA graphs. What it returns holds until its next call there. Its first call
    raises what torch raises when no compiler is at hand."""
    # A process that trains one trial after another would come to torch's limit of 8 versions of one function, and from
    # there on train uncompiled without a word. What was compiled is kept on disk.
    torch.compiler.reset()
    on_gpu = next(model.parameters()).device.type == "cuda"
    network: Any = torch.compile(model, mode="reduce-overhead" if on_gpu else "default", dynamic=False)
    return network  # type: ignore[no-any-return]
