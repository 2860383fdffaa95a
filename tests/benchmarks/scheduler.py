"""Decisions a second: reports of many simulated trials through `Study.report`, with the storage in memory.

    python tests/benchmarks/scheduler.py [--reports 100000] [--trials 500] [--json FILE]

Trials are live all at once and report in turn, epoch by epoch, values that rise with noise; ASHA in both its forms
decides. A trial that is stopped, or paused for good, makes room for the next one until all reports are made. Only the
calls of `report` are timed. To see how the cost grows, the same number of reports is made with a half and with twice as
many trials.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import optuna

from dialin.planning.plan import ClusterShape, plan_study
from dialin.search.records import Trial
from dialin.search.study import Study
from dialin.specification import load_spec


def decide(trials: int, reports: int, asha: str) -> np.ndarray:
    """The seconds that each of the reports took."""
    epochs = max(10, 2 * reports // trials)
    spec = load_spec(
        "synthetic",
        [
            f"budget.trials={10 * trials}",
            f"budget.epochs={epochs}",
            "search.sampler=random",
            f"early_stopping.asha.type={asha}",
        ],
    )
    study = Study.open(plan_study(spec, ClusterShape(cpus=trials)), optuna.storages.InMemoryStorage(), "benchmark")
    noise = np.random.default_rng(0).normal(0, 0.05, reports)
    live: list[tuple[Trial, int]] = []
    taken: list[float] = []
    while len(taken) < reports:
        while len(live) < trials and (trial := study.ask()) is not None:
            live.append((trial, max(study.values(trial), default=0)))
        going: list[tuple[Trial, int]] = []
        for trial, epoch in live[: reports - len(taken)]:
            top = 0.5 + (trial.number % 97) / 200
            value = top * (1 - np.exp(-3 * (epoch + 1) / epochs)) + noise[len(taken)]
            began = time.perf_counter()
            decision = study.report(trial, epoch + 1, float(value))
            taken.append(time.perf_counter() - began)
            if not decision.continues:
                study.tell(trial, decision)
            else:
                going.append((trial, epoch + 1))
        live = going
    return np.array(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reports", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[dict[str, Any]] = []
    print(f"{arguments.reports} reports, one core, Python {platform.python_version()}, optuna {version('optuna')}\n")
    print(f"{'ASHA':12}{'trials':>8}{'decisions/s':>14}{'p50 us':>9}{'p99 us':>9}{'longest us':>12}")
    for asha in ("promotion", "stopping"):
        for trials in (arguments.trials // 2, arguments.trials, 2 * arguments.trials):
            taken = decide(trials, arguments.reports, asha)
            p50, p99, longest = (1e6 * float(np.quantile(taken, q)) for q in (0.5, 0.99, 1.0))
            rate = len(taken) / float(taken.sum())
            rows.append({"asha": asha, "trials": trials, "per_second": rate, "p50_us": p50, "p99_us": p99})
            print(f"{asha:12}{trials:8}{rate:14,.0f}{p50:9.0f}{p99:9.0f}{longest:12.0f}")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
