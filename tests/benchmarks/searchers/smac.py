"""SMAC3's multi-fidelity facade with its defaults (Lindauer et al. 2022): Hyperband with a random forest, by ask and
tell. The space has its conditions in ConfigSpace's terms."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any

from ConfigSpace import (
    AndConjunction,
    CategoricalHyperparameter,
    ConfigurationSpace,
    EqualsCondition,
    InCondition,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from smac import MultiFidelityFacade
from smac import Scenario as SmacScenario
from smac.runhistory.dataclasses import TrialInfo, TrialValue

from dialin.specification import searched
from dialin.specification.domains import Choice, Domain, FloatRange, IntRange
from tests.benchmarks.searchers.base import Asked, Problem

logging.disable(logging.WARNING)
for message in ("Mean of empty slice", "invalid value encountered in scalar divide"):  # it logs the mean of no times
    warnings.filterwarnings("ignore", message, RuntimeWarning)

EVALUATIONS = 100
"""What SMAC is told it may evaluate; a quarter of it, at most, is its random start. Twenty trainings' worth of epochs
are about so many."""


class Smac:
    """Each evaluation is a configuration with a budget of epochs. One that was trained before is trained on."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self._folder = tempfile.TemporaryDirectory()
        scenario = SmacScenario(
            _space(problem, seed),
            output_directory=self._folder.name,
            deterministic=True,
            n_trials=EVALUATIONS,
            min_budget=1,
            max_budget=problem.epochs,
            seed=seed,
        )
        self._facade = MultiFidelityFacade(
            scenario, lambda config, seed, budget: 0.0, overwrite=True, logging_level=False
        )
        self._keys: dict[Any, int] = {}
        self._done: dict[int, int] = {}
        self._asked: dict[int, TrialInfo] = {}

    def ask(self) -> Asked:
        info = self._facade.ask()
        key = self._keys.setdefault(info.config, len(self._keys))
        self._asked[key] = info
        return Asked(key, dict(info.config), self._done.get(key, 0))

    def report(self, key: int, epoch: int, value: float) -> bool:
        info, self._done[key] = self._asked[key], epoch
        if epoch < round(info.budget):
            return False
        self._facade.tell(info, TrialValue(cost=-value), save=False)
        return True


def _space(problem: Problem, seed: int) -> ConfigurationSpace:
    space, domains = ConfigurationSpace(seed=seed), problem.spec.space
    knobs = {name: _knob(name, domains[name]) for name in searched(problem.spec)}
    space.add(*knobs.values())
    space.add(*(_condition(knobs, name, domains[name]) for name in knobs if domains[name].when))
    return space


def _knob(name: str, domain: Domain) -> Any:
    match domain:
        case Choice(values=values):
            return CategoricalHyperparameter(name, list(values))
        case IntRange(low=low, high=high, log=log, step=1):
            return UniformIntegerHyperparameter(name, low, high, log=log)
        case FloatRange(low=low, high=high, log=log, step=None):
            return UniformFloatHyperparameter(name, low, high, log=log)
        case _:
            raise NotImplementedError(domain)


def _condition(knobs: Mapping[str, Any], name: str, domain: Domain) -> Any:
    parts = [
        EqualsCondition(knobs[name], knobs[parent], allowed[0])
        if len(allowed) == 1
        else InCondition(knobs[name], knobs[parent], list(allowed))
        for parent, allowed in domain.when.items()
    ]
    return parts[0] if len(parts) == 1 else AndConjunction(*parts)


SEARCHERS = {"SMAC3: multi-fidelity": Smac}
