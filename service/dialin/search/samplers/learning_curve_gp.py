"""A Gaussian process over knobs and epochs: every report of every trial teaches what a configuration would reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import ThreadpoolController

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.models.curve_model import MOST_OBSERVATIONS, CurveModel, at_full_length
from dialin.search.models.embedding import Embedding
from dialin.search.models.encoding import Array, Chosen, Encoding, Key
from dialin.search.models.learning_curves import LearningCurves, TrainingSet
from dialin.search.records import Observation, Observations
from dialin.search.samplers.acquisition import exclude_crowds, log_expected_improvement
from dialin.search.samplers.base import Sampler
from dialin.search.samplers.candidates import SEARCH_STARTS, Candidates
from dialin.search.samplers.draws import RANDOM_FRACTION, Draws, Round
from dialin.search.samplers.initial_design import InitialDesign

# What has no source was chosen once, as a round number that costs little time, and was not tuned.

LEADERS = 5
"""Trials with the highest predicted values at full length; candidates are drawn around each."""
MOST_PROMISING = 200
"""Trials, those with the best last values, for which that prediction is made."""
BATCH_CANDIDATES = 300
"""Random candidates kept for the further suggestions of a batch, beside the points that the local search found."""
LEAST_WEIGHT = 0.01
"""Below this weight of the prior its density is not computed."""


@dataclass(frozen=True)
class _BatchState:
    """State kept between the suggestions of one batch.

    `x` (n, features + 2), `y` (n,): what the model is conditioned on, fantasies included; `candidates` (n, knobs): the
    points to choose from; `incumbent`: the best value that the model predicts for a trial at full length.
    """

    x: Array
    y: Array
    candidates: Array
    incumbent: float
    round: Round


class LearningCurveGPSampler(Sampler):
    """Bayesian optimization on learning curves, from a prior.

    1. First trials: the default configuration, that is the centre of the prior, its forms beside each value of the
       choices that other knobs depend on, then draws from the prior and a Sobol sequence (`initial_design`).
    2. Observations: the best value so far of each trial at a few of its epochs, however early it was stopped or paused
       (`models.learning_curves`), with the position of the epoch on a log scale as one more feature: the idea of
       Freeze-thaw Bayesian optimization (Swersky et al. 2014), with a stationary kernel over that position.
    3. Surrogate: a Gaussian process with a Matern 5/2 kernel and one length scale a knob (`models.gaussian_process`),
       over features in which a knob that a configuration does not have has a place (`models.embedding`).
    4. Acquisition function: the logarithm of expected improvement (Jones et al. 1998) at full length over the
       incumbent, plus those of the probability that the configuration trains without failing (`models.feasibility`)
       and, with a weight that falls with the trials, of the prior's density (piBO, Hvarfner et al. 2022). The incumbent
       is the best value that the model predicts at full length for any trial, so that a lucky epoch does not count.
    5. Trials that are running count as if they came out as predicted (fantasies by the kriging believer, Ginsbourger et
       al. 2010), so that parallel workers do not all get the same suggestion.
    6. It is maximized over random points, half of them from the prior, and points around the leaders, then by a local
       search (`candidates`).

    A prior that the results contradict is not used any more (`prior.contradicts`). Suggestions are deterministic in the
    study's seed, the number, the attempt and the observations; after a restart up to the rounding of the
    hyperparameters, which are then fitted from other starting values.
    """

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        self._encoding = encoding
        self._seed = plan.spec.search.seed
        self._embedding = Embedding(plan.spec, encoding)
        self._curves = LearningCurves(plan, self._embedding, others)
        self._design = InitialDesign(plan, encoding, others)
        self._draws = Draws(encoding, self._embedding, self._design.prior)
        self._candidates = Candidates(encoding, self._design.prior)
        self._model = CurveModel(self._embedding)
        self._batch: _BatchState | None = None
        # The processors are for the trials; matrices this small gain nothing from more than one thread.
        self._threads = ThreadpoolController()

    def suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int = 0) -> Chosen:
        """One of the first configurations, then mostly the one with the greatest acquisition value."""
        with self._threads.limit(limits=1):
            return self._suggest(number, observations, tried, attempt)

    def suggest_batch(self, first: Chosen, count: int) -> Iterator[Chosen]:
        """The best of the candidates that were found for `first`, the acquisition function computed again after each
        suggestion is added as a fantasy. None where `first` was drawn without the model."""
        with self._threads.limit(limits=1):
            batch, chosen = self._batch, first
            if batch is None:
                return
            for _ in range(count):
                if batch.round.generator.random() < RANDOM_FRACTION:
                    chosen = self._encoding.decode(self._draws.point(batch.round))
                    yield chosen
                    continue
                batch = self._add_fantasy(batch, chosen)
                values = self._acquisition(batch.candidates, batch.incumbent, batch.round)
                chosen = self._encoding.decode(batch.candidates[int(values.argmax())])
                yield chosen

    def _suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int) -> Chosen:
        generator = np.random.default_rng([seed_of_trial(self._seed, number), attempt])
        self._batch = None
        known = self._curves.update(observations)
        trusts_prior = self._design.trusts_prior(observations)
        trials = [self._curves.features(number, one) for number, one in observations.items()]
        features = np.array(trials).reshape(len(trials), self._embedding.count)
        current = self._draws.begin(features, observations, trusts_prior, generator)
        if self._design.has(number, len(known)):
            default = self._design.default(number, attempt)
            if default is not None:
                return default
            point = self._design.point(number, attempt, trusts_prior, generator)
            return self._encoding.decode(self._draws.accepted(point, current))
        training_set = self._curves.training_set(known, MOST_OBSERVATIONS, generator)
        if training_set is None or generator.random() < RANDOM_FRACTION:
            return self._encoding.decode(self._draws.point(current))
        self._model.fit_if_grown(training_set.x, training_set.y, len(known), generator)
        self._model.condition(training_set.x, training_set.y)
        return self._maximize(observations, known, tried, training_set, current)

    def _maximize(
        self,
        observations: Observations,
        known: Sequence[int],
        tried: Set[Key],
        training_set: TrainingSet,
        current: Round,
    ) -> Chosen:
        """The configuration, not tried yet, with the greatest acquisition value."""
        x, y = self._add_running(training_set, observations)
        promising = self._curves.best(known, MOST_PROMISING)
        means = (
            self._model.mean(self._at_end(promising, observations)) if promising else np.array([training_set.y.max()])
        )
        incumbent = float(means.max())
        leaders = [observations[promising[index]] for index in np.argsort(-means)[:LEADERS]] if promising else []
        near = self._candidates.around([self._encoding.encode(leader.params) for leader in leaders], current.generator)
        far = self._candidates.far(current.prior_weight > 0, current.generator)
        candidates = np.concatenate([far, near])
        found = self._candidates.local_search(
            candidates, lambda points: self._acquisition(points, incumbent, current), current.generator
        )
        kept = np.concatenate([found, far[:BATCH_CANDIDATES]])
        self._batch = _BatchState(x, y, kept, incumbent, current)
        for point in found:
            chosen = self._encoding.decode(point)
            if self._encoding.key_of(chosen) not in tried:
                return chosen
        return self._encoding.decode(self._draws.point(current))

    def _add_running(self, training_set: TrainingSet, observations: Observations) -> tuple[Array, Array]:
        """Condition the model on a fantasy for each running trial too; what it is conditioned on then."""
        x, y = training_set.x, training_set.y
        running = [number for number, one in observations.items() if one.state is TrialState.RUNNING]
        if running:
            at_end = self._at_end(running, observations)
            x, y = np.vstack([x, at_end]), np.concatenate([y, self._model.mean(at_end)])
            self._model.condition(x, y)
        return x, y

    def _add_fantasy(self, batch: _BatchState, chosen: Chosen) -> _BatchState:
        """The state after a suggestion, which counts as a trial that comes out as the model predicts."""
        features = self._features_of(self._encoding.encode(chosen)[None])
        at_end = at_full_length(features)
        x = np.vstack([batch.x, at_end])
        y = np.concatenate([batch.y, self._model.mean(at_end)])
        self._model.condition(x, y)
        current = replace(batch.round, trials=np.vstack([batch.round.trials, features]))
        return replace(batch, x=x, y=y, round=current)

    def _at_end(self, numbers: Sequence[int], observations: Observations) -> Array:
        """(n, features + 2) These trials at full length."""
        features = np.array([self._curves.features(number, observations[number]) for number in numbers])
        return at_full_length(features)

    def _features_of(self, points: Array) -> Array:
        """(n, features) The features of points (n, knobs)."""
        return self._embedding.features_of(self._encoding.columns(points), len(points))

    def _acquisition(self, points: Array, incumbent: float, current: Round) -> Array:
        """(n,) The acquisition function at points (n, knobs); -inf where trials crowd each other."""
        columns = self._encoding.columns(points)
        features = self._embedding.features_of(columns, len(points))
        values = log_expected_improvement(*self._model.predict(at_full_length(features)), incumbent)
        values += np.log(current.feasibility.probability(features))
        if current.prior_weight >= LEAST_WEIGHT:
            values += current.prior_weight * self._design.prior.log_ratio(columns, len(points))
        if len(current.trials):
            exclude_crowds(values, features, current.trials, SEARCH_STARTS)
        return values
