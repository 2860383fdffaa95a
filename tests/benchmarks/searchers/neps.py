"""NePS' PriorBand (Mallik et al. 2023), given the prior of the problem, and its Hyperband where there is none: what NePS
takes by default for a space with a fidelity. By ask and tell.

Its classic space knows no conditions and is flattened, as PriorBand's published densities need it: every configuration
has a value for every knob, and what does not exist is not trained with. Each knob's centre is the prior's value for it,
with NePS' default confidence.
"""

from __future__ import annotations

import logging
import random
from typing import Any

import neps
import numpy as np
import torch

from dialin.specification import searched
from dialin.specification.domains import Choice, Domain, FloatRange, IntRange
from tests.benchmarks.searchers.base import Asked, Problem, existing

logging.getLogger("neps").setLevel(logging.ERROR)
_FIDELITY = "epochs"


class PriorBand:
    """Each evaluation is a configuration up to an epoch. One that is promoted is trained on."""

    def __init__(self, problem: Problem, seed: int, **options: Any) -> None:
        for seeded in (random.seed, np.random.seed, torch.manual_seed):  # it has no seed of its own
            seeded(seed)
        prior = problem.prior or {}
        knobs = {name: _knob(problem.spec.space[name], prior.get(name)) for name in searched(problem.spec)}
        fidelity = neps.HPOInteger(1, problem.epochs, is_fidelity=True)
        space = neps.SearchSpace({**knobs, _FIDELITY: fidelity})
        search = neps.algorithms.priorband(space, **options) if prior else neps.algorithms.hyperband(space)
        self._problem, self._search = problem, neps.AskAndTell(search)
        self._trials: dict[int, Any] = {}
        self._done: dict[int, int] = {}

    def ask(self) -> Asked:
        trial = self._search.ask()
        key = int(trial.metadata.id.split("_")[0])
        self._trials[key] = trial
        return Asked(key, existing(self._problem, trial.config), self._done.get(key, 0))

    def report(self, key: int, epoch: int, value: float) -> bool:
        trial, self._done[key] = self._trials[key], epoch
        if epoch < trial.config[_FIDELITY]:
            return False
        self._search.tell(trial, -value)
        return True


def _knob(domain: Domain, centre: Any) -> Any:
    match domain:
        case Choice(values=values):
            return neps.HPOCategorical(list(values), prior=centre)
        case IntRange(low=low, high=high, log=log, step=1):
            return neps.HPOInteger(low, high, log=log, prior=centre)
        case FloatRange(low=low, high=high, log=log, step=None):
            return neps.HPOFloat(low, high, log=log, prior=centre)
        case _:
            raise NotImplementedError(domain)


SEARCHERS = {
    "NePS: PriorBand": PriorBand,
    "NePS: PriorBand, the prior first": lambda problem, seed: PriorBand(problem, seed, sample_prior_first=True),
}
