"""A Gaussian process over knobs and epochs: every report of every trial teaches what a configuration would reach."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc
from threadpoolctl import ThreadpoolController

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.models.encoding import Array, Chosen, Encoding, Key
from dialin.search.models.gaussian_process import GaussianProcess, squared_distances
from dialin.search.models.learning_curves import LearningCurves, TrainingSet
from dialin.search.records import Observation, Observations
from dialin.search.samplers.base import Sampler

# "Measured" below means: on the development tasks of LCBench, as README.md describes. What has no source was chosen
# once, as a round number that costs little time, and was not tuned.

STARTUP_TRIALS = 8
"""Trials that are taken from a Sobol sequence before the model is used; one more than there are knobs, if that is more.
Measured: 16 were no better."""
RANDOM_FRACTION = 0.15
"""Fraction of suggestions drawn at random, so that the model learns where its acquisition function does not look.
Measured: regret 0.226 to 0.184 after 5 trainings against none; 0.25 was no better."""

MOST_OBSERVATIONS = 250
"""Observations that the model is conditioned on; the time of a suggestion grows with their square."""
MOST_FITTED = 150
"""Observations, a random part of these, that the hyperparameters are fitted to; its time grows with their cube."""
FIRST_ITERATIONS, ITERATIONS = 40, 15
"""Iterations of L-BFGS-B for the first fit, and for later ones, which start from the fit before."""
REFIT_GROWTH = 1.15
"""The hyperparameters are fitted again when the number of trials has grown by this factor."""

RANDOM_CANDIDATES = 600
"""Points drawn uniformly from the unit cube that the acquisition function is evaluated at."""
LEADERS = 5
"""Trials with the highest predicted values at full length; candidates are drawn around each."""
MOST_PROMISING = 200
"""Trials, those with the best last values, for which that prediction is made."""
AROUND_A_LEADER = 60
"""Candidates around each leader, for each of the two widths."""
LEADER_WIDTHS = (0.05, 0.15)
"""Standard deviations of the steps from a leader, in the unit cube."""
LEADER_MUTATED = 0.5
"""Fraction of the coordinates that are changed in such a step."""

SEARCH_ROUNDS = 3
"""Rounds of the local search from the best candidates; the width is halved after each. Measured: regret 0.126 to 0.075
after 50 trainings against none; more rounds did not pay."""
SEARCH_STARTS = 8
"""Points that each round starts from."""
SEARCH_STEPS = 20
"""New points from each of these."""
SEARCH_WIDTH = 0.1
"""Standard deviation of the steps of the first round, in the unit cube."""
SEARCH_MUTATED = 0.4
"""Fraction of the coordinates that are changed in such a step."""

CROWD_RADIUS = 0.1
"""Distance in feature space within which trials crowd each other."""
CROWD_SIZE = 3
"""With so many trials within that radius a point is not suggested: without the bound the model dwells on one summit.
Measured: regret 0.109 to 0.090 after 50 trainings against none."""
CROWD_CHECKED = 200
"""Points, those with the greatest expected improvement, that are checked for crowds."""
BATCH_CANDIDATES = 300
"""Random candidates kept for the further suggestions of a batch, beside the points that the local search found."""


@dataclass(frozen=True)
class _BatchState:
    """State kept between the suggestions of one batch.

    `x` (n, features + 2), `y` (n,): what the model is conditioned on, fantasies included; `incumbent`: the best value
    that the model predicts for a trial at full length; `trials` (n, features): every trial so far; `candidates` (n,
    knobs): the points to choose from; `generator`: of the random part of the suggestions.
    """

    x: Array
    y: Array
    incumbent: float
    trials: Array
    candidates: Array
    generator: np.random.Generator


class LearningCurveGPSampler(Sampler):
    """Bayesian optimization on learning curves.

    1. Observations: the best value so far of each trial at a few of its epochs, however early it was stopped or paused
       (`models.learning_curves`), with the position of the epoch on a log scale as one more feature: the idea of
       Freeze-thaw Bayesian optimization (Swersky et al. 2014), with a stationary kernel over that position.
    2. Surrogate: a Gaussian process with a Matern 5/2 kernel (`models.gaussian_process`).
    3. Acquisition function: expected improvement (Jones et al. 1998) at full length over the incumbent, which is the
       best value that the model predicts at full length for any trial.
    4. Trials that are running count as if they came out as predicted (fantasies by the kriging believer, Ginsbourger et
       al. 2010), so that parallel workers do not all get the same suggestion.
    5. It is maximized over random points and points around the leaders, then by a local search.

    The first trials come from a scrambled Sobol sequence. Suggestions are deterministic in the study's seed, the
    number, the attempt and the observations; after a restart up to the rounding of the hyperparameters, which are then
    fitted from other starting values.
    """

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Observation] = ()) -> None:
        self._encoding = encoding
        self._seed = plan.spec.search.seed
        self._startup = max(STARTUP_TRIALS, len(encoding.names) + 1)
        self._curves = LearningCurves(plan, encoding, others)
        self._model = GaussianProcess(encoding.features_count + 2)
        self._fitted_at = 0  # trials that the hyperparameters were last fitted to
        self._batch: _BatchState | None = None
        # The processors are for the trials; matrices this small gain nothing from more than one thread.
        self._threads = ThreadpoolController()

    def suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int = 0) -> Chosen:
        """A Sobol point at first; then mostly the configuration with the greatest expected improvement."""
        with self._threads.limit(limits=1):
            return self._suggest(number, observations, tried, attempt)

    def suggest_batch(self, first: Chosen, count: int) -> Iterator[Chosen]:
        """The best of the candidates that were found for `first`, expected improvement computed again after each
        suggestion is added as a fantasy. None where `first` was drawn without the model."""
        with self._threads.limit(limits=1):
            batch, chosen = self._batch, first
            if batch is None:
                return
            for _ in range(count):
                if batch.generator.random() < RANDOM_FRACTION:
                    chosen = self._random(batch.generator)
                    yield chosen
                    continue
                batch = self._add_fantasy(batch, chosen)
                improvement = self._expected_improvement(batch.candidates, batch.incumbent, batch.trials)
                chosen = self._encoding.decode(batch.candidates[int(improvement.argmax())])
                yield chosen

    def _suggest(self, number: int, observations: Observations, tried: Set[Key], attempt: int) -> Chosen:
        generator = np.random.default_rng([seed_of_trial(self._seed, number), attempt])
        self._batch = None
        known = self._curves.update(observations)
        teaching = len(known) + self._curves.others_count
        is_startup = number < self._startup and not self._curves.others_count
        if is_startup or teaching < STARTUP_TRIALS // 2:
            return self._encoding.decode(self._sobol_point(number, attempt))
        training_set = self._curves.training_set(known, MOST_OBSERVATIONS, generator)
        if training_set is None or generator.random() < RANDOM_FRACTION:
            return self._random(generator)
        self._fit(len(known), training_set, generator)
        return self._maximize(observations, known, tried, training_set, generator)

    def _random(self, generator: np.random.Generator) -> Chosen:
        return self._encoding.decode(generator.random(len(self._encoding.names)))

    def _sobol_point(self, number: int, attempt: int) -> Array:
        """(knobs,) A point of Sobol's low-discrepancy sequence, scrambled by the study's seed."""
        engine = qmc.Sobol(len(self._encoding.names), scramble=True, seed=self._seed)
        index = number + attempt * self._startup
        point: Array = engine.random_base2(index.bit_length())[index]
        return point

    def _fit(self, trials: int, training_set: TrainingSet, generator: np.random.Generator) -> None:
        if trials >= self._fitted_at * REFIT_GROWTH or trials < self._fitted_at:
            part = generator.permutation(len(training_set.y))[:MOST_FITTED]
            iterations = ITERATIONS if self._fitted_at else FIRST_ITERATIONS
            self._model.fit(training_set.x[part], training_set.y[part], iterations)
            self._fitted_at = max(1, trials)
        self._model.condition(training_set.x, training_set.y)

    def _maximize(
        self,
        observations: Observations,
        known: Sequence[int],
        tried: Set[Key],
        training_set: TrainingSet,
        generator: np.random.Generator,
    ) -> Chosen:
        """The configuration, not tried yet, with the greatest expected improvement at full length."""
        x, y = self._add_running(training_set, observations)
        promising = self._curves.best(known, MOST_PROMISING)
        means = (
            self._model.mean(self._at_end(promising, observations)) if promising else np.array([training_set.y.max()])
        )
        leaders = [observations[promising[index]] for index in np.argsort(-means)[:LEADERS]] if promising else []
        candidates = self._candidates([self._encoding.encode(leader.params) for leader in leaders], generator)
        trials = np.array([self._curves.features(number, one) for number, one in observations.items()])
        incumbent = float(means.max())
        found = self._local_search(candidates, incumbent, trials, generator)
        kept = np.concatenate([found, candidates[:BATCH_CANDIDATES]])
        self._batch = _BatchState(x, y, incumbent, trials, kept, generator)
        for point in found:
            chosen = self._encoding.decode(point)
            if self._encoding.key_of(chosen) not in tried:
                return chosen
        return self._random(generator)

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
        features = self._encoding.features_of(self._encoding.encode(chosen)[None])
        at_end = _at_full_length(features)
        x = np.vstack([batch.x, at_end])
        y = np.concatenate([batch.y, self._model.mean(at_end)])
        self._model.condition(x, y)
        return replace(batch, x=x, y=y, trials=np.vstack([batch.trials, features]))

    def _at_end(self, numbers: Sequence[int], observations: Observations) -> Array:
        """(n, features + 2) These trials at full length."""
        features = np.array([self._curves.features(number, observations[number]) for number in numbers])
        return _at_full_length(features)

    def _candidates(self, leaders: Sequence[Array], generator: np.random.Generator) -> Array:
        """(n, knobs) Points all over the unit cube, and around the leaders."""
        points = [generator.random((RANDOM_CANDIDATES, len(self._encoding.names)))]
        points += [
            self._mutate(np.repeat(leader[None], AROUND_A_LEADER, 0), width, LEADER_MUTATED, generator)
            for leader in leaders
            for width in LEADER_WIDTHS
        ]
        return np.concatenate(points)

    def _local_search(self, points: Array, incumbent: float, trials: Array, generator: np.random.Generator) -> Array:
        """(n, knobs) The points after a few rounds of ever smaller steps from the best ones, the best first. `trials`
        (n, features): every trial so far."""
        width = SEARCH_WIDTH
        improvement = self._expected_improvement(points, incumbent, trials)
        for _ in range(SEARCH_ROUNDS):
            order = np.argsort(-improvement, kind="stable")[:SEARCH_STARTS]
            mutated = self._mutate(np.repeat(points[order], SEARCH_STEPS, 0), width, SEARCH_MUTATED, generator)
            points = np.concatenate([points[order], mutated])
            improvement = np.concatenate([improvement[order], self._expected_improvement(mutated, incumbent, trials)])
            width /= 2
        return points[np.argsort(-improvement, kind="stable")]

    def _mutate(self, points: Array, width: float, fraction: float, generator: np.random.Generator) -> Array:
        """Each point with about `fraction` of its coordinates changed: by a normal step of a range, drawn again for a
        choice."""
        steps = points + generator.normal(0.0, width, points.shape)
        drawn = generator.random(points.shape)
        new = np.where(self._encoding.choices, drawn, np.clip(steps, 0.0, 1.0))
        return np.where(generator.random(points.shape) < fraction, new, points)

    def _expected_improvement(self, points: Array, incumbent: float, trials: Array) -> Array:
        """(n,) Expected improvement over the incumbent at full length, at points (n, knobs); negative where trials (n,
        features) crowd."""
        features = self._encoding.features_of(points)
        improvement = expected_improvement(*self._model.predict(_at_full_length(features)), incumbent)
        if len(trials):
            _exclude_crowds(improvement, features, trials)
        return improvement


def expected_improvement(mean: Array, deviation: Array, incumbent: float) -> Array:
    """(n,) The expectation of max(0, value - incumbent) of normal values (Jones et al. 1998)."""
    z = (mean - incumbent) / deviation
    density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
    improvement: Array = deviation * (z * ndtr(z) + density)
    return improvement


def _exclude_crowds(improvement: Array, features: Array, trials: Array) -> None:
    """Make the improvement negative, in place, where there are enough trials already. Only the best points are checked,
    in small parts, until as many are free as the local search starts from: distances to all trials are the costly
    part."""
    order, free = np.argsort(-improvement, kind="stable")[:CROWD_CHECKED], 0
    for start in range(0, len(order), 2 * SEARCH_STARTS):
        part = order[start : start + 2 * SEARCH_STARTS]
        is_crowded = (squared_distances(features[part], trials) < CROWD_RADIUS**2).sum(axis=1) >= CROWD_SIZE
        improvement[part[is_crowded]] = -1.0
        free += int((~is_crowded).sum())
        if free >= SEARCH_STARTS:
            return


def _at_full_length(features: Array) -> Array:
    """(n, features + 2) Features with the epoch of full length, and the mark of this study."""
    return np.hstack([features, np.tile([1.0, 0.0], (len(features), 1))])
