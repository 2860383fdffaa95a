"""The arithmetic of a network: float32, or bfloat16 where the device has matrix units for it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from dialin.specification.study_spec import Precision

SMALLEST_SIDE = 12
"""Pixels. With matrix units (AMX) and one thread, a step of small_cnn of width 16 in bfloat16 takes 1.03 times that of
float32 for images of 8 pixels a side, 0.88 of 12, 0.75 of 28; without them 1.15 of 28 (torch 2.15)."""


def resolve(precision: Precision, images: Tensor) -> Precision:
    """What `auto` means for a network that sees such images (n, c, h, w), there where they are; the others as they are.

    bfloat16 on a GPU, and on a CPU with matrix units for it unless the images are tiny; elsewhere float32."""
    if precision != "auto":
        return precision
    pays = images.is_cuda or (_has_matrix_units() and min(images.shape[2:]) >= SMALLEST_SIDE)
    return "bfloat16" if pays else "float32"


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Around forward pass and loss. Weights, their gradients and the optimizer's state stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def _has_matrix_units() -> bool:
    # An older torch does not say.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_tile") and capabilities.get("amx_bf16"))
