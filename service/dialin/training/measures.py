"""What a trial costs, measured where a study asks for it: parameters, seconds of an epoch, memory."""

from __future__ import annotations

import resource
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

MIB = 2.0**20
_PROCESS = Path("/proc/self")


class TrialMeasures:
    """Measures one trial; `names`: those of `specification.metrics.MEASURED` to measure.

    Make it before the network: the peak of the memory counts from then on.
    """

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self._names, self._device = names, device
        self._seconds: list[float] = []
        self._peak = 0.0
        if "memory" in names:
            reset_peak_memory(device)

    def after_epoch(self, model: nn.Module, seconds: float) -> dict[str, float]:
        """The measures after an epoch that took so long, by name:

        - `parameters`: the number of trainable parameters
        - `epoch_seconds`: the median of the epochs so far; the first one often pays for more than itself
        - `memory`: the peak so far in MiB, as `peak_memory` returns it
        """
        found: dict[str, float] = {}
        if "parameters" in self._names:
            found["parameters"] = float(sum(one.numel() for one in model.parameters() if one.requires_grad))
        if "epoch_seconds" in self._names:
            self._seconds.append(seconds)
            found["epoch_seconds"] = statistics.median(self._seconds)
        if "memory" in self._names:
            self._peak = max(self._peak, peak_memory(self._device))
            found["memory"] = self._peak
        return found

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"seconds": self._seconds, "peak": self._peak}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned, perhaps in another process: the peak is then the greater of the two."""
        self._seconds, self._peak = list(state["seconds"]), float(state["peak"])


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` count from here on. Without Linux's /proc the peak of a CPU trial is that of its process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """The peak in MiB: on a GPU of what torch has allocated there in this process, else of this process's resident
    memory, with Python, torch and the data."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    with suppress(OSError):
        for line in (_PROCESS / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024
