"""What proposes configurations. The sampler sees a history kept for it in memory; the storage stays the truth.

The default is TPE without the joint model and without the constant liar: measured on LCBench over histories of mixed
lengths, both made the search worse than random (0.235 against 0.066 mean regret).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from service.planning import Plan, seed_of_trial
from service.search.records import State, TrialRecord
from service.search.spaces import distribution, suggest
from service.spec import active_params, searched
from service.spec.domains import Choice, Domain, RangeTested, Scalar, holds
from service.spec.range_tests import at_share, share_of
from service.spec.study_spec import StudySpec

STARTUP_TRIALS = 10


class Proposer:
    """Proposes the searched knobs of one trial after another. Not thread safe.

    Reproducible: proposal `number` depends on the study's seed, the number and what was observed before it, not on
    how often the process was restarted.
    """

    def __init__(self, plan: Plan) -> None:
        spec = plan.spec
        self._spec, self._calibration = spec, plan.calibration
        self._grid: list[dict[str, Scalar]] | None = None
        self._names = searched(spec)
        if plan.calibration is None and any(isinstance(spec.space[name], RangeTested) for name in self._names):
            raise ValueError("the learning rate wants a range test, and the plan has none: calibrate it first")
        self._distributions = {_key(name, spec): distribution(spec.space[name]) for name in self._names}
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the history is no study that anybody should hear of
        direction = StudyDirection.MAXIMIZE if spec.objective.mode == "max" else StudyDirection.MINIMIZE
        self._history = optuna.create_study(direction=direction, storage=optuna.storages.InMemoryStorage())

    def propose(self, number: int) -> dict[str, Scalar]:
        """Values of the searched knobs that exist in this configuration, conditions obeyed."""
        if self._spec.search.sampler == "grid":
            return self._grid_point(number)
        self._history.sampler = _sampler(self._spec.search.sampler, seed_of_trial(self._spec.search.seed, number))
        asked = self._history.ask()
        chosen: dict[str, Scalar] = {}
        for name in self._names:
            domain = self._spec.space[name]
            params = active_params(self._spec, chosen)
            if holds(domain.when, params):
                chosen[name] = self._suggest(asked, name, domain, params)
        # The row of this ask only carried the suggestions; the trial comes back through `observe` when it has ended.
        self._history.tell(asked, state=TrialState.FAIL)
        return chosen

    def _grid_point(self, number: int) -> dict[str, Scalar]:
        """The combination of that number, the last knob fastest; after the last one the grid begins again, with other
        seeds. A knob whose condition does not hold is left out, and its combinations are not repeated."""
        if self._grid is None:
            self._grid = list(self._combinations({}, self._names))
        return self._grid[number % len(self._grid)]

    def _combinations(self, chosen: dict[str, Scalar], names: Sequence[str]) -> Iterator[dict[str, Scalar]]:
        if not names:
            yield dict(chosen)
            return
        domain = self._spec.space[names[0]]
        if not isinstance(domain, Choice) or not holds(domain.when, active_params(self._spec, chosen)):
            yield from self._combinations(chosen, names[1:])
            return
        for value in domain.values:
            yield from self._combinations({**chosen, names[0]: value}, names[1:])

    def observe(self, record: TrialRecord, value: float | None) -> None:
        """Learn from a trial that ended. `value` is its best one, None when it diverged before any finite report."""
        state = {State.COMPLETE: TrialState.COMPLETE, State.FAILED: TrialState.FAIL}.get(
            record.state, TrialState.PRUNED
        )
        if state is TrialState.FAIL or (state is TrialState.COMPLETE and value is None):
            return
        found = self.parameters(record.params)
        self._history.add_trial(
            create_trial(
                state=state,
                value=value if state is TrialState.COMPLETE else None,
                params=found,
                distributions=self.distributions(found),
                intermediate_values=dict(record.values),
            )
        )

    def parameters(self, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Of a configuration, what the sampler chose, as Optuna has it: a tested learning rate is its share from 0 to 1
        of the way between the bounds of its combination, so that what was learnt in one helps in another."""
        return {
            _key(name, self._spec): self._share(params) if _tested(name, self._spec) else params[name]
            for name in self._names
            if name in params
        }

    def distributions(self, parameters: Mapping[str, Scalar]) -> dict[str, BaseDistribution]:
        return {key: self._distributions[key] for key in parameters}

    def _suggest(self, asked: optuna.Trial, name: str, domain: Domain, params: Mapping[str, Scalar]) -> Scalar:
        if self._calibration is None or not _tested(name, self._spec):
            return suggest(asked, name, domain)
        share = asked.suggest_float(_key(name, self._spec), 0.0, 1.0)
        return at_share(self._calibration.bounds_for(params), share)

    def _share(self, params: Mapping[str, Scalar]) -> float:
        bounds = self._calibration.bounds_for(params) if self._calibration is not None else None
        return share_of(bounds, float(params["lr"])) if bounds is not None else 0.0  # type: ignore[arg-type]


def _tested(name: str, spec: StudySpec) -> bool:
    return isinstance(spec.space[name], RangeTested)


def _key(name: str, spec: StudySpec) -> str:
    """What Optuna knows the knob as."""
    return f"{name}_share" if _tested(name, spec) else name


def _sampler(name: str, seed: int) -> BaseSampler:
    seed32 = seed % 2**32  # numpy's limit
    if name == "random":
        return RandomSampler(seed=seed32)
    return TPESampler(n_startup_trials=STARTUP_TRIALS, multivariate=False, constant_liar=False, seed=seed32)
