"""Optuna with its defaults and with ASHA, and Ray Tune's OptunaSearch with its ASHAScheduler: their own code, as
documented."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from dialin.search.distributions import distribution, suggest
from dialin.specification import searched
from dialin.specification.domains import holds
from tests.benchmarks.searchers.base import Asked, Problem

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def suggested(problem: Problem, trial: optuna.Trial) -> dict[str, Any]:
    """Of each knob that exists the value that the trial suggests."""
    params: dict[str, Any] = {}
    for name in searched(problem.spec):
        domain = problem.spec.space[name]
        if holds(domain.when, params):
            params[name] = suggest(trial, name, domain)
    return params


def distributions(problem: Problem) -> dict[str, Any]:
    return {name: distribution(domain) for name, domain in problem.spec.space.items()}


class OptunaStudy:
    """An Optuna study with ask and tell. A knob is suggested where its condition holds, as one writes it in Optuna.

    `sampler`: makes the sampler of a seed. `pruner`: None is Optuna's default.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        sampler: Callable[..., BaseSampler] = optuna.samplers.TPESampler,  # the default, seeded
        pruner: BasePruner | None = None,
    ) -> None:
        self._epochs, self._problem = problem.epochs, problem
        self._study = optuna.create_study(direction="maximize", sampler=sampler(seed=seed), pruner=pruner)
        self._trials: dict[int, optuna.Trial] = {}

    def ask(self) -> Asked:
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return Asked(trial.number, suggested(self._problem, trial))

    def report(self, key: int, epoch: int, value: float) -> bool:
        trial = self._trials[key]
        trial.report(value, epoch)
        if epoch >= self._epochs:
            self._study.tell(trial, value)
            return True
        if trial.should_prune():
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return True
        return False


def asha() -> BasePruner:
    """Optuna's form of ASHA, with the rungs 1, 3, 9 and so on that the other searches have."""
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)


def _suggest_all(problem: Problem, trial: optuna.Trial) -> None:
    suggested(problem, trial)  # OptunaSearch reads the values off the trial, and takes what is returned as constants


class RayPair:
    """OptunaSearch and ASHAScheduler(max_t=epochs), driven as Tune's loop drives them."""

    def __init__(self, problem: Problem, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        self._epochs = problem.epochs
        space = distributions(problem)
        if any(domain.when for domain in problem.spec.space.values()):
            space = partial(_suggest_all, problem)  # its way to state conditions
        self._search = OptunaSearch(space=space, metric="value", mode="max", seed=seed)
        self._scheduler = ASHAScheduler(metric="value", mode="max", max_t=problem.epochs)
        self._trials: dict[int, Any] = {}

    def ask(self) -> Asked:
        key = len(self._trials)
        config = self._search.suggest(str(key))
        trial = SimpleNamespace(trial_id=str(key), config=config, status="RUNNING", stub=None)
        self._trials[key] = trial
        self._scheduler.on_trial_add(None, trial)
        return Asked(key, config)

    def report(self, key: int, epoch: int, value: float) -> bool:
        trial = self._trials[key]
        result = {"value": value, "training_iteration": epoch}
        self._search.on_trial_result(str(key), result)
        ended = self._scheduler.on_trial_result(None, trial, result) != "CONTINUE" or epoch >= self._epochs
        if ended:
            self._scheduler.on_trial_complete(None, trial, result)
            self._search.on_trial_complete(str(key), result)
        return ended


SEARCHERS = {
    "Optuna's defaults": OptunaStudy,
    "Optuna: TPE + ASHA": lambda problem, seed: OptunaStudy(problem, seed, pruner=asha()),
    "Ray: OptunaSearch + ASHAScheduler": RayPair,
}
