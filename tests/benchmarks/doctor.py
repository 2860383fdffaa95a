"""The doctor's false alarms on healthy trials, and what it costs.

    python tests/benchmarks/doctor.py [--trials 200] [--data-dir D] [--json FILE]

Trains random configurations of the shipped space `digits` at full length. A trial is healthy when its best validation
accuracy reaches 0.9; every finding in a healthy trial counts as a false alarm, by code. The cost is the processor time
of the same trial with and without the doctor, in turn, the least of 7 each.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch

from dialin.planning.plan import ClusterShape, plan_study
from dialin.planning.seeds import seed_of_trial
from dialin.search.suggester import Suggester
from dialin.specification import active_params, load_spec
from dialin.training.configuration import TrainingOptions
from dialin.training.datasets import load, prepare
from dialin.training.device_data import place
from dialin.training.run import ImageRun

HEALTHY = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--data-dir", type=Path, default=Path("dialin-data/data"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_spec("digits", ["search.sampler=random"])
    splits = place(load(prepare("digits", arguments.data_dir, print)), "cpu", 0.2, None, 0)
    suggester = Suggester(plan_study(spec, ClusterShape(2)))
    healthy, number, alarms, sick = 0, 0, Counter(), Counter()
    while healthy < arguments.trials:
        params = active_params(spec, suggester.suggest(number, {}))
        run = ImageRun(
            params, splits, seed_of_trial(0, number), TrainingOptions(spec.budget.epochs, "val_accuracy", True)
        )
        codes, best = Counter(), 0.0
        for _ in range(spec.budget.epochs):
            best = max(best, run.epoch()["val_accuracy"])
            codes.update({finding.code for finding in run.findings()})
        healthy += best >= HEALTHY
        (alarms if best >= HEALTHY else sick).update(codes)
        number += 1
    cost = {size: measure(splits, size) for size in (16, 32, 128)}
    result = {
        "trials": number,
        "healthy": healthy,
        "false_alarms": dict(alarms),
        "found_in_others": dict(sick),
        "cost_share": cost,
    }
    print(f"{number} trials, {healthy} of them healthy (best validation accuracy at least {HEALTHY})")
    print(f"false alarms in healthy trials: {dict(alarms) or 'none'}")
    print(f"found in the other {number - healthy}: {dict(sick)}")
    for size, share in cost.items():
        print(f"cost at batch size {size}: {share:+.1%} of processor time")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2))


def measure(splits: object, batch_size: int) -> float:
    """How much longer a trial takes with the doctor, as a share."""
    params = {"optimizer": "adam", "lr": 0.003, "width": 16, "depth": 3, "batch_size": batch_size}
    best = {True: float("inf"), False: float("inf")}
    for _ in range(7):
        for watched in (True, False):
            run = ImageRun(params, splits, 1, TrainingOptions(9, "val_accuracy", True, watched))
            began = time.process_time()
            for _ in range(9):
                run.epoch()
            best[watched] = min(best[watched], time.process_time() - began)
    return best[True] / best[False] - 1


if __name__ == "__main__":
    main()
