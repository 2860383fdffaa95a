"""The search space in Optuna's terms: a distribution for each searched knob, and the parameters that are stored."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from dialin.search.models.encoding import Encoding
from dialin.specification import searched
from dialin.specification.domains import Choice, Domain, FloatRange, IntRange, RangeTested, Scalar
from dialin.specification.study_spec import StudySpec


class OptunaSpace:
    """The searched knobs of a study as Optuna's parameters.

    A learning rate between the bounds of a range test is stored as its position between them, from 0 to 1, under the
    name `lr_share`: the bounds differ from one combination of knobs to another, and what is learnt in one helps in the
    others.
    """

    def __init__(self, spec: StudySpec, encoding: Encoding) -> None:
        self._spec, self._encoding = spec, encoding
        self._names = searched(spec)
        self._distributions = {self._key(name): distribution(spec.space[name]) for name in self._names}

    def parameters(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Optuna's parameters of a configuration: its searched knobs."""
        return {
            self._key(name): self._encoding.unit(name, params) if self._is_tested(name) else params[name]
            for name in self._names
            if name in params
        }

    def distributions(self, parameters: Mapping[str, Scalar]) -> dict[str, BaseDistribution]:
        """The distribution of each of these parameters."""
        return {key: self._distributions[key] for key in parameters}

    def suggest(self, asked: optuna.Trial, name: str, chosen: Mapping[str, Scalar]) -> Scalar:
        """The value of one knob that the sampler of an Optuna trial suggests; `chosen`: the searched knobs that the
        trial has already."""
        if self._is_tested(name):
            return self._encoding.value_at(name, asked.suggest_float(self._key(name), 0.0, 1.0), chosen)
        return suggest(asked, name, self._spec.space[name])

    def _is_tested(self, name: str) -> bool:
        return isinstance(self._spec.space[name], RangeTested)

    def _key(self, name: str) -> str:
        """The name of a knob's parameter in Optuna. It is stored, so it can never change."""
        return f"{name}_share" if self._is_tested(name) else name


def distribution(domain: Domain) -> BaseDistribution:
    """Optuna's distribution of a searched domain. Raises TypeError for a fixed one."""
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
            raise TypeError(f"{domain!r} has one value and is not searched")


def suggest(trial: optuna.Trial, name: str, domain: Domain) -> Scalar:
    """A value for one knob, suggested by the sampler of the trial's study. Raises TypeError for a fixed domain, and for
    a range test, whose bounds Optuna does not know."""
    match domain:
        case Choice(values=values):
            return trial.suggest_categorical(name, values)
        case FloatRange(low=low, high=high, log=log, step=step):
            return trial.suggest_float(name, low, high, log=log, step=step)
        case IntRange(low=low, high=high, log=log, step=step):
            return trial.suggest_int(name, low, high, log=log, step=step)
        case _:
            raise TypeError(f"{domain!r} cannot be suggested by Optuna alone")
