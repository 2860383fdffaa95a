"""A search space in Optuna's words."""

from __future__ import annotations

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from dialin.specification.domains import Choice, Domain, FloatRange, IntRange, RangeTested, Scalar


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution of a domain that moves. Raises TypeError for a fixed one."""
    match domain:
        case Choice(values=values):
            return CategoricalDistribution(values)
        case FloatRange(low=low, high=high, log=log, step=step):
            return FloatDistribution(low, high, log=log, step=step)
        case IntRange(low=low, high=high, log=log, step=step):
            return IntDistribution(low, high, log=log, step=step)
        case RangeTested():
            return FloatDistribution(0.0, 1.0)
        case _:
            raise TypeError(f"{domain!r} does not move")


def suggest(trial: optuna.Trial, name: str, domain: Domain) -> Scalar:
    """A value for one knob, proposed by the sampler of the trial's study."""
    match domain:
        case Choice(values=values):
            return trial.suggest_categorical(name, values)
        case FloatRange(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntRange(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case _:
            raise TypeError(f"{domain!r} does not move")
