"""Learning-rate schedules: the factor on the base rate, a pure function of the step (plateau looks back)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

STEP_MILESTONES = (0.5, 0.75)  # of the training, as He et al. 2016 do on CIFAR-10
STEP_FACTOR = 0.1


def fixed(_share: float) -> float:
    return 1.0


def step(share: float) -> float:
    """A tenth from half of the training on, a hundredth from three quarters on."""
    return STEP_FACTOR ** sum(share >= milestone for milestone in STEP_MILESTONES)


def cosine(share: float) -> float:
    """Half a cosine from 1 to 0; Loshchilov and Hutter 2017, equation 5 without restarts."""
    return 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES: Mapping[str, Callable[[float], float]] = {"fixed": fixed, "step": step, "cosine": cosine, "plateau": fixed}


@dataclass
class Plateau:
    """Lowers the rate by 10 when the value has not come down for more than `patience` epochs."""

    patience: int = 2
    factor: float = 1.0
    best: float = math.inf
    waited: int = 0

    def observe(self, value: float) -> None:
        if value < self.best:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor, self.waited = self.factor * STEP_FACTOR, 0


def lr_factor(schedule: str, at_step: int, total_steps: int, warmup_steps: float) -> float:
    """The factor for step `at_step` (from 0) of `total_steps`. In the first `warmup_steps` the schedule's own factor is
    scaled by a line from near 0 to 1 (Goyal et al. 2017, section 2.2)."""
    factor = SCHEDULES[schedule](at_step / max(1, total_steps))
    return factor * min(1.0, (at_step + 1) / warmup_steps) if warmup_steps > 0 else factor
