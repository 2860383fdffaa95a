"""Syne Tune 0.13's ASHA, MOBSTER, HyperTune and BOHB with their defaults (Salinas et al. 2022).

It knows no conditions. A conditional space is flattened: every trial has a value for every knob, and what does not
exist is not trained with.

The last release with MOBSTER and HyperTune; wants numpy below 2, so it lives in an environment of its own:
`requirements.txt` beside the benchmarks.
"""

from __future__ import annotations

import datetime
import logging
from typing import Any

from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import choice, finrange, lograndint, loguniform, randint, uniform
from syne_tune.optimizer.baselines import ASHA, BOHB, MOBSTER, HyperTune
from syne_tune.optimizer.scheduler import SchedulerDecision

from dialin.specification.domains import Choice, Domain, FloatRange, IntRange
from tests.benchmarks.searchers.base import Asked, Problem, existing

logging.getLogger("syne_tune").setLevel(logging.ERROR)
logging.disable(logging.INFO)


class SyneTune:
    def __init__(self, scheduler: Any, problem: Problem, seed: int) -> None:
        space = {name: _domain(domain) for name, domain in problem.spec.space.items()}
        self._epochs, self._problem = problem.epochs, problem
        self._scheduler = scheduler(
            {**space, "epochs": problem.epochs},
            metric="value",
            mode="max",
            resource_attr="epoch",
            max_resource_attr="epochs",
            random_seed=seed,
            search_options={"debug_log": False},
        )
        self._trials: dict[int, Trial] = {}
        self._done: dict[int, int] = {}

    def ask(self) -> Asked | None:
        key = len(self._trials)
        suggestion = self._scheduler.suggest(key)
        if suggestion is None:
            return None
        if not suggestion.spawn_new_trial_id:
            key = suggestion.checkpoint_trial_id
            return Asked(key, existing(self._problem, self._trials[key].config), self._done[key])
        self._trials[key] = Trial(trial_id=key, config=suggestion.config, creation_time=datetime.datetime.now())
        self._scheduler.on_trial_add(self._trials[key])
        return Asked(key, existing(self._problem, suggestion.config))

    def report(self, key: int, epoch: int, value: float) -> bool:
        trial, result = self._trials[key], {"value": value, "epoch": epoch}
        self._done[key] = epoch
        decision = self._scheduler.on_trial_result(trial, result)
        if epoch >= self._epochs:
            self._scheduler.on_trial_complete(trial, result)
            return True
        if decision == SchedulerDecision.STOP:
            self._scheduler.on_trial_remove(trial)
        return bool(decision != SchedulerDecision.CONTINUE)


def _domain(domain: Domain) -> Any:
    match domain:
        case IntRange(low=low, high=high, log=log, step=1):
            return lograndint(low, high) if log else randint(low, high)
        case FloatRange(low=low, high=high, log=log, step=None):
            return loguniform(low, high) if log else uniform(low, high)
        case IntRange() | FloatRange():
            return finrange(domain.low, domain.high, int((domain.high - domain.low) / (domain.step or 1)) + 1)
        case Choice(values=values):
            return choice(list(values))
        case _:
            raise NotImplementedError(domain)


def _make(scheduler: Any, **options: Any) -> Any:
    return lambda problem, seed: SyneTune(lambda space, **kw: scheduler(space, **kw, **options), problem, seed)


SEARCHERS = {
    "Syne Tune: ASHA": _make(ASHA),
    "Syne Tune: ASHA, promotion": _make(ASHA, type="promotion"),
    "Syne Tune: MOBSTER": _make(MOBSTER),
    "Syne Tune: HyperTune": _make(HyperTune),
    "Syne Tune: BOHB": _make(BOHB),
}
