"""Searchers of `real_spaces.py`, which see all that an epoch of a real training reports, and name a winner at the end.

dialin's Study with any of its samplers, and Optuna as its documentation shows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from dialin.objectives.base import Metrics
from dialin.planning.plan import ClusterShape, plan_study
from dialin.planning.seeds import seed_of_trial
from dialin.search.decision import Decision
from dialin.search.distributions import suggest
from dialin.search.incumbent import incumbent_of
from dialin.search.records import Trial
from dialin.search.study import Study
from dialin.specification import active_params, parse_spec, searched, to_yaml
from dialin.specification.domains import Scalar, holds
from dialin.specification.findings import Finding
from dialin.specification.study_spec import StudySpec

CPUS = 2
"""Processors of the simulated machine, as many as `dialin run digits` is promised to need."""


class Searcher(Protocol):
    def ask(self) -> Trial | None:
        """What a free worker should train; None: nothing now."""

    def report(self, trial: Trial, epoch: int, metrics: Metrics, findings: Sequence[Finding]) -> bool:
        """Take in the metrics of an epoch; whether the worker is free again."""

    def winner(self) -> tuple[Mapping[str, Scalar], float] | None:
        """The configuration that the searcher recommends when it ends, and its value; None: none has a finite value."""

    def trials(self) -> int:
        """How many configurations were tried."""


class StudySearcher:
    """dialin's Study and what its driver adds: a metric that is not finite, and the doctor, end a trial.

    A study that has tried all its trials before the epochs are spent is extended by as many again. `luckiest`: the
    winner is the complete trial with the best value of any epoch, as is usual, not the one that the study recommends.
    """

    def __init__(self, spec: StudySpec, seed: int, overrides: Sequence[str], luckiest: bool) -> None:
        self._luckiest = luckiest
        self._text, self._overrides = to_yaml(spec), (*overrides, f"search.seed={seed}")
        self._storage = InMemoryStorage()
        self._open(self._overrides)
        self._more = self._plan.spec.budget.trials

    def ask(self) -> Trial | None:
        trial = self._study.ask()
        if trial is None and self._study.finished and not self._study.exhausted:
            more = self._plan.spec.budget.trials + self._more
            self._open((*self._overrides, f"budget.trials={more}"))
            trial = self._study.ask()
        return trial

    def report(self, trial: Trial, epoch: int, metrics: Metrics, findings: Sequence[Finding]) -> bool:
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        is_whole = len(finite) == len(metrics)
        value = metrics[self._plan.spec.objective.metric] if is_whole else math.nan
        decision = self._study.report(trial, epoch, value)
        fatal = [finding for finding in findings if finding.fatal]
        if fatal and self._plan.spec.early_stopping.doctor == "stop" and decision.action in ("continue", "pause"):
            decision = Decision("diverge", "finding", epoch, finding=fatal[0].code)
        if decision.continues:
            return False
        if decision.action != "pause":
            self._study.record_metrics(trial, finite)
        self._study.tell(trial, decision)
        return True

    def winner(self) -> tuple[Mapping[str, Scalar], float] | None:
        best = incumbent_of(self._study.trials(), self._plan.spec, luckiest=self._luckiest)
        return None if best is None else (best.record.params, best.peak.value)

    def trials(self) -> int:
        return len(self._study.trials())

    def _open(self, overrides: Sequence[str]) -> None:
        self._plan = plan_study(parse_spec(self._text, overrides=overrides), ClusterShape(cpus=CPUS))
        self._study = Study.open(self._plan, self._storage, "benchmark")


class OptunaDefaults:
    """`optuna.create_study(direction=...)` and `ask`: Optuna's default sampler, seeded. A loop of its own.

    prunes: whether the loop calls `trial.should_prune()`, for Optuna's default pruner; otherwise every trial is trained
    to its end. Conditional knobs are suggested where they exist, as Optuna documents it.
    """

    def __init__(self, spec: StudySpec, seed: int, prunes: bool) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec, self._seed, self._prunes = spec, seed, prunes
        self._study = optuna.create_study(direction="maximize" if spec.objective.mode == "max" else "minimize")
        self._study.sampler = optuna.samplers.TPESampler(seed=seed)
        self._asked: dict[int, optuna.Trial] = {}

    def ask(self) -> Trial:
        trial = self._study.ask()
        self._asked[trial.number] = trial
        chosen: dict[str, Scalar] = {}
        for name in searched(self._spec):
            if holds(self._spec.space[name].when, active_params(self._spec, chosen)):
                chosen[name] = suggest(trial, name, self._spec.space[name])
        params = active_params(self._spec, chosen)
        trial.set_user_attr("params", params)
        return Trial(trial.number, params, seed_of_trial(self._seed, trial.number))

    def report(self, trial: Trial, epoch: int, metrics: Metrics, findings: Sequence[Finding]) -> bool:
        value, asked = metrics[self._spec.objective.metric], self._asked[trial.number]
        if not math.isfinite(value):
            self._study.tell(asked, state=TrialState.FAIL)
            return True
        asked.report(value, epoch)
        if epoch >= self._spec.budget.epochs:
            self._study.tell(asked, value)
            return True
        if self._prunes and asked.should_prune():
            self._study.tell(asked, state=TrialState.PRUNED)
            return True
        return False

    def winner(self) -> tuple[Mapping[str, Scalar], float] | None:
        """The best complete trial, Optuna's `best_trial`; where there is none, the one with the best last value."""
        trials = self._study.get_trials(deepcopy=False)
        found = [(trial.value, trial) for trial in trials if trial.state is TrialState.COMPLETE]
        found = found or [
            (trial.intermediate_values[trial.last_step], trial) for trial in trials if trial.last_step is not None
        ]
        if not found:
            return None
        sign = 1 if self._spec.objective.mode == "max" else -1
        value, best = max(found, key=lambda pair: sign * pair[0])
        return best.user_attrs["params"], value

    def trials(self) -> int:
        return len(self._asked)


def study_with(*overrides: str, luckiest: bool = False) -> Callable[[StudySpec, int], Searcher]:
    """What makes dialin's searcher with settings of its own, written as for `dialin run --set`."""
    return lambda spec, seed: StudySearcher(spec, seed, overrides, luckiest)


SEARCHERS: Mapping[str, Callable[[StudySpec, int], Searcher]] = {
    "dialin": study_with(),
    "random + ASHA": study_with("search.sampler=random", luckiest=True),
    "tpe + ASHA": study_with("search.sampler=tpe", luckiest=True),
    "Optuna": lambda spec, seed: OptunaDefaults(spec, seed, prunes=False),
    "Optuna, pruned": lambda spec, seed: OptunaDefaults(spec, seed, prunes=True),
}
"""Name -> what makes a searcher of a space and a seed."""
