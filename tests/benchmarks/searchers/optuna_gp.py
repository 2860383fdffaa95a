"""Optuna's GPSampler, with Optuna's default pruner and with its form of ASHA. It needs torch.

It learns from complete trials only, and draws at random what not every complete trial has: in a conditional space all
knobs but those that always exist.
"""

from __future__ import annotations

import optuna
import torch  # noqa: F401  without it GPSampler fails when it is first asked

from tests.benchmarks.searchers.stock import OptunaStudy, asha

SEARCHERS = {
    "Optuna: GPSampler": lambda problem, seed: OptunaStudy(problem, seed, _sampler),
    "Optuna: GPSampler + ASHA": lambda problem, seed: OptunaStudy(problem, seed, _sampler, asha()),
}


def _sampler(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False)
