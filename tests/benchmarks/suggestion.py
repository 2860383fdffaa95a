"""What a suggestion of the model costs, by the number of trials: the sampler alone, on one thread.

    python tests/benchmarks/suggestion.py [--knobs 40] [--trials 50 300 1000 2000] [--suggestions 40]

The space has as many knobs: a choice of four, each value of which has a quarter of a third of the knobs under it, and
ranges and choices that every configuration has. Trials have curves of up to 27 epochs as under ASHA, and 5 % of them have
diverged. Seconds are those of the thread's processor. Suggestions follow each other as trials come in, so that the fits
of the hyperparameters, which happen when the trials have grown by 15 %, are among them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from dialin.lifecycle import TrialState
from dialin.planning.plan import ClusterShape, Plan, plan_study
from dialin.search.models.encoding import Encoding
from dialin.search.records import Observation
from dialin.search.samplers.learning_curve_gp import LearningCurveGPSampler
from dialin.specification import active_params, parse_spec

EPOCHS = 27


def plan_of(knobs: int) -> Plan:
    """A study over a conditional space of so many knobs, with a prior for each range."""
    conditional = knobs // 3
    lines = ["  branch: [a, b, c, d]"]
    for index in range(knobs - 1):
        when = f", when: {{branch: {'abcd'[index % 4]}}}" if index < conditional else ""
        values = "choices: [u, v, w]" if index % 4 == 3 else "min: 0.0, max: 1.0"
        lines.append(f"  knob_{index}: {{{values}{when}}}")
    prior = ", ".join(f"knob_{index}: 0.3" for index in range(knobs - 1) if index % 4 != 3)
    text = (
        f"name: cost\nobjective: {{python: {Path(__file__).resolve()}:plan_of, metric: value}}\n"
        f"space:\n{chr(10).join(lines)}\nprior: {{{prior}}}\nbudget: {{trials: 100000, epochs: {EPOCHS}}}\n"
    )
    return plan_study(parse_spec(text), ClusterShape(cpus=8))


def observation_of(plan: Plan, encoding: Encoding, generator: np.random.Generator) -> Observation:
    """A trial with a random configuration, stopped at a rung as ASHA would, or diverged."""
    point = generator.random(len(encoding.names))
    params = active_params(plan.spec, encoding.decode(point))
    top = 1 - float(np.mean((point[:8] - 0.4) ** 2))
    epochs = int(generator.choice([*plan.rungs, EPOCHS], p=[0.66, 0.22, 0.08, 0.04]))
    values = {epoch: top * (1 - 0.5 * math.exp(-epoch / 6)) for epoch in range(1, epochs + 1)}
    if generator.random() < 0.05:
        return Observation(params, {1: math.nan}, TrialState.DIVERGED)
    return Observation(params, values, TrialState.COMPLETE if epochs == EPOCHS else TrialState.WAITING)


def measure(knobs: int, trials: int, suggestions: int) -> np.ndarray:
    """(suggestions,) Milliseconds of each suggestion, from so many trials on."""
    plan, generator = plan_of(knobs), np.random.default_rng(0)
    encoding = Encoding(plan.spec)
    sampler = LearningCurveGPSampler(plan, encoding)
    seen = {number: observation_of(plan, encoding, generator) for number in range(trials)}
    sampler.suggest(trials, seen, frozenset())  # the first one fits from scratch, as after a restart
    took = []
    for number in range(trials, trials + suggestions):
        seen[number] = observation_of(plan, encoding, generator)
        began = time.thread_time()
        sampler.suggest(number + 1, seen, frozenset())
        took.append(1000 * (time.thread_time() - began))
    return np.array(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--knobs", type=int, default=40)
    parser.add_argument("--trials", type=int, nargs="+", default=[50, 300, 1000, 2000])
    parser.add_argument("--suggestions", type=int, default=60)
    arguments = parser.parse_args()
    print(f"{arguments.knobs} knobs; milliseconds of one thread a suggestion, n = {arguments.suggestions}")
    print("\n| trials | mean | median | 95 % | longest |\n|--:|--:|--:|--:|--:|")
    for trials in arguments.trials:
        took = measure(arguments.knobs, trials, arguments.suggestions)
        median, high = np.quantile(took, [0.5, 0.95])
        print(f"| {trials} | {took.mean():.1f} | {median:.1f} | {high:.1f} | {took.max():.1f} |")


if __name__ == "__main__":
    main()
