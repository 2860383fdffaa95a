"""How fastai and Lightning read a learning rate off a range test, written anew from their sources for `lr_rules.py`.

fastai 2: `fastai/callback/schedule.py` (LRFinder, lr_find, valley, slide, minimum, steep). Lightning 2:
`lightning/pytorch/tuner/lr_finder.py`. Both take 100 steps, smooth the training loss with weight 0.98, and stop when it
exceeds 4 times its best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

STEPS = 100
BETA = 0.98
STOP = 4.0

Losses = Sequence[float]


def fastai_rates() -> list[float]:
    """The rates of fastai's test: 1e-7 to 10."""
    return [1e-7 * (10 / 1e-7) ** (step / STEPS) for step in range(STEPS)]


def lightning_rates() -> list[float]:
    """The rates of Lightning's test: 1e-8 to 1; its scheduler repeats the first rate and then runs one step ahead."""
    return [1e-8 * (1 / 1e-8) ** ((step + 1) / STEPS if step else 0.0) for step in range(STEPS)]


def fastai_rules(losses: Losses) -> dict[str, float | None]:
    """The four suggestions of `lr_find` for the training losses of a test at `fastai_rates`; None: it raises."""
    smooth = _smoothed(losses, BETA, 0)
    # lr_find leaves out the first tenth and the last five points, and everything from the first NaN on.
    rates, values = np.array(fastai_rates()[: len(smooth)])[STEPS // 10 : -5], np.array(smooth)[STEPS // 10 : -5]
    bad = np.flatnonzero(np.isnan(values))
    if len(bad):
        rates, values = rates[: bad[0]], values[: bad[0]]
    rules: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
        "fastai minimum/10": _minimum, "fastai steep": _steep, "fastai valley": _valley, "fastai slide": _slide,
    }  # fmt: skip
    return {name: rule(rates, values) if len(rates) > 1 else None for name, rule in rules.items()}


def lightning_rule(losses: Losses) -> float | None:
    """The suggestion of Lightning for the training losses of a test at `lightning_rates`; None where it has none."""
    smooth = _smoothed(losses, BETA, 1)
    rates, values = np.array(lightning_rates()[: len(smooth)])[10:-1], np.array(smooth)[10:-1]
    rates, values = rates[np.isfinite(values)], values[np.isfinite(values)]
    if len(values) < 2:
        return None
    # torch.gradient and numpy.gradient are the same second-order formula for uneven spacing.
    return float(rates[np.argmin(np.gradient(values, rates))])


def _smoothed(losses: Losses, beta: float, ahead: int) -> list[float]:
    """The running mean up to where the test stops. `ahead`: Lightning's correction counts one step too many."""
    mean, best, smooth = 0.0, math.inf, []
    # A loss that is not a number stops neither test: the rest of the points is not a number either.
    padded = [*losses, *[math.nan] * (STEPS - len(losses))] if losses and math.isnan(losses[-1]) else losses
    for step, loss in enumerate(padded, start=1):
        mean = beta * mean + (1 - beta) * loss
        smooth.append(mean / (1 - beta ** (step + ahead)))
        if smooth[-1] > STOP * best:
            break
        best = min(best, smooth[-1])
    return smooth


def _minimum(rates: np.ndarray, losses: np.ndarray) -> float:
    return float(rates[losses.argmin()]) / 10


def _steep(rates: np.ndarray, losses: np.ndarray) -> float:
    return float(rates[int(np.argmin(np.diff(losses) / np.diff(np.log(rates))))])


def _valley(rates: np.ndarray, losses: np.ndarray) -> float:
    longest = [1] * len(losses)
    start = end = 0
    for i in range(1, len(losses)):
        for j in range(i):
            if losses[i] < losses[j] and longest[i] < longest[j] + 1:
                longest[i] = longest[j] + 1
            if longest[end] < longest[i]:
                end = i
                start = end - longest[end]
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def _slide(rates: np.ndarray, losses: np.ndarray, apart: int = 15, threshold: float = 0.005) -> float:
    if len(losses) <= apart:
        return float(rates[0])
    slopes = np.gradient(losses)
    right, left = -1, -1 - apart
    found = rates[left]
    while left >= -len(losses) and abs(slopes[right] - slopes[left]) > threshold:
        found = rates[left]
        right, left = right - 1, left - 1
    return float(found)
