"""What proposes configurations. The sampler sees a history kept for it in memory; the storage stays the truth.

The default is TPE without the joint model and without the constant liar: measured on LCBench over histories of mixed
lengths, both made the search worse than random (0.235 against 0.066 mean regret).
"""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from service.planning import seed_of_trial
from service.search.records import State, TrialRecord
from service.search.spaces import distribution, suggest
from service.spec import active_params, searched
from service.spec.domains import Scalar, holds
from service.spec.study_spec import StudySpec

STARTUP_TRIALS = 10


class Proposer:
    """Proposes the searched knobs of one trial after another. Not thread safe.

    Reproducible: proposal `number` depends on the study's seed, the number and what was observed before it, not on
    how often the process was restarted.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._names = searched(spec)
        self._distributions = {name: distribution(spec.space[name]) for name in self._names}
        direction = StudyDirection.MAXIMIZE if spec.objective.mode == "max" else StudyDirection.MINIMIZE
        self._history = optuna.create_study(direction=direction, storage=optuna.storages.InMemoryStorage())

    def propose(self, number: int) -> dict[str, Scalar]:
        """Values of the searched knobs that exist in this configuration, conditions obeyed."""
        self._history.sampler = _sampler(self._spec.search.sampler, seed_of_trial(self._spec.search.seed, number))
        asked = self._history.ask()
        chosen: dict[str, Scalar] = {}
        for name in self._names:
            domain = self._spec.space[name]
            if holds(domain.when, active_params(self._spec, chosen)):
                chosen[name] = suggest(asked, name, domain)
        # The row of this ask only carried the suggestions; the trial comes back through `observe` when it has ended.
        self._history.tell(asked, state=TrialState.FAIL)
        return chosen

    def observe(self, record: TrialRecord, value: float | None) -> None:
        """Learn from a trial that ended. `value` is its best one, None when it diverged before any finite report."""
        state = {State.COMPLETE: TrialState.COMPLETE, State.FAILED: TrialState.FAIL}.get(
            record.state, TrialState.PRUNED
        )
        if state is TrialState.FAIL or (state is TrialState.COMPLETE and value is None):
            return
        chosen = self.searched_params(record.params)
        self._history.add_trial(
            create_trial(
                state=state,
                value=value if state is TrialState.COMPLETE else None,
                params=chosen,
                distributions={name: self._distributions[name] for name in chosen},
                intermediate_values=dict(record.values),
            )
        )

    def searched_params(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Of a full configuration, the part that the sampler chose."""
        return {name: params[name] for name in self._names if name in params}

    def distribution_of(self, name: str) -> optuna.distributions.BaseDistribution:
        return self._distributions[name]


def _sampler(name: str, seed: int) -> BaseSampler:
    seed32 = seed % 2**32  # numpy's limit
    if name == "random":
        return RandomSampler(seed=seed32)
    return TPESampler(n_startup_trials=STARTUP_TRIALS, multivariate=False, constant_liar=False, seed=seed32)
