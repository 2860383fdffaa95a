"""dialin's own Study, as Ray drives it, with its samplers and both forms of ASHA."""

from __future__ import annotations

from collections.abc import Callable

import optuna
from optuna.storages import InMemoryStorage

from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.records import Trial
from dialin.search.study import Study
from dialin.specification import spec_from_data, to_data
from tests.benchmarks.searchers.base import Asked, Problem, Searcher

optuna.logging.set_verbosity(optuna.logging.ERROR)


class StudySearcher:
    def __init__(self, problem: Problem, seed: int, sampler: str, asha: object) -> None:
        data = to_data(problem.spec)
        data["search"] = {"sampler": sampler, "seed": seed}
        data["early_stopping"] = {"asha": asha}
        data["budget"] = {"trials": 100_000, "epochs": problem.epochs}
        self._study = Study.open(plan_study(spec_from_data(data), ClusterShape(cpus=1)), InMemoryStorage(), "benchmark")
        self._trials: dict[int, Trial] = {}

    def ask(self) -> Asked | None:
        trial = self._study.ask()
        if trial is None:
            return None
        self._trials[trial.number] = trial
        # The benchmark trains on from where a trial was, as from a checkpoint.
        done = max(self._study.values(trial), default=0)
        return Asked(trial.number, trial.params, done)  # type: ignore[arg-type]

    def report(self, key: int, epoch: int, value: float) -> bool:
        trial = self._trials[key]
        decision = self._study.report(trial, epoch, value)
        if not decision.continues:
            self._study.tell(trial, decision)
        return not decision.continues


def _make(sampler: str, asha: object) -> Callable[[Problem, int], Searcher]:
    return lambda problem, seed: StudySearcher(problem, seed, sampler, asha)


STOPPING = {"type": "stopping"}
SEARCHERS = {
    "dialin": lambda problem, seed: StudySearcher(problem, seed, problem.spec.search.sampler, {}),
    "dialin random": _make("random", "off"),
    "dialin random + ASHA": _make("random", STOPPING),
    "dialin random, promotion": _make("random", {}),
    "dialin tpe + ASHA": _make("tpe", STOPPING),
    "dialin tpe, promotion": _make("tpe", {}),
    "dialin gp + ASHA": _make("gp", STOPPING),
}
