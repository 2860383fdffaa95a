"""What to try next, by a model of all learning curves: a Gaussian process over knobs and epochs.

Every trial teaches, however early it was stopped or paused: its values at a few epochs are observations at those
epochs, and the model says what a configuration would reach at full length. The next trial is the one with the greatest
expected improvement there over the best that the model believes in (Jones et al. 1998; the model of curves after
Swersky et al. 2014, Freeze-thaw Bayesian optimization, with a stationary kernel over the logarithm of the epoch).
Trials under way count as if they came out as predicted (Ginsbourger et al. 2010, the kriging believer), so that workers
do not all try the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr
from scipy.stats import qmc
from threadpoolctl import ThreadpoolController

from dialin.lifecycle import TrialState
from dialin.planning.plan import Plan
from dialin.planning.seeds import seed_of_trial
from dialin.search.curves import Curves, Observations
from dialin.search.encoding import Array, Chosen, Encoding, Key
from dialin.search.gaussian_process import GaussianProcess, squared_distances
from dialin.search.records import Seen

FEWEST_STARTING = 8
MOST_OBSERVED, MOST_FITTED = 250, 150  # observations of the model, and for its hyperparameters
FIRST_ITERATIONS, ITERATIONS = 40, 15
REFIT = 1.15  # the hyperparameters are fitted anew when there are so many times as many trials
RANDOM, INCUMBENTS, AROUND = 600, 5, 60
PROMISING = 200  # trials among which the incumbents are looked for
CLIMBS, CLIMBERS, STEPS = 3, 8, 20
CROWD, CROWDED = 0.1, 3  # no more trials than that so near (in features) to each other: the model would dwell there
LOOKED_AT = 200  # points, the best ones, of which it is seen to that they are not crowded
MORE = 300  # points all over the cube that further proposals are chosen from, beside those that were climbed to
RANDOM_SHARE = 0.15  # of proposals: drawn blindly, so that the model learns where it does not look


@dataclass(frozen=True)
class _Left:
    """What is left of a proposal for those that go with it: the observations of the model, believed ones too, the best
    that it believes in, the trials so far, and the points to choose from."""

    x: Array
    y: Array
    best: float
    there: Array
    points: Array
    generator: np.random.Generator


class ModelSampler:
    """Proposals for one study. `others`: trials of finished studies over an overlapping space, to learn from too."""

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Seen] = ()) -> None:
        self._encoding = encoding
        self._seed = plan.spec.search.seed
        self._starting = max(FEWEST_STARTING, len(encoding.names) + 1)
        self._curves = Curves(plan, encoding, others)
        self._model = GaussianProcess(encoding.features_count + 2)
        self._fitted_at = 0
        self._left: _Left | None = None
        # The processors are the trials'; matrices this small gain nothing from more than one.
        self._threads = ThreadpoolController()

    def propose(self, number: int, seen: Mapping[int, Seen], tried: Set[Key], attempt: int) -> Chosen:
        """The knobs of trial `number`, given all trials before it. Deterministic in the study's seed, the number and
        what was seen; after a restart up to the rounding of the model's hyperparameters."""
        with self._threads.limit(limits=1):
            return self._propose(number, seen, tried, attempt)

    def _propose(self, number: int, seen: Mapping[int, Seen], tried: Set[Key], attempt: int) -> Chosen:
        generator = np.random.default_rng([seed_of_trial(self._seed, number), attempt])
        self._left = None
        known = self._curves.update(seen)
        teaching = len(known) + self._curves.others
        if (number < self._starting and not self._curves.others) or teaching < FEWEST_STARTING // 2:
            return self._encoding.decode(self._start(number, attempt))
        observations = self._curves.observations(known, MOST_OBSERVED, generator)
        if observations is None or generator.random() < RANDOM_SHARE:
            return self._encoding.decode(generator.random(len(self._encoding.names)))
        self._fit(len(known), observations, generator)
        return self._improve(seen, known, tried, observations, generator)

    def more(self, first: Chosen, count: int) -> Iterator[Chosen]:
        """Proposals to go with the one that was made last: the points that were the best ones then, improvement counted
        anew with each proposal before taken as if it came out as predicted. None after a proposal without a model."""
        with self._threads.limit(limits=1):
            left, chosen = self._left, first
            for _ in range(count if left is not None else 0):
                assert left is not None
                if left.generator.random() < RANDOM_SHARE:
                    chosen = self._encoding.decode(left.generator.random(len(self._encoding.names)))
                    yield chosen
                    continue
                left = self._believe(left, chosen)
                improvement = self._improvement(left.points, left.best, left.there)
                chosen = self._encoding.decode(left.points[int(improvement.argmax())])
                yield chosen

    def _believe(self, left: _Left, chosen: Chosen) -> _Left:
        """With one more trial under way."""
        features = self._encoding.features_of(self._encoding.encode(chosen)[None])
        at_end = _at_full_length(features)
        x = np.vstack([left.x, at_end])
        y = np.concatenate([left.y, self._model.mean(at_end)])
        self._model.condition(x, y)
        return replace(left, x=x, y=y, there=np.vstack([left.there, features]))

    def _start(self, number: int, attempt: int) -> Array:
        """Sobol's low-discrepancy sequence, scrambled by the study's seed."""
        engine = qmc.Sobol(len(self._encoding.names), scramble=True, seed=self._seed)
        index = number + attempt * self._starting
        point: Array = engine.random_base2(index.bit_length())[index]
        return point

    def _fit(self, trials: int, observations: Observations, generator: np.random.Generator) -> None:
        if trials >= self._fitted_at * REFIT or trials < self._fitted_at:
            part = generator.permutation(len(observations.y))[:MOST_FITTED]
            iterations = ITERATIONS if self._fitted_at else FIRST_ITERATIONS
            self._model.fit(observations.x[part], observations.y[part], iterations)
            self._fitted_at = max(1, trials)
        self._model.condition(observations.x, observations.y)

    def _improve(
        self,
        seen: Mapping[int, Seen],
        known: Sequence[int],
        tried: Set[Key],
        observations: Observations,
        generator: np.random.Generator,
    ) -> Chosen:
        """The configuration with the greatest expected improvement at full length."""
        x, y = observations.x, observations.y
        under_way = [number for number, one in seen.items() if one.state is TrialState.RUNNING]
        if under_way:
            at_end = self._at_end(under_way, seen)
            x, y = np.vstack([x, at_end]), np.concatenate([y, self._model.mean(at_end)])
            self._model.condition(x, y)
        promising = self._curves.best(known, PROMISING)
        means = self._model.mean(self._at_end(promising, seen)) if promising else np.array([observations.y.max()])
        leaders = [seen[promising[index]] for index in np.argsort(-means)[:INCUMBENTS]] if promising else []
        points = self._candidates([self._encoding.encode(one.params) for one in leaders], generator)
        there = np.array([self._curves.features(number, one) for number, one in seen.items()])
        best = float(means.max())
        top = self._climb(points, best, there, generator)
        self._left = _Left(x, y, best, there, np.concatenate([top, points[:MORE]]), generator)
        for point in top:
            chosen = self._encoding.decode(point)
            if self._encoding.key_of(chosen) not in tried:
                return chosen
        return self._encoding.decode(generator.random(len(self._encoding.names)))

    def _at_end(self, numbers: Sequence[int], seen: Mapping[int, Seen]) -> Array:
        """(n, features + 2) Trials of the study, at full length."""
        features = np.array([self._curves.features(number, seen[number]) for number in numbers])
        return _at_full_length(features)

    def _candidates(self, leaders: Sequence[Array], generator: np.random.Generator) -> Array:
        """Points all over the cube, and near the leaders."""
        points = [generator.random((RANDOM, len(self._encoding.names)))]
        points += [
            self._moved(np.repeat(leader[None], AROUND, 0), width, 0.5, generator)
            for leader in leaders
            for width in (0.05, 0.15)
        ]
        return np.concatenate(points)

    def _climb(self, points: Array, best: float, there: Array, generator: np.random.Generator) -> Array:
        """The points after a few rounds of ever smaller steps from the best ones, the best first. `there` (n, features)
        are the trials so far."""
        width = 0.1
        improvement = self._improvement(points, best, there)
        for _ in range(CLIMBS):
            order = np.argsort(-improvement, kind="stable")[:CLIMBERS]
            moved = self._moved(np.repeat(points[order], STEPS, 0), width, 0.4, generator)
            points = np.concatenate([points[order], moved])
            improvement = np.concatenate([improvement[order], self._improvement(moved, best, there)])
            width /= 2
        return points[np.argsort(-improvement, kind="stable")]

    def _moved(self, points: Array, width: float, share: float, generator: np.random.Generator) -> Array:
        """Each point with about `share` of its coordinates changed: by a normal step, or drawn anew for a choice."""
        steps = points + generator.normal(0.0, width, points.shape)
        drawn = generator.random(points.shape)
        new = np.where(self._encoding.choices, drawn, np.clip(steps, 0.0, 1.0))
        return np.where(generator.random(points.shape) < share, new, points)

    def _improvement(self, points: Array, best: float, there: Array) -> Array:
        """Expected improvement at full length over `best`; negative where it is crowded."""
        features = self._encoding.features_of(points)
        mean, deviation = self._model.predict(_at_full_length(features))
        z = (mean - best) / deviation
        density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        improvement: Array = deviation * (z * ndtr(z) + density)
        if len(there):
            self._avoid_crowds(improvement, features, there)
        return improvement

    def _avoid_crowds(self, improvement: Array, features: Array, there: Array) -> None:
        """Make it negative where there are trials enough; of the best points only, until there are as many as are
        climbed from."""
        order, free = np.argsort(-improvement, kind="stable")[:LOOKED_AT], 0
        for start in range(0, len(order), 2 * CLIMBERS):
            part = order[start : start + 2 * CLIMBERS]
            crowded = (squared_distances(features[part], there) < CROWD**2).sum(axis=1) >= CROWDED
            improvement[part[crowded]] = -1.0
            free += int((~crowded).sum())
            if free >= CLIMBERS:
                return


def _at_full_length(features: Array) -> Array:
    return np.hstack([features, np.tile([1.0, 0.0], (len(features), 1))])
