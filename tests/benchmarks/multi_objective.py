"""Several metrics: how much of the Pareto front a search has found, beside Optuna's samplers, which train every trial
to its end (Optuna has no pruning with several metrics).

    python tests/benchmarks/multi_objective.py [--cases fair:31:feo fair:31:rammodel ... | digits] [--seeds 5]
                                               [--searchers NAME ...] [--budget 50] [--workers 8] [--json FILE]

Cases. `fair:TASK:OUTPUT`: surrogates of fair_super (30 knobs, most of them conditional): the error against an output of
the model, its unfairness (feo) or its size (rammodel, on a log scale); "epochs" are ninths of the training data; in
simulated time, `--workers` at once. `digits`: real trainings in this process, one after another: accuracy against the
logarithm of the number of parameters.

Every search gets the same number of epochs. Read off when so many trainings' worth of epochs have been spent: the
hypervolume of the front of the trials that are trained to their end by then, each with its metrics at the epoch that is
best by the first. For fair_super it is the fraction of that of the best front known, the same for every search: the
front of 20,000 random configurations and of 20,000 more that come from these by mutation, as in NSGA-II. The reference
point lies a tenth beyond the worst values of the front of the random ones. On digits it is the fraction of a fixed box:
accuracy from 0.8 to 1, 10^5.5 to 10^2.5 parameters. Standard errors are over seeds.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import optuna

from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.distributions import OptunaSpace
from dialin.search.goals import Goals
from dialin.search.models.encoding import Encoding
from dialin.search.pareto import fronts_of, hypervolume, order_of
from dialin.search.records import Observation
from dialin.search.study import Study
from dialin.specification import active_params, parse_spec, searched
from dialin.specification.domains import Scalar, holds
from dialin.specification.study_spec import StudySpec
from tests.benchmarks.curves import conditional

MARKS = (10, 20, 50)
REFERENCE_POINTS = 20_000
"""Random configurations from which the best front known is sought."""
GENERATIONS, PARENTS, CHILDREN = 40, 100, 500
"""Rounds of that search: from so many of the best points in the order of NSGA-II, so many new ones."""
MUTATIONS = (0.3, 0.1, 0.03)
"""Standard deviations of its steps in the unit cube, one at random for each new point."""
BEYOND = 1.1
"""The reference point lies so many times as far from the best values known as the worst of the front of random
configurations: a search by mutation can find a single configuration that dominates nearly all, which has no width."""
LEAST_SIZE = 0.1
"""Sizes of models below this count as this one: there the surrogate says zero and less."""
OUTPUTS = ("mmce", "f1", "feo", "facc", "ftpr", "ffomr", "ffnr", "rammodel", "timetrain")
"""What the surrogate of fair_super says, in this order."""
DEVELOPMENT = tuple(f"fair:{task}:{output}" for task in ("31", "317599") for output in ("feo", "rammodel"))
JUDGES = tuple(f"fair:{task}:{output}" for task in ("14965", "190424") for output in ("feo", "rammodel"))

Curve = np.ndarray
"""(epochs, metrics) The metrics of one configuration after each epoch, in their own sign."""


class Case(Protocol):
    """What is searched."""

    spec: StudySpec
    epochs: int

    def train(self, params: Mapping[str, Scalar], seed: int, epochs: int) -> Curve:
        """The metrics after each of the first epochs. Training goes on where an earlier call with the same parameters
        and seed has ended."""

    def volume(self, points: np.ndarray) -> float:
        """The normalized hypervolume of points (n, metrics)."""


@dataclass
class Fair:
    """A task of fair_super."""

    task: str
    output: str
    spec: StudySpec = field(init=False)
    epochs: int = 9

    def __post_init__(self) -> None:
        self._table = conditional.Conditional(f"fair_super:{self.task}")
        text = (
            "name: benchmark\n"
            "objective: {python: /none.py:none, metrics: [{name: error, mode: min}, {name: cost, mode: min}]}\n"
            f"space:{conditional.space('fair_super:' + self.task)}"
            f"budget: {{epochs: {self.epochs}, trials: 100000}}\n"
        )
        self.spec = parse_spec(text)
        self._columns = [OUTPUTS.index("mmce"), OUTPUTS.index(self.output)]
        generator, encoding = np.random.default_rng(12345), Encoding(self.spec)
        points = generator.random((REFERENCE_POINTS, len(encoding.names)))
        random = self._at_points(points, encoding)
        front = self._best_known(points, random, encoding, generator)
        self._best = front.min(axis=0)
        self._worst = self._best + BEYOND * (random[fronts_of(-random) == 0].max(axis=0) - self._best)
        self._whole = 1.0
        self._whole = self.volume(front)

    def train(self, params: Mapping[str, Scalar], seed: int, epochs: int) -> Curve:
        return self._values([params], np.arange(1, epochs + 1) / self.epochs)[0]

    def volume(self, points: np.ndarray) -> float:
        gains = (self._worst - points) / (self._worst - self._best)
        return hypervolume(gains, np.zeros(2)) / self._whole

    def _best_known(
        self, points: np.ndarray, values: np.ndarray, encoding: Encoding, generator: np.random.Generator
    ) -> np.ndarray:
        """(n, 2) The best front known with all training data, sought from `points` with the metrics `values`."""
        for _ in range(GENERATIONS):
            order, _ = order_of(-values, np.zeros(len(values)))
            points, values = points[order[:PARENTS]], values[order[:PARENTS]]
            new = points[generator.integers(len(points), size=CHILDREN)]
            widths = generator.choice(MUTATIONS, size=(CHILDREN, 1))
            stepped = np.clip(new + widths * generator.normal(size=new.shape), 0.0, 1.0)
            stepped = np.where(encoding.choices, generator.random(new.shape), stepped)
            new = np.where(generator.random(new.shape) < 0.3, stepped, new)
            points = np.concatenate([points, new])
            values = np.concatenate([values, self._at_points(new, encoding)])
        return values[fronts_of(-values) == 0]

    def _at_points(self, points: np.ndarray, encoding: Encoding) -> np.ndarray:
        """(n, 2) The metrics at points of the unit cube, with all training data."""
        sample = [active_params(self.spec, encoding.decode(point)) for point in points]
        return np.concatenate([self._values(part, np.ones(1))[:, 0] for part in _parts(sample, 2000)])

    def _values(self, configurations: Sequence[Mapping[str, Scalar]], shares: np.ndarray) -> np.ndarray:
        """(n, shares, 2) The two metrics at these shares of the training data."""
        found = self._table.outputs(configurations, shares)[:, :, self._columns]
        if self.output == "rammodel":
            found[:, :, 1] = np.log10(np.maximum(found[:, :, 1], LEAST_SIZE))
        return found


DIGITS_SPACE = """
  width: {min: 4, max: 48, log: true}
  depth: {min: 1, max: 4}
  lr: {min: 1e-3, max: 1.0, log: true}
  momentum: {min: 0.5, max: 0.99}
  batch_size: {min: 16, max: 128, log: true}
  normalization: [none, batch]
  head: [global_average, fully_connected]
  dropout: {min: 0.0, max: 0.5}
"""
DIGITS_WORST = (0.8, 5.5)
DIGITS_BEST = (1.0, 2.5)


@dataclass
class Digits:
    """Real trainings on scikit-learn's digits."""

    spec: StudySpec = field(init=False)
    epochs: int = 9

    def __post_init__(self) -> None:
        from dialin.objectives import build

        text = "name: benchmark\nobjective: {dataset: digits, metrics: [val_accuracy, parameters]}\n"
        self.spec = parse_spec(f"{text}space:{DIGITS_SPACE}budget: {{epochs: {self.epochs}, trials: 100000}}\n")
        self._folder = tempfile.TemporaryDirectory()
        self._objective = build(self.spec, Path(self._folder.name))
        self._objective.prepare(lambda _text: None)
        self._runs: dict[Any, tuple[Any, list[list[float]]]] = {}

    def train(self, params: Mapping[str, Scalar], seed: int, epochs: int) -> Curve:
        from dialin.planning.plan import Resources

        key = (tuple(sorted(params.items())), seed)
        if key not in self._runs:
            self._runs[key] = (self._objective.start(params, seed, Resources()), [])
        run, found = self._runs[key]
        while len(found) < epochs:
            metrics = run.epoch()
            found.append([metrics["val_accuracy"], metrics["parameters"]])
        if len(found) == self.epochs:  # its network is needed no more
            self._runs[key] = (None, found)
        return np.array(found[:epochs])

    def volume(self, points: np.ndarray) -> float:
        logs = np.column_stack([points[:, 0], -np.log10(points[:, 1])])
        worst, best = (np.array([one[0], -one[1]]) for one in (DIGITS_WORST, DIGITS_BEST))
        return hypervolume((logs - worst) / (best - worst), np.zeros(2))


class Searcher(Protocol):
    """A search by ask and report."""

    def ask(self) -> tuple[Any, Mapping[str, Scalar], int, int] | None:
        """A key, the parameters, the seed and the epochs already done of a trial to train on; None: nothing now."""

    def report(self, key: Any, epoch: int, values: np.ndarray) -> bool:
        """Take in the metrics after an epoch; whether the trial gives its worker back."""


class Ours:
    """The Study with one of its samplers."""

    def __init__(self, case: Case, seed: int, *settings: str) -> None:
        from dialin.specification import spec_from_data, to_data

        data = to_data(case.spec)
        data["search"] = {"seed": seed, "sampler": settings[0]}
        data["early_stopping"] = {"asha": "off"} if "full" in settings else {}
        if "stopping" in settings:
            data["early_stopping"] = {"asha": {"type": "stopping"}}
        spec = spec_from_data(data)
        self._further = spec.further
        self._study = Study.open(plan_study(spec, ClusterShape(8)), optuna.storages.InMemoryStorage(), "benchmark")
        self._trials: dict[int, Any] = {}
        self._done: dict[int, int] = {}

    def ask(self) -> tuple[Any, Mapping[str, Scalar], int, int] | None:
        trial = self._study.ask()
        if trial is None:
            return None
        self._trials[trial.number] = trial
        return trial.number, trial.params, trial.seed, self._done.get(trial.number, 0)

    def report(self, key: Any, epoch: int, values: np.ndarray) -> bool:
        trial = self._trials[key]
        self._done[key] = epoch
        others = dict(zip(self._further, map(float, values[1:]), strict=True))
        decision = self._study.report(trial, epoch, float(values[0]), others)
        if not decision.continues:
            self._study.tell(trial, decision)
        return not decision.continues


class Optuna:
    """Optuna, with one of its samplers for several metrics; every trial is trained to its end."""

    def __init__(self, case: Case, seed: int, sampler: Callable[[int], Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._spec, self._space = case.spec, OptunaSpace(case.spec, Encoding(case.spec))
        self._goals, self._epochs = Goals.of(case.spec), case.epochs
        directions = ["maximize" if metric.mode == "max" else "minimize" for metric in case.spec.metrics]
        self._study = optuna.create_study(directions=directions, sampler=sampler(seed))
        self._trials: dict[int, tuple[Any, Observation]] = {}

    def ask(self) -> tuple[Any, Mapping[str, Scalar], int, int] | None:
        asked = self._study.ask()
        chosen: dict[str, Scalar] = {}
        for name in searched(self._spec):
            if holds(self._spec.space[name].when, active_params(self._spec, chosen)):
                chosen[name] = self._space.suggest(asked, name, chosen)
        params = active_params(self._spec, chosen)
        self._trials[asked.number] = (asked, _observation(self._goals, params))
        return asked.number, params, asked.number, 0

    def report(self, key: Any, epoch: int, values: np.ndarray) -> bool:
        trial, observation = self._trials[key]
        _add(self._goals, observation, epoch, values)
        if epoch < self._epochs:
            return False
        point = self._goals.point_of(observation)
        if point is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, list(point.values))
        return True


SEARCHERS: Mapping[str, Callable[[Case, int], Searcher]] = {
    "gp": lambda case, seed: Ours(case, seed, "gp"),
    "gp, stopping": lambda case, seed: Ours(case, seed, "gp", "stopping"),
    "tpe": lambda case, seed: Ours(case, seed, "tpe"),
    "random": lambda case, seed: Ours(case, seed, "random"),
    "random, stopping": lambda case, seed: Ours(case, seed, "random", "stopping"),
    "random, to the end": lambda case, seed: Ours(case, seed, "random", "full"),
    "Optuna TPE": lambda case, seed: Optuna(case, seed, lambda seed: optuna.samplers.TPESampler(seed=seed)),
    "Optuna NSGA-II": lambda case, seed: Optuna(case, seed, lambda seed: optuna.samplers.NSGAIISampler(seed=seed)),
}


def simulate(case: Case, searcher: Searcher, marks: Sequence[int], workers: int) -> tuple[list[float], float]:
    """The hypervolume at each mark, and the seconds of all suggestions."""
    goals, found = Goals.of(case.spec), dict[Any, Observation]()
    complete: list[tuple[float, ...]] = []
    running: list[tuple[int, int, Any]] = []  # end of the epoch, order, key
    at, curves = dict[Any, int](), dict[Any, Callable[[int], np.ndarray]]()
    spent, order, asked_seconds, volumes = 0, 0, 0.0, list[float]()
    now = 0
    while len(volumes) < len(marks):
        while len(running) < workers:
            began = time.process_time()
            asked = searcher.ask()
            asked_seconds += time.process_time() - began
            if asked is None:
                break
            key, params, seed, done = asked
            curves.setdefault(key, lambda epoch, params=params, seed=seed: case.train(params, seed, epoch)[epoch - 1])
            found.setdefault(key, _observation(goals, params))
            at[key], order = done + 1, order + 1
            heapq.heappush(running, (now + 1, order, key))
        now, _, key = heapq.heappop(running)
        values = curves[key](at[key])
        _add(goals, found[key], at[key], values)
        spent += 1
        if at[key] == case.epochs and (point := goals.point_of(found[key])) is not None:
            complete.append(point.values)
        while len(volumes) < len(marks) and spent >= marks[len(volumes)] * case.epochs:
            volumes.append(case.volume(np.array(complete).reshape(len(complete), -1)) if complete else 0.0)
        if not searcher.report(key, at[key], values) and at[key] < case.epochs:
            at[key], order = at[key] + 1, order + 1
            heapq.heappush(running, (now + 1, order, key))
    return volumes, asked_seconds / order


def _observation(goals: Goals, params: Mapping[str, Scalar]) -> Observation:
    from dialin.lifecycle import TrialState

    return Observation(params, {}, TrialState.RUNNING, {name: {} for name in goals.further})


def _add(goals: Goals, observation: Observation, epoch: int, values: np.ndarray) -> None:
    observation.values[epoch] = float(values[0])  # type: ignore[index]
    for name, value in zip(goals.further, values[1:], strict=True):
        observation.others[name][epoch] = float(value)  # type: ignore[index]


def _parts(found: list[Any], size: int) -> list[list[Any]]:
    return [found[start : start + size] for start in range(0, len(found), size)]


def make_case(name: str) -> Case:
    if name == "digits":
        return Digits()
    _, task, output = name.split(":")
    return Fair(task, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(DEVELOPMENT))
    parser.add_argument("--searchers", nargs="+", default=list(SEARCHERS), choices=list(SEARCHERS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    marks = [mark for mark in MARKS if mark <= asked.budget]
    results = []
    for name in asked.cases:
        shared = None if name == "digits" else make_case(name)
        for seed in range(asked.seeds):
            case = shared or make_case(name)
            for searcher in asked.searchers:
                workers = 1 if name == "digits" else asked.workers
                volumes, seconds = simulate(case, SEARCHERS[searcher](case, seed), marks, workers)
                results.append({"case": name, "searcher": searcher, "seed": seed, "volumes": volumes, "ask": seconds})
                print(f"{name:20} {searcher:20} seed {seed}  " + "  ".join(f"{one:.3f}" for one in volumes)
                      + f"  {seconds * 1e3:.1f} ms", flush=True)  # fmt: skip
                if asked.json:
                    asked.json.write_text(json.dumps(results))
    print(table(results, marks))


def table(results: Sequence[Mapping[str, Any]], marks: Sequence[int]) -> str:
    """The means over cases and seeds, with the standard error over seeds, as Markdown."""
    lines = [f"| case | search | {' | '.join(map(str, marks))} | n |", f"|---|---|{'--:|' * len(marks)}--:|"]
    cases = list(dict.fromkeys(one["case"] for one in results))
    for case in [*cases, "all"] if len(cases) > 1 else cases:
        for searcher in dict.fromkeys(one["searcher"] for one in results):
            rows = [one for one in results if one["searcher"] == searcher and case in (one["case"], "all")]
            by_seed: dict[int, list[list[float]]] = {}
            for one in rows:
                by_seed.setdefault(one["seed"], []).append(one["volumes"])
            seeds = np.array([np.mean(found, axis=0) for found in by_seed.values()])
            errors = seeds.std(axis=0, ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else np.zeros(len(marks))
            shown = " | ".join(f"{mean:.3f} ({error:.3f})" for mean, error in zip(seeds.mean(0), errors, strict=True))
            lines.append(f"| {case} | {searcher} | {shown} | {len(seeds)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
