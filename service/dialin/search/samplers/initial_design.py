"""The first trials of a study, before a model of them is of use; and how far its prior is to be trusted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import qmc

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.planning.prior import first_trials, prior_of
from dialin.search.models.encoding import Array, Chosen, Encoding
from dialin.search.prior import SearchPrior, contradicts
from dialin.search.records import Observation, Observations

STARTUP_TRIALS = 8
"""Trials before the model is used; one more than there are knobs, if that is more, but half of the budget at most.
Measured on LCBench: 16 were no better. On ten conditional tasks 10 instead of 39 were worse."""
LEAST_KNOWN = 4
"""Trials that must have reported before the model is used, whatever their number."""
EXAMPLES = 0.1
"""Fraction of the trials of finished studies, the best ones, whose configurations are centres of the prior."""

MOST_TESTED = 300
"""The results of so many trials, the first ones, decide whether they contradict the prior."""


class InitialDesign:
    """Suggests the first configurations of one study.

    They are the default, that is the centre of the prior, and the defaults beside each other value of each choice that
    other knobs depend on; then draws from the prior. Every second one is a point of a scrambled Sobol sequence: without
    these a misleading prior would be compared with itself alone, and early stopping would train the best of bad trials
    to the end. A study without a prior, or whose results contradict it, takes all from that sequence.

    `others`: trials of finished studies. Where there are any, the model is used from the second trial on.
    """

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        spec = plan.spec
        self._encoding, self._seed = encoding, spec.search.seed
        self._sign = 1.0 if spec.objective.mode == "max" else -1.0
        self._first_rung = plan.rungs[0] if plan.rungs else 1
        self._length = max(STARTUP_TRIALS, len(encoding.names) + 1)
        self._length = min(self._length, max(LEAST_KNOWN, spec.budget.trials // 2))
        belief = prior_of(spec, plan.calibration, self._examples(others))
        self.prior = SearchPrior(spec, encoding, belief)
        self._has_others = bool(others)
        defaults = () if self.prior.is_empty else first_trials(spec, belief, plan.calibration)
        self._defaults: dict[int, Chosen] = {one.trial: dict(one.params) for one in defaults}
        self._last_default = max(self._defaults, default=-1)
        self._densities: dict[int, float] = {}
        self._compared: dict[int, tuple[Observation, float | None]] = {}

    def has(self, number: int, known: int) -> bool:
        """Whether trial `number` belongs to the first ones; `known`: how many trials have reported."""
        if number <= self._last_default:
            return True
        return not self._has_others and (number < self._length or known < LEAST_KNOWN)

    def default(self, number: int, attempt: int) -> Chosen | None:
        """The default that trial `number` tries; None: there is none for it."""
        return None if attempt else self._defaults.get(number)

    def point(self, number: int, attempt: int, trusts_prior: bool, generator: np.random.Generator) -> Array:
        """(knobs,) The point of trial `number` where it tries no default."""
        if trusts_prior and number > self._last_default and number % 2:
            return np.asarray(self.prior.draw(1, generator)[0])
        engine = qmc.Sobol(len(self._encoding.names), scramble=True, seed=self._seed)
        index = number + attempt * self._length
        return np.asarray(engine.random_base2(index.bit_length())[index])

    def trusts_prior(self, observations: Observations) -> bool:
        """Whether there is a prior, and the results so far do not contradict it: see `prior.contradicts`. The trials
        are compared at the first rung."""
        if self.prior.is_empty:
            return False
        densities, values = [], []
        for number, one in itertools.islice(observations.items(), MOST_TESTED):
            known = self._compared.get(number)
            if known is None or known[0] is not one:
                known = self._compared[number] = one, self._at_first_rung(one)
            value = known[1]
            if value is not None:
                densities.append(self._density(number, one))
                values.append(value)
        return not contradicts(densities, values)

    def _density(self, number: int, one: Observation) -> float:
        """The logarithm of the prior's density at a trial, per searched knob that it has, computed once: otherwise
        trials with many knobs would be told from those with few."""
        if number not in self._densities:
            columns = self._encoding.columns(self._encoding.encode(one.params)[None])
            knobs = sum(name in one.params for name in self._encoding.names)
            self._densities[number] = float(self.prior.log_ratio(columns, 1)[0]) / max(1, knobs)
        return self._densities[number]

    def _at_first_rung(self, one: Observation) -> float | None:
        """The best value up to the first rung, larger is better, -inf where the trial diverged before; None where it
        has not come so far."""
        values = [self._sign * value for epoch, value in one.values.items() if epoch <= self._first_rung]
        if one.state is TrialState.FAILED or not values:
            return None
        if not all(map(math.isfinite, values)) or one.state is TrialState.DIVERGED:
            return -math.inf
        return max(values) if max(one.values) >= self._first_rung else None

    def _examples(self, others: Sequence[Observation]) -> list[Chosen]:
        """The configurations of the best trials of other studies, the best first."""
        best = [
            (max(self._sign * value for value in one.values.values()), index)
            for index, one in enumerate(others)
            if one.state is TrialState.COMPLETE and all(map(math.isfinite, one.values.values()))
        ]
        count = math.ceil(EXAMPLES * len(best))
        return [dict(others[index].params) for _, index in sorted(best, reverse=True)[:count]]
