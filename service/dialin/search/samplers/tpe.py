"""Optuna's tree-structured Parzen estimator over everything that was reported so far."""

from __future__ import annotations

import copy
import math
from collections.abc import Container, Sequence, Set
from dataclasses import dataclass

import numpy as np
import optuna
from optuna import samplers as optuna_samplers
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.distributions import OptunaSpace
from dialin.search.models.encoding import Chosen, Encoding, Key
from dialin.search.ranking import best_value
from dialin.search.records import Observation, Observations
from dialin.search.samplers.base import Sampler
from dialin.specification import active_params, searched
from dialin.specification.domains import holds

STARTUP_TRIALS = 10
"""Trials that are drawn at random before the model is used: Optuna's default."""
MOST_TRIALS = 300
"""Trials in the history at most. The cost of a suggestion grows with them: 5 ms at 100 trials, 40 ms at 2,000."""
BEST_TRIALS = 75
"""Of these, how many are the best ones; the others are a random part of the rest. Optuna's default `gamma` makes the
model of good trials of 25 at most, so all of those are among them."""
_NAME = "history"
LARGEST_SEED = 2**32
"""numpy's limit of a seed, exclusive."""


class TPESampler(Sampler):
    """TPE (Bergstra et al. 2011, Algorithms for hyper-parameter optimization; Watanabe 2023 for Optuna's form).

    The joint model (`multivariate`) and the constant liar are off: measured on LCBench over histories of mixed lengths,
    the two together made the search worse than random (mean regret 0.235 against 0.066 without them; README.md).

    A trial that is paused at a rung is shown to Optuna as one that was pruned there, anew for each suggestion: under
    promotion most trials are paused until the study ends, and without them TPE would know only the few that were
    trained to the end.
    """

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        self._spec, self._space = plan.spec, OptunaSpace(plan.spec, encoding)
        self._names = searched(plan.spec)
        self._maximize = plan.spec.objective.mode == "max"
        self._empty = History(StudyDirection.MAXIMIZE if self._maximize else StudyDirection.MINIMIZE)
        # Older than every trial of this study: TPE weighs trials by their age.
        converted = (self._convert(index - len(others), one) for index, one in enumerate(others))
        self._others = [trial for trial in converted if trial is not None]
        self._converted: dict[int, Converted | None] = {}  # by trial number; None: the trial teaches nothing
        self._stamps: dict[int, tuple[TrialState, int]] = {}  # state and number of values that it was converted from

    def suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int = 0) -> Chosen:
        """Optuna's suggestion for a new trial after the history that the observations make."""
        seed = seed_of_trial(self._spec.search.seed, number)
        study = optuna.load_study(
            study_name=_NAME,
            storage=self._empty.filled(self._history(observations, seed)),
            sampler=optuna_samplers.TPESampler(
                n_startup_trials=STARTUP_TRIALS,
                multivariate=False,
                constant_liar=False,
                seed=(seed + attempt) % LARGEST_SEED,
            ),
        )
        asked = study.ask()
        chosen: Chosen = {}
        for name in self._names:
            if holds(self._spec.space[name].when, active_params(self._spec, chosen)):
                chosen[name] = self._space.suggest(asked, name, chosen)
        return chosen

    def _history(self, observations: Observations, seed: int) -> list[FrozenTrial]:
        """The trials to show to Optuna, by number."""
        for number, observation in observations.items():
            stamp = (observation.state, len(observation.values))
            if self._stamps.get(number) != stamp:
                self._stamps[number] = stamp
                self._converted[number] = self._convert(number, observation)
        history = self._known()
        if len(history) > MOST_TRIALS:
            order = np.argsort([-converted.rank_value for converted in history], kind="stable")
            others = np.random.default_rng(seed).permutation(order[BEST_TRIALS:])[: MOST_TRIALS - BEST_TRIALS]
            history = [history[index] for index in sorted([*order[:BEST_TRIALS], *others])]
        return [converted.trial for converted in history]

    def _known(self) -> list[Converted]:
        """Everything that teaches something, by number, each with its rank value."""
        known = [*self._others, *(self._converted[number] for number in sorted(self._converted))]
        return [converted for converted in known if converted is not None]

    def _convert(self, number: int, observation: Observation) -> Converted | None:
        """A trial in Optuna's terms; None for one that failed, is being trained, or has reported nothing."""
        best = best_value(observation.values, self._maximize)
        is_complete = observation.state is TrialState.COMPLETE
        if observation.state in (TrialState.FAILED, TrialState.RUNNING) or (is_complete and best is None):
            return None
        if observation.state is TrialState.WAITING and not observation.values:
            return None
        parameters = self._space.parameters(observation.params)
        trial = create_trial(
            state=OptunaState.COMPLETE if is_complete else OptunaState.PRUNED,
            value=best if is_complete else None,
            params=parameters,
            distributions=self._space.distributions(parameters),
            intermediate_values=dict(observation.values),
        )
        trial.number = number
        return Converted(trial, _rank_value(trial, self._maximize))


@dataclass(frozen=True)
class Converted:
    """A trial of ours as Optuna's."""

    trial: FrozenTrial
    rank_value: float  # higher is better


class History(InMemoryStorage):
    """A storage whose trials are the history of a suggestion; the trial that is asked for is kept beside them."""

    def __init__(self, direction: StudyDirection) -> None:
        super().__init__()
        self._history: Sequence[FrozenTrial] = ()
        self.create_new_study([direction], _NAME)

    def filled(self, history: Sequence[FrozenTrial]) -> History:
        """A copy of this storage with a history. Making a new one instead would have Optuna log the creation of a study
        at every suggestion."""
        copied = copy.deepcopy(self)
        copied._history = history
        return copied

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._history if states is None or trial.state in states]


def _rank_value(trial: FrozenTrial, maximize: bool) -> float:
    """Higher is better, in TPE's order: complete trials by their value, then the others by how far they got, and of
    those that got equally far by their last value."""
    sign = 1.0 if maximize else -1.0
    if trial.value is not None:
        return 1e12 + sign * trial.value
    last = max(trial.intermediate_values, default=0)
    value = trial.intermediate_values.get(last, math.nan)
    return last * 1e6 + (sign * value if math.isfinite(value) and abs(value) < 1e5 else -1e5)
