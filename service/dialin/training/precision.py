"""The arithmetic of the forward pass: float32, or bfloat16 where the device has matrix units for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from dialin.specification.study_spec import Precision

SMALLEST_SIDE = 12
"""Pixels of a side from which bfloat16 pays on a CPU with matrix units (AMX).

With one thread, a step of small_cnn of width 16 in bfloat16 takes 1.03 times that of float32 for images of 8 pixels a
side, 0.88 of 12, 0.75 of 28; without matrix units 1.15 of 28 (torch 2.15).
"""


def resolve(precision: Precision, images: Tensor) -> Precision:
    """Return what `auto` means for images (n, c, h, w) on their device; any other precision is returned as it is.

    `auto` is bfloat16 on a GPU, and on a CPU with matrix units for it unless the images are tiny; otherwise float32.
    """
    if precision != "auto":
        return precision
    pays = images.is_cuda or (_has_matrix_units() and min(images.shape[2:]) >= SMALLEST_SIDE)
    return "bfloat16" if pays else "float32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context of a forward pass. Weights, gradients and the optimizer's state stay float32 in it."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _has_matrix_units() -> bool:
    # An older torch has no such function.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_tile") and capabilities.get("amx_bf16"))
