"""Optuna with its defaults, and Ray Tune's OptunaSearch with its ASHAScheduler: their own code, as documented."""

from __future__ import annotations

import logging
import warnings
from types import SimpleNamespace
from typing import Any

import optuna

from dialin.search.distributions import distribution
from tests.benchmarks.searchers.base import Asked, Problem

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


def distributions(problem: Problem) -> dict[str, Any]:
    return {name: distribution(domain) for name, domain in problem.spec.space.items()}


class OptunaDefaults:
    """`optuna.create_study(direction="maximize")` with ask and tell: Optuna's default sampler and pruner."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._epochs, self._space = problem.epochs, distributions(problem)
        self._study = optuna.create_study(direction="maximize")
        self._study.sampler = optuna.samplers.TPESampler(seed=seed)  # the default, seeded
        self._trials: dict[int, optuna.Trial] = {}

    def ask(self) -> Asked:
        trial = self._study.ask(self._space)
        self._trials[trial.number] = trial
        return Asked(trial.number, trial.params)

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


class RayPair:
    """OptunaSearch and ASHAScheduler(max_t=epochs), driven as Tune's loop drives them."""

    def __init__(self, problem: Problem, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        self._epochs = problem.epochs
        self._search = OptunaSearch(space=distributions(problem), metric="value", mode="max", seed=seed)
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


SEARCHERS = {"Optuna's defaults": OptunaDefaults, "Ray: OptunaSearch + ASHAScheduler": RayPair}
