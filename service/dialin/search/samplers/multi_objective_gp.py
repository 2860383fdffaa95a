"""Bayesian optimization with several metrics, or under constraints: a model of learning curves for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
from threadpoolctl import ThreadpoolController

from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.goals import Goals, Point
from dialin.search.models.curve_model import at_full_length
from dialin.search.models.embedding import Embedding
from dialin.search.models.encoding import Array, Chosen, Encoding, Key
from dialin.search.models.quantities import Quantity, running_of
from dialin.search.pareto import order_of
from dialin.search.records import Observation, Observations
from dialin.search.samplers.acquisition import exclude_crowds, log_expected_improvement
from dialin.search.samplers.base import Sampler
from dialin.search.samplers.candidates import SEARCH_STARTS, Candidates
from dialin.search.samplers.draws import RANDOM_FRACTION, Draws, Round
from dialin.search.samplers.initial_design import LEAST_KNOWN, InitialDesign
from dialin.search.samplers.learning_curve_gp import MOST_PROMISING
from dialin.search.samplers.multi_acquisition import (
    TINY,
    expected_hypervolume_improvement,
    log_probability_within,
    non_dominated,
    reference_of,
    scaled_improvement,
)

LEADERS = 5
"""Trials around which candidates are drawn: the best in the order of `pareto.order_of` by their predictions."""
FIRST_TRIALS = 16
"""Trials of the initial design at most with several metrics, before the models are used. Measured: README.md."""


class MultiObjectiveGPSampler(Sampler):
    """A Gaussian process over knobs and epochs for each metric, and for each quantity that a constraint bounds.

    1. Observations: of each trial, at a few of its epochs, the quantity at the point that it has by then: the epoch
       that is best by the first metric (`models.quantities`).
    2. The incumbents: the front of what the models predict at full length for the trials that violate no constraint,
       the running ones included as predicted, so that parallel workers get different suggestions.
    3. Acquisition function: expected hypervolume improvement over that front with two metrics, expected improvement
       with one, and that of a random augmented Chebyshev scaling with more; times the probability that the constraints
       hold (Gardner et al. 2014), and the probability that the configuration trains without failing. While no trial
       meets the constraints it is these probabilities alone.
    4. The first trials, with several metrics fewer of them, the candidates and the prior are those for one metric
       (`samplers.learning_curve_gp`); where these look at values, at those of the first metric.

    Deterministic in the study's seed, the number, the attempt and the observations, after a restart up to the rounding
    of the hyperparameters.
    """

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        self._goals, self._encoding, self._seed = Goals.of(plan.spec), encoding, plan.spec.search.seed
        self._embedding = Embedding(plan.spec, encoding)
        self._design = InitialDesign(plan, encoding, others)
        self._draws = Draws(encoding, self._embedding, self._design.prior)
        self._candidates = Candidates(encoding, self._design.prior)
        self._metrics = [
            Quantity(plan, self._embedding, others, metric.name, metric.sign, False) for metric in self._goals.metrics
        ]
        self._bounded = {
            name: Quantity(plan, self._embedding, others, name, 1.0, True) for name in self._goals.constraints
        }
        self._features: dict[int, Array] = {}
        self._leaders: dict[int, Array] = {}  # as points of the unit cube
        self._points: dict[int, tuple[int, Point | None]] = {}  # by trial number, with the reports it was made from
        # The processors are for the trials; matrices this small gain nothing from more than one thread.
        self._threads = ThreadpoolController()

    def suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int = 0) -> Chosen:
        """A point of the initial design at first; then mostly the maximum of the acquisition function."""
        with self._threads.limit(limits=1):
            return self._suggest(number, observations, tried, attempt)

    def _suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int) -> Chosen:
        generator = np.random.default_rng([seed_of_trial(self._seed, number), attempt])
        quantities = [*self._metrics, *self._bounded.values()]
        known = self._metrics[0].update(observations)
        for quantity in quantities[1:]:
            quantity.update(observations)
        trusts_prior = self._design.trusts_prior(observations)
        current = self._draws.begin(self._features_of(observations), observations, trusts_prior, generator)
        default = self._design.default(number, attempt)
        if default is not None:
            return default
        is_long = len(self._metrics) == 1 or len(known) < LEAST_KNOWN
        if (is_long or number < FIRST_TRIALS) and self._design.has(number, len(known)):
            point = self._design.point(number, attempt, trusts_prior, generator)
            return self._encoding.decode(self._draws.accepted(point, current))
        if generator.random() < RANDOM_FRACTION:
            return self._encoding.decode(self._draws.point(current))
        running = self._at_end(running_of(observations))
        for quantity in quantities:
            quantity.condition(known, generator, running)
        if not any(quantity.is_known for quantity in quantities):
            return self._encoding.decode(self._draws.point(current))
        return self._maximize(observations, known, tried, current)

    def _maximize(self, observations: Observations, known: Sequence[int], tried: Set[Key], current: Round) -> Chosen:
        """The configuration, not tried yet, with the greatest acquisition value."""
        incumbents = _Incumbents(self._goals, observations, self._points_of(observations, known))
        predicted = self._means(self._at_end(incumbents.promising))
        order, _ = order_of(predicted, incumbents.violations, LEADERS)
        numbers = list(incumbents.promising)
        leaders = [self._encoded(numbers[index], observations) for index in order[:LEADERS]]
        running = self._means(self._at_end(running_of(observations)))
        acquisition = _Acquisition(predicted[incumbents.violations <= 0], running, current.generator)

        def values_at(points: Array) -> Array:
            columns = self._encoding.columns(points)
            features = self._embedding.features_of(columns, len(points))
            values = self._log_acquisition(at_full_length(features), acquisition)
            values = values + np.log(current.feasibility.probability(features))
            if current.prior_weight:
                values += current.prior_weight * self._design.prior.log_ratio(columns, len(points))
            exclude_crowds(values, features, current.trials, SEARCH_STARTS)
            return values

        far = self._candidates.far(current.prior_weight > 0, current.generator)
        points = np.concatenate([far, self._candidates.around(leaders, current.generator)])
        for point in self._candidates.local_search(points, values_at, current.generator):
            chosen = self._encoding.decode(point)
            if self._encoding.key_of(chosen) not in tried:
                return chosen
        return self._encoding.decode(self._draws.point(current))

    def _log_acquisition(self, x: Array, acquisition: _Acquisition) -> Array:
        """(n,) The logarithm of the improvement times the probability that the constraints hold, at x (n, features +
        2)."""
        found = [metric.predict(x) for metric in self._metrics]
        means, deviations = (np.column_stack([one[index] for one in found]) for index in (0, 1))
        values = acquisition.log_improvement(means, deviations)
        for name, quantity in self._bounded.items():
            if quantity.is_known:
                bound = self._goals.constraints[name]
                low = -np.inf if bound.min is None else quantity.target_of(bound.min)
                high = np.inf if bound.max is None else quantity.target_of(bound.max)
                values = values + log_probability_within(*quantity.predict(x), low, high)
        return values

    def _points_of(self, observations: Observations, known: Sequence[int]) -> dict[int, Point]:
        """The points of the trials `known` that have one."""
        for number in known:
            reports = len(observations[number].values)
            if self._points.get(number, (-1, None))[0] != reports:
                self._points[number] = (reports, self._goals.point_of(observations[number]))
        return {number: point for number in known if (point := self._points[number][1]) is not None}

    def _encoded(self, number: int, observations: Observations) -> Array:
        """(knobs,) A trial as a point of the unit cube, computed once."""
        if number not in self._leaders:
            self._leaders[number] = self._encoding.encode(observations[number].params)
        return self._leaders[number]

    def _means(self, x: Array) -> Array:
        """(n, metrics) What the models predict at x (n, features + 2)."""
        return np.column_stack([metric.mean(x) for metric in self._metrics])

    def _at_end(self, observations: Observations) -> Array:
        """(n, features + 2) These trials at full length."""
        return at_full_length(self._features_of(observations))

    def _features_of(self, observations: Observations) -> Array:
        """(n, features) The features of trials."""
        for number, one in observations.items():
            if number not in self._features:
                self._features[number] = self._embedding.features(one.params)
        rows = [self._features[number] for number in observations]
        return np.array(rows).reshape(len(rows), self._embedding.count)


class _Incumbents:
    """The trials that the front is made of: `promising`, at most `MOST_PROMISING` of those that have a point, the best
    first, and their `violations` (n,)."""

    def __init__(self, goals: Goals, observations: Observations, points: Mapping[int, Point]) -> None:
        values = np.array([goals.signed(point) for point in points.values()]).reshape(len(points), len(goals.metrics))
        violations = np.array([point.violation for point in points.values()])
        order, _ = order_of(values, violations, MOST_PROMISING)
        numbers = list(points)
        self.promising = {numbers[index]: observations[numbers[index]] for index in order[:MOST_PROMISING]}
        self.violations = violations[order[:MOST_PROMISING]]


class _Acquisition:
    """The improvement over the front of predictions (n, metrics) of trials that meet the constraints, with those of
    running trials (k, metrics)."""

    def __init__(self, feasible: Array, running: Array, generator: np.random.Generator) -> None:
        self._has_incumbent = bool(len(feasible))
        every = np.concatenate([feasible, running])
        self._front = non_dominated(every)
        self._generator_seed = int(generator.integers(2**32))
        self._weights = generator.dirichlet(np.ones(feasible.shape[1]))
        if self._has_incumbent:
            self._reference = reference_of(self._front, list(every))

    def log_improvement(self, means: Array, deviations: Array) -> Array:
        """(n,) The logarithm of the expected improvement; 0 while no trial meets the constraints."""
        if not self._has_incumbent:
            return np.zeros(len(means))
        if means.shape[1] == 1:
            return log_expected_improvement(means[:, 0], deviations[:, 0], float(self._front.max()))
        if means.shape[1] == 2:
            found = expected_hypervolume_improvement(means, deviations, self._front, self._reference)
        else:
            # The same draws for every part of the candidates, so that their values can be compared.
            draws = np.random.default_rng(self._generator_seed)
            found = scaled_improvement(means, deviations, self._front, self._weights, draws)
        return np.log(np.maximum(found, TINY))
