"""What proposes configurations. The default's model is in `model_sampler.py`; Optuna's TPE and random search here.

TPE runs without the joint model and without the constant liar: measured on LCBench over histories of mixed lengths,
both made the search worse than random (0.235 against 0.066 mean regret). README.md has the measurements behind the
default.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.encoding import Chosen, Encoding, Key
from dialin.search.ranking import best_value
from dialin.search.records import Seen
from dialin.search.spaces import distribution, suggest
from dialin.specification import active_params, sampler_of, searched
from dialin.specification.domains import Domain, RangeTested, Scalar, holds
from dialin.specification.range_tests import at_share
from dialin.specification.study_spec import StudySpec

TPE_STARTUP_TRIALS = 10
MOST_SHOWN, BEST_SHOWN = 300, 75  # trials that TPE sees at most, and the best ones among them
ATTEMPTS = 20  # at a configuration that was not tried yet
SMALL = 4096  # a finite space of at most so many configurations is known to be exhausted


class Sampler(Protocol):
    """Proposes the searched knobs of one trial after another, given all trials before it."""

    def propose(self, number: int, seen: Mapping[int, Seen], tried: Set[Key], attempt: int) -> Chosen:
        """Values of the searched knobs that exist in this configuration. A new `attempt` (from 0) follows a proposal
        whose key was among those `tried`."""


class Proposer:
    """What Study asks: the configurations that were enqueued, then the sampler's, none twice. Not thread safe.

    Reproducible: proposal `number` depends on the study's seed, the number and what was observed before it, not on
    how often the process was restarted.
    """

    def __init__(self, plan: Plan, others: Sequence[Seen] = ()) -> None:
        spec = plan.spec
        self._spec, self._calibration = spec, plan.calibration
        self._names = searched(spec)
        self.encoding = Encoding(spec, plan.calibration)
        self._distributions = {_key(name, spec): distribution(spec.space[name]) for name in self._names}
        self._grid = list(self.encoding.all()) if spec.search.sampler == "grid" else None
        self._sampler = self._make_sampler(plan, [one for one in others if self.encoding.contains(one.params)])
        self._size = self.encoding.size(SMALL)
        self._keys: dict[int, Key] = {}

    def propose(self, number: int, seen: Mapping[int, Seen]) -> Chosen | None:
        """The searched knobs of trial `number`; None: every configuration has been tried."""
        if self._grid is not None:
            # After the last combination the grid begins again, with other seeds.
            return self._grid[number % len(self._grid)]
        for other, one in seen.items():
            if other not in self._keys:
                self._keys[other] = self.encoding.key(one.params)
        tried = set(self._keys.values())
        if self._size is not None and len(tried) >= self._size:
            return None
        if number < len(self._spec.search.enqueue):
            chosen = self._enqueued(number, seen, tried)
            if not self._names or self.encoding.key_of(chosen) not in tried:
                return chosen
        for attempt in range(ATTEMPTS):
            chosen = self._sampler.propose(number, seen, tried, attempt)
            if self.encoding.key_of(chosen) not in tried:
                return chosen
        return self._untried(number, tried)

    def propose_some(self, number: int, seen: Mapping[int, Seen], count: int) -> list[Chosen | None]:
        """Those of trial `number` and of the next, up to `count` of them: the first as `propose` has it, the others as
        they follow from it without a look at all points again. Fewer where the sampler has no quicker way."""
        first = self.propose(number, seen)
        more = getattr(self._sampler, "more", None)
        if first is None or more is None or count == 1 or number < len(self._spec.search.enqueue):
            return [first]
        tried = {*self._keys.values(), self.encoding.key_of(first)}
        proposals: list[Chosen | None] = [first]
        for chosen in more(first, count - 1):
            key = self.encoding.key_of(chosen)
            if key not in tried:
                tried.add(key)
                proposals.append(chosen)
        return proposals

    def parameters(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Of a configuration, what the sampler chose, as Optuna has it: a tested learning rate is its share from 0 to 1
        of the way between the bounds of its combination, so that what was learnt in one helps in another."""
        return {
            _key(name, self._spec): self.encoding.share(name, params) if _tested(name, self._spec) else params[name]
            for name in self._names
            if name in params
        }

    def distributions(self, parameters: Mapping[str, Scalar]) -> dict[str, BaseDistribution]:
        return {key: self._distributions[key] for key in parameters}

    def suggest(self, asked: optuna.Trial, name: str, domain: Domain, params: Mapping[str, Scalar]) -> Scalar:
        """A knob's value as a trial of Optuna's suggests it."""
        if self._calibration is None or not _tested(name, self._spec):
            return suggest(asked, name, domain)
        share = asked.suggest_float(_key(name, self._spec), 0.0, 1.0)
        return at_share(self._calibration.bounds_for(params), share)

    def _make_sampler(self, plan: Plan, others: Sequence[Seen]) -> Sampler:
        name = sampler_of(plan.spec)
        if name == "tpe":
            return TpeSampler(plan, self, others)
        if name == "gp":
            # scipy is read only where the model is used.
            from dialin.search.model_sampler import ModelSampler

            return ModelSampler(plan, self.encoding, others)
        return RandomSampler(plan, self.encoding)

    def _enqueued(self, number: int, seen: Mapping[int, Seen], tried: Set[Key]) -> Chosen:
        """An enqueued configuration; the knobs that it does not name are proposed."""
        wanted = self._spec.search.enqueue[number]
        proposed = self._sampler.propose(number, seen, tried, 0)
        chosen: Chosen = {}
        for name in self._names:
            if holds(self._spec.space[name].when, active_params(self._spec, chosen)):
                # A condition that only the wanted value meets can bring in a knob that the proposal does not have.
                middle = self.encoding.value_at(name, 0.5, chosen)
                chosen[name] = wanted.get(name, proposed.get(name, middle))
        return chosen

    def _untried(self, number: int, tried: Set[Key]) -> Chosen | None:
        """Any configuration that was not tried, where the sampler finds none."""
        generator = np.random.default_rng(seed_of_trial(self._spec.search.seed, number))
        if self._size is not None:
            left = [chosen for chosen in self.encoding.all() if self.encoding.key_of(chosen) not in tried]
            return left[int(generator.integers(len(left)))] if left else None
        for _ in range(1000):
            chosen = self.encoding.decode(generator.random(len(self._names)))
            if self.encoding.key_of(chosen) not in tried:
                return chosen
        return None


class RandomSampler:
    """Every value alike, of a range on its own scale."""

    def __init__(self, plan: Plan, encoding: Encoding) -> None:
        self._seed, self._encoding = plan.spec.search.seed, encoding

    def propose(self, number: int, seen: Mapping[int, Seen], tried: Set[Key], attempt: int) -> Chosen:
        generator = np.random.default_rng([seed_of_trial(self._seed, number), attempt])
        return self._encoding.decode(generator.random(len(self._encoding.names)))


class TpeSampler:
    """Optuna's TPE (Bergstra et al. 2011, Watanabe 2023) over what each trial has reported so far.

    A trial that waits at a rung is shown to it as one that was pruned there, anew for each suggestion: under promotion
    most trials wait until the study ends, and without them TPE would know only of the few that were trained to the end.
    What a suggestion costs grows with the trials shown, so of many the best are shown, and of the others, which only
    say where most have been, a random part.
    """

    def __init__(self, plan: Plan, proposer: Proposer, others: Sequence[Seen]) -> None:
        self._spec, self._proposer = plan.spec, proposer
        self._names = searched(plan.spec)
        self._maximize = plan.spec.objective.mode == "max"
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the history is no study that anybody should hear of
        found = (self._shown_as(index - len(others), one) for index, one in enumerate(others))
        self._others = [shown for shown in found if shown is not None]
        self._shown: dict[int, _Shown | None] = {}  # by trial number; None: says nothing
        self._stamps: dict[int, tuple[TrialState, int]] = {}  # the state and the number of values that it was made from

    def propose(self, number: int, seen: Mapping[int, Seen], tried: Set[Key], attempt: int) -> Chosen:
        seed = seed_of_trial(self._spec.search.seed, number)
        history = optuna.create_study(
            direction=StudyDirection.MAXIMIZE if self._maximize else StudyDirection.MINIMIZE,
            storage=_History(self._history(seen, seed)),
            sampler=TPESampler(
                n_startup_trials=TPE_STARTUP_TRIALS,
                multivariate=False,
                constant_liar=False,
                seed=(seed + attempt) % 2**32,  # numpy's limit
            ),
        )
        asked = history.ask()
        chosen: Chosen = {}
        for name in self._names:
            domain = self._spec.space[name]
            params = active_params(self._spec, chosen)
            if holds(domain.when, params):
                chosen[name] = self._proposer.suggest(asked, name, domain, params)
        return chosen

    def _history(self, seen: Mapping[int, Seen], seed: int) -> list[FrozenTrial]:
        """The trials to show, by number."""
        for number, one in seen.items():
            stamp = (one.state, len(one.values))
            if self._stamps.get(number) != stamp:
                self._stamps[number] = stamp
                self._shown[number] = self._shown_as(number, one)
        known = [*self._others, *(self._shown[number] for number in sorted(self._shown))]
        there = [shown for shown in known if shown is not None]
        if len(there) > MOST_SHOWN:
            order = np.argsort([-shown.rank for shown in there], kind="stable")
            rest = np.random.default_rng(seed).permutation(order[BEST_SHOWN:])[: MOST_SHOWN - BEST_SHOWN]
            there = [there[index] for index in sorted([*order[:BEST_SHOWN], *rest])]
        return [shown.trial for shown in there]

    def _shown_as(self, number: int, one: Seen) -> _Shown | None:
        """A trial in Optuna's terms; None for one that failed, is being trained, or has reported nothing."""
        best = best_value(one.values, self._maximize)
        complete = one.state is TrialState.COMPLETE
        waits_unseen = one.state is TrialState.WAITING and not one.values
        if one.state in (TrialState.FAILED, TrialState.RUNNING) or waits_unseen or (complete and best is None):
            return None
        found = self._proposer.parameters(one.params)
        trial = create_trial(
            state=OptunaState.COMPLETE if complete else OptunaState.PRUNED,
            value=best if complete else None,
            params=found,
            distributions=self._proposer.distributions(found),
            intermediate_values=dict(one.values),
        )
        trial.number = number  # TPE weighs trials by their age
        return _Shown(trial, _rank_value(trial, self._maximize))


@dataclass(frozen=True)
class _Shown:
    trial: FrozenTrial
    rank: float  # higher is better


class _History(InMemoryStorage):
    """A storage in which TPE finds the trials that it is to know of. Those of suggestions are kept beside them."""

    def __init__(self, shown: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._shown = shown

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[OptunaState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._shown if states is None or trial.state in states]


def _rank_value(trial: FrozenTrial, maximize: bool) -> float:
    """Higher is better, as TPE sees it: complete trials by their value, then those that got further."""
    sign = 1.0 if maximize else -1.0
    if trial.value is not None:
        return 1e12 + sign * trial.value
    last = max(trial.intermediate_values, default=0)
    value = trial.intermediate_values.get(last, math.nan)
    return last * 1e6 + (sign * value if math.isfinite(value) and abs(value) < 1e5 else -1e5)


def _tested(name: str, spec: StudySpec) -> bool:
    return isinstance(spec.space[name], RangeTested)


def _key(name: str, spec: StudySpec) -> str:
    """What Optuna knows the knob as."""
    return f"{name}_share" if _tested(name, spec) else name
