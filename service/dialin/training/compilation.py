"""A network compiled by torch, for trials that are long enough to pay for it (`objective.compile`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def compiled(model: nn.Module) -> nn.Module:
    """Return a form of the network that shares its weights and is compiled at its first call, for that call's shapes.

    Compiling takes seconds, and raises what torch raises when the machine has no compiler. On a GPU the kernels are
    replayed as CUDA graphs: an output is valid until the next call.
    """
    # torch compiles at most 8 versions of a function in a process and runs further ones uncompiled without a message; a
    # worker that trains one trial after another would get there. The reset costs little: torch's cache is on disk.
    torch.compiler.reset()
    on_gpu = next(model.parameters()).device.type == "cuda"
    network: Any = torch.compile(model, mode="reduce-overhead" if on_gpu else "default", dynamic=False)
    return network  # type: ignore[no-any-return]
