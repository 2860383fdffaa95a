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
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import qmc

from service.planning import Plan, seed_of_trial
from service.search.encoding import Array, Chosen, Encoding, Key
from service.search.gaussian_process import GaussianProcess, squared_distances
from service.search.records import Seen, State

FEWEST_STARTING = 8
MOST_OBSERVED, MOST_FITTED = 250, 150  # observations of the model, and for its hyperparameters
FIRST_ITERATIONS, ITERATIONS = 40, 15
REFIT = 1.15  # the hyperparameters are fitted anew when there are so many times as many trials
RANDOM, INCUMBENTS, AROUND = 600, 5, 60
CLIMBS, CLIMBERS, STEPS = 3, 8, 20
CROWD, CROWDED = 0.1, 3  # no more trials than that so near (in features) to each other: the model would dwell there
RANDOM_SHARE = 0.15  # of proposals: drawn blindly, so that the model learns where it does not look
SAME = 0.05  # observations that agree so far in every coordinate are one to a model of limited size
NEAR_BEST = 0.1  # of the way from the median to the best: finer differences there still count


@dataclass(frozen=True)
class Observations:
    """x (n, features + 2): features, share of the logarithm of full length, 1 for another study's; y (n,) standardized,
    larger is better."""

    x: Array
    y: Array


class ModelSampler:
    """Proposals for one study. `others`: trials of finished studies over an overlapping space, to learn from too."""

    def __init__(self, plan: Plan, encoding: Encoding, others: Sequence[Seen] = ()) -> None:
        self._encoding = encoding
        self._seed = plan.spec.search.seed
        self._epochs = plan.spec.budget.epochs
        self._looked_at = (*plan.rungs, plan.spec.budget.epochs)
        self._sign = 1.0 if plan.spec.objective.mode == "max" else -1.0
        self._starting = max(FEWEST_STARTING, len(encoding.names) + 1)
        self._others = [self._curve(seen, other=True) for seen in others]
        self._other_values = [self._better(seen) for seen in others]
        self._model = GaussianProcess(encoding.features_count + 2)
        self._fitted_at = 0
        self._features: dict[int, Array] = {}  # of own trials, by number

    def propose(self, number: int, seen: Mapping[int, Seen], tried: Set[Key], attempt: int) -> Chosen:
        """The knobs of trial `number`, given all trials before it. Deterministic in the study's seed, the number and
        what was seen; after a restart up to the rounding of the model's hyperparameters."""
        generator = np.random.default_rng([seed_of_trial(self._seed, number), attempt])
        known = {other: one for other, one in seen.items() if one.values and one.state is not State.FAILED}
        if (number < self._starting and not self._others) or len(known) + len(self._others) < FEWEST_STARTING // 2:
            return self._encoding.decode(self._start(number, attempt))
        observations = self._observations(known, generator)
        if observations is None:
            return self._encoding.decode(generator.random(len(self._encoding.names)))
        self._fit(len(known), observations, generator)
        if generator.random() < RANDOM_SHARE:
            return self._encoding.decode(generator.random(len(self._encoding.names)))
        return self._improve(seen, known, tried, observations, generator)

    def _start(self, number: int, attempt: int) -> Array:
        """Sobol's low-discrepancy sequence, scrambled by the study's seed."""
        engine = qmc.Sobol(len(self._encoding.names), scramble=True, seed=self._seed)
        index = number + attempt * self._starting
        point: Array = engine.random_base2(index.bit_length())[index]
        return point

    def _observations(self, known: Mapping[int, Seen], generator: np.random.Generator) -> Observations | None:
        curves = [self._curve(one, number) for number, one in known.items()]
        own = _warped([self._better(one) for one in known.values()])
        others = _warped(self._other_values)
        x = np.concatenate([*curves, *self._others])
        y = np.concatenate([own, others])
        if len(y) < 2 or not np.isfinite(y).all() or np.ptp(y) == 0:
            return None
        chosen = _informative(x, y, generator)
        return Observations(x[chosen], y[chosen])

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
        known: Mapping[int, Seen],
        tried: Set[Key],
        observations: Observations,
        generator: np.random.Generator,
    ) -> Chosen:
        """The configuration with the greatest expected improvement at full length."""
        under_way = [number for number, one in seen.items() if one.state is State.RUNNING]
        if under_way:
            x = np.stack([self._at_end(self._of(number, seen[number])) for number in under_way])
            believed = self._model.mean(x)
            self._model.condition(np.vstack([observations.x, x]), np.concatenate([observations.y, believed]))
        numbers = list(known)
        ends = np.stack([self._at_end(self._of(number, known[number])) for number in numbers]) if numbers else None
        means = self._model.mean(ends) if ends is not None else np.array([observations.y.max()])
        best = float(means.max())
        leaders = [known[numbers[index]] for index in np.argsort(-means)[:INCUMBENTS]] if numbers else []
        points = self._candidates([self._encoding.encode(one.params) for one in leaders], generator)
        there = np.stack([self._of(number, one) for number, one in seen.items()]) if seen else None
        for chosen in self._climb(points, best, there, generator):
            if self._encoding.key_of(chosen) not in tried:
                return chosen
        return self._encoding.decode(generator.random(len(self._encoding.names)))

    def _candidates(self, leaders: Sequence[Array], generator: np.random.Generator) -> Array:
        """Points all over the cube, and near the leaders."""
        points = [generator.random((RANDOM, len(self._encoding.names)))]
        points += [
            self._moved(np.repeat(leader[None], AROUND, 0), width, 0.5, generator)
            for leader in leaders
            for width in (0.05, 0.15)
        ]
        return np.concatenate(points)

    def _climb(
        self, points: Array, best: float, there: Array | None, generator: np.random.Generator
    ) -> Iterator[Chosen]:
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
        for index in np.argsort(-improvement, kind="stable"):
            yield self._encoding.decode(points[index])

    def _moved(self, points: Array, width: float, share: float, generator: np.random.Generator) -> Array:
        """Each point with about `share` of its coordinates changed: by a normal step, or drawn anew for a choice."""
        steps = points + generator.normal(0.0, width, points.shape)
        drawn = generator.random(points.shape)
        new = np.where(self._encoding.choices, drawn, np.clip(steps, 0.0, 1.0))
        return np.where(generator.random(points.shape) < share, new, points)

    def _improvement(self, points: Array, best: float, there: Array | None) -> Array:
        """Expected improvement at full length over `best`; negative where it is crowded."""
        features = self._encoding.features_of(points)
        x = np.hstack([features, np.tile([1.0, 0.0], (len(features), 1))])
        mean, deviation = self._model.predict(x)
        z = (mean - best) / deviation
        density = np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        improvement: Array = deviation * (z * ndtr(z) + density)
        if there is not None:
            near = (squared_distances(features, there) < CROWD**2).sum(axis=1)
            improvement = np.where(near >= CROWDED, -1.0, improvement)
        return improvement

    def _of(self, number: int, seen: Seen) -> Array:
        if number not in self._features:
            self._features[number] = self._encoding.features(seen.params)
        return self._features[number]

    def _at_end(self, features: Array) -> Array:
        return np.concatenate([features, [1.0, 0.0]])

    def _curve(self, seen: Seen, number: int = -1, *, other: bool = False) -> Array:
        """(observations, features + 2) of one trial, in the order of `_better`."""
        features = self._encoding.features(seen.params) if other else self._of(number, seen)
        whole = math.log(max(2, self._epochs))
        return np.stack(
            [np.concatenate([features, [math.log(epoch) / whole, float(other)]]) for epoch in self._epochs_of(seen)]
        )

    def _better(self, seen: Seen) -> list[float]:
        """The best so far at a few epochs, larger is better; NaN where the trial diverged."""
        values: list[float] = []
        for epoch in self._epochs_of(seen):
            so_far = [self._sign * value for at, value in seen.values.items() if at <= epoch]
            values.append(math.nan if any(not math.isfinite(value) for value in so_far) else max(so_far))
        return values

    def _epochs_of(self, seen: Seen) -> list[int]:
        """The epochs of a trial that the model is given: powers of two, rungs, the last."""
        last = max(seen.values)
        powers = {2**power for power in range(last.bit_length())}
        return sorted(epoch for epoch in powers | {*self._looked_at, last} if epoch <= last and epoch in seen.values)


def _warped(curves: Sequence[Sequence[float]]) -> Array:
    """All values of all curves, standardized, what is near the best drawn apart: there it is decided. A trial that
    diverged counts as the worst value of all."""
    values = np.array([value for curve in curves for value in curve])
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros_like(values)
    values = np.where(np.isfinite(values), values, finite.min())
    best = values.max()
    apart = NEAR_BEST * (best - np.median(values)) + 1e-12
    warped = -np.log(best - values + apart)
    deviation = float(warped.std())
    return (warped - warped.mean()) / deviation if deviation > 0 else np.zeros_like(warped)


def _informative(x: Array, y: Array, generator: np.random.Generator) -> NDArray[np.int_]:
    """Which observations the model is given when there are many: of those that are nearly the same the best, then half
    of the number the best, the later epochs first, and half at random."""
    if len(y) <= MOST_OBSERVED:
        return np.arange(len(y))
    late = x[:, -2] > 0.3
    order = np.argsort(-(y + 2 * late), kind="stable")
    _, first = np.unique(np.round(x[order] / SAME), axis=0, return_index=True)
    order = order[np.sort(first)]
    if len(order) <= MOST_OBSERVED:
        return order
    best, rest = order[: MOST_OBSERVED // 2], order[MOST_OBSERVED // 2 :]
    return np.concatenate([best, generator.choice(rest, MOST_OBSERVED - len(best), replace=False)])
