"""What a trial costs beyond its training: the documented way, dialin's, and Ray Tune with nothing else.

    python tests/benchmarks/overhead.py [--trials 60 500] [--rounds 3] [--ways NAME ...] [--json FILE]

A trial does nothing but report nine times, each value better than all before it, so that ASHA lets every trial go on to
its end. Two trials run at a time. Every run is a process of its own with a fresh folder; each way runs once before
anything is counted, then the ways take turns; medians. MLflow writes to a SQLite file with its tables made beforehand,
for all. A trial's cost is the time from the first report until the last trial has ended, and until MLflow has
everything too, over the trials; the start is the time from the command's start to the first report, imports and Ray
included.

- documented: Ray Tune with OptunaSearch, ASHAScheduler and MLflowLoggerCallback, as their documentation shows it
- documented, reused: the same with a class trainable and `reuse_actors=True`
- dialin: `run_study` with its defaults and the sampler that --sampler names
- bare Tune: class trainable, reused actors, no search, no scheduler, no loggers
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

EPOCHS, CONCURRENCY = 9, 2
WARM_UP_TRIALS = 6
SPACE = """
name: overhead
objective: {dataset: synthetic}
space:
  lr: {min: 1e-4, max: 1, log: true}
  momentum: {min: 0.0, max: 0.99}
  batch_size: {min: 16, max: 512, log: true}
"""


@dataclass(frozen=True)
class Times:
    """Of one run, in seconds since 1970: the first report, when the last trial had ended, and when MLflow had it all."""

    first_report: float
    ended: float
    mirrored: float


class FirstReport:
    """A file that the first trial to report leaves its time in."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "first-report"

    def note(self) -> None:
        if not self._file.exists():
            try:
                with self._file.open("x") as file:
                    file.write(repr(time.time()))
            except FileExistsError:
                return

    def read(self) -> float:
        return float(self._file.read_text())


def start_ray(folder: Path) -> None:
    """As a script would, with what is ours: a folder, no dashboard, no chatter."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "0", "RAY_DEDUP_LOGS": "0"}
    import ray

    ray.init(
        address="local", num_cpus=CONCURRENCY, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder / "r")
    )


def function_trainable(first: FirstReport) -> Callable[[dict[str, Any]], None]:
    def train(config: dict[str, Any]) -> None:
        from ray import tune

        for _ in range(EPOCHS):
            first.note()
            tune.report({"value": time.monotonic()})

    return train


def class_trainable(first: FirstReport) -> type:
    from ray.tune import Trainable

    class Trial(Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.epoch = 0

        def step(self) -> dict[str, Any]:
            first.note()
            self.epoch += 1
            return {"value": time.monotonic(), "done": self.epoch >= EPOCHS}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.epoch = 0
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Nothing."""

        def load_checkpoint(self, checkpoint: Any) -> None:
            """Nothing."""

    return Trial


def documented(trials: int, folder: Path, sampler: str, reused: bool = False) -> Times:
    from ray import tune
    from ray.air.integrations.mlflow import MLflowLoggerCallback
    from ray.tune.schedulers import ASHAScheduler
    from ray.tune.search.optuna import OptunaSearch

    start_ray(folder)
    first = FirstReport(folder)
    tuner = tune.Tuner(
        class_trainable(first) if reused else function_trainable(first),
        param_space={
            "lr": tune.loguniform(1e-4, 1),
            "momentum": tune.uniform(0.0, 0.99),
            "batch_size": tune.lograndint(16, 513),
        },
        tune_config=tune.TuneConfig(
            metric="value",
            mode="max",
            search_alg=OptunaSearch(),
            scheduler=ASHAScheduler(max_t=EPOCHS, grace_period=1, reduction_factor=3),
            num_samples=trials,
            max_concurrent_trials=CONCURRENCY,
            reuse_actors=reused,
        ),
        run_config=tune.RunConfig(
            storage_path=str(folder / "tune"),
            verbose=0,
            callbacks=[
                MLflowLoggerCallback(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", experiment_name="overhead")
            ],
        ),
    )
    results = tuner.fit()
    end = time.time()
    if len(results) != trials or results.errors:
        raise RuntimeError(f"{len(results)} trials, {len(results.errors)} failed; {trials} were wanted")
    check_reports(folder / "mlflow.db", "value", trials * EPOCHS)
    return Times(first.read(), end, end)


def bare(trials: int, folder: Path, sampler: str) -> Times:
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "3600"}
    from ray import tune

    start_ray(folder)
    first = FirstReport(folder)
    analysis = tune.run(
        class_trainable(first),
        config={"lr": tune.loguniform(1e-4, 1)},
        num_samples=trials,
        max_concurrent_trials=CONCURRENCY,
        reuse_actors=True,
        storage_path=str(folder / "tune"),
        verbose=0,
    )
    end = time.time()
    if len(analysis.trials) != trials or any(trial.status != "TERMINATED" for trial in analysis.trials):
        raise RuntimeError(f"not all of {trials} trials ended")
    return Times(first.read(), end, end)


class Nothing:
    """An Objective, and a Run, that only says what time it is."""

    def __init__(self, first: FirstReport) -> None:
        self._first = first

    def prepare(self, progress: Callable[[str], None]) -> None:
        """Nothing to prepare."""

    def range_test_epochs(self, params: Mapping[str, Any], steps: int) -> float:
        return 0.0

    def start(self, params: Mapping[str, Any], seed: int, resources: Any) -> Nothing:
        return self

    def epoch(self) -> dict[str, float]:
        self._first.note()
        return {"val_accuracy": time.monotonic()}

    def findings(self) -> list[Any]:
        return []

    def save(self, folder: Path) -> None:
        (folder / "state").write_text("nothing")

    def load(self, folder: Path) -> None:
        """Nothing to load."""

    def test(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        """Nothing to close."""


class Watcher:
    """A `driver.Listener` that notes when the last trial ended and when the mirror then had everything."""

    def __init__(self, trials: int, out: Path) -> None:
        self._trials, self._out, self._count = trials, out, 0
        self.ended = self.mirrored = 0.0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def note(self, text: str) -> None: ...
    def planned(self, *_: Any) -> None: ...

    def receive(self, event: Any) -> None:
        if event.kind != "trial_ended" or event.state == "waiting":
            return
        self._count += 1
        if self._count == self._trials:
            self.ended = time.time()
            self._thread.start()

    def _watch(self) -> None:
        from dialin.tracking.lag import lag_of

        (events,) = self._out.glob("studies/*/spool")
        while lag_of(events):
            time.sleep(0.01)
        self.mirrored = time.time()

    def wait(self) -> None:
        self._thread.join()


def dialin(trials: int, folder: Path, sampler: str) -> Times:
    from dialin import objectives
    from dialin.settings import Settings
    from dialin.specification import parse_spec
    from dialin.study_flow.run import run_study

    first, watcher = FirstReport(folder), Watcher(trials, folder)
    objectives.build = lambda spec, data_dir: Nothing(first)  # type: ignore[assignment,return-value]
    spec = parse_spec(
        f"{SPACE}\nbudget: {{trials: {trials}, epochs: {EPOCHS}}}\nsearch: {{sampler: {sampler}}}"
        f"\nresources: {{concurrency: {CONCURRENCY}}}"
    )
    result = run_study(spec, Settings(folder, folder / "data"), watcher).result  # type: ignore[arg-type]
    watcher.wait()
    # The first trials at a rung, with nothing to be better than, wait there, and are never among the best again.
    if result.trials["complete"] < 0.9 * trials - 4:
        raise RuntimeError(f"{result.trials}; nearly all of {trials} were to be complete")
    check_reports(folder / "mlflow.db", "val_accuracy", result.epochs["trained"])
    return Times(first.read(), watcher.ended, watcher.mirrored)


WAYS: Mapping[str, Callable[[int, Path, str], Times]] = {
    "documented": documented,
    "documented, reused": lambda trials, folder, sampler: documented(trials, folder, sampler, reused=True),
    "dialin": dialin,
    "bare Tune": bare,
}


def check_reports(database: Path, metric: str, made: int) -> None:
    """Every point is in MLflow: a rate of lost points is worth nothing."""
    import sqlite3

    connection = sqlite3.connect(database)
    (count,) = connection.execute("select count(*) from metrics where key = ?", (metric,)).fetchone()
    connection.close()
    if count != made:
        raise RuntimeError(f"{count} reports in MLflow; {made} were made")


def run_one(way: str, trials: int, folder: Path, sampler: str) -> None:
    """In a process of its own: print the times as the last line."""
    warnings.simplefilter("ignore")
    times = WAYS[way](trials, folder, sampler)
    print(json.dumps([times.first_report, times.ended, times.mirrored]), flush=True)


def measure(way: str, trials: int, migrated: Path, sampler: str) -> dict[str, float]:
    """Of one run: milliseconds a trial till its end, and till it is mirrored; seconds to the first report."""
    # A short path: Ray's sockets below it must fit into 107 characters.
    with tempfile.TemporaryDirectory(prefix="ovh-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        shutil.copy(migrated, folder / "mlflow.db")
        command = [sys.executable, __file__, "--one", way, "--trials", str(trials), "--folder", name]
        began = time.time()
        done = subprocess.run(
            [*command, "--sampler", sampler], capture_output=True, text=True, env=quiet(), check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"{way} failed: {done.stderr[-2000:]}")
    first, ended, mirrored = json.loads(done.stdout.splitlines()[-1])
    return {
        "ended": 1000 * (ended - first) / trials,
        "mirrored": 1000 * (mirrored - first) / trials,
        "start_seconds": first - began,
    }


def quiet() -> dict[str, str]:
    mlflow = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR", "GIT_PYTHON_REFRESH": "quiet"}
    return {**os.environ, **mlflow, "OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[60, 500])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--one", choices=list(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments.one, arguments.trials[0], arguments.folder, arguments.sampler)
        return
    result = measure_all(arguments.ways, arguments.trials, arguments.rounds, arguments.sampler)
    show(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2))


def measure_all(ways: list[str], counts: list[int], rounds: int, sampler: str) -> dict[str, Any]:
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as name:
        migrated = Path(name) / "mlflow.db"
        MlflowClient(tracking_uri=f"sqlite:///{migrated}").search_experiments()
        for way in ways:
            measure(way, WARM_UP_TRIALS, migrated, sampler)
        runs = []
        for count in counts:
            for _ in range(rounds):
                for way in ways:
                    runs.append({"way": way, "trials": count, **measure(way, count, migrated, sampler)})
                    print(f"{way}, {count} trials: {runs[-1]['ended']:.1f} ms a trial", file=sys.stderr)
    return {
        "runs": runs,
        "rounds": rounds,
        "sampler": sampler,
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("ray", "optuna", "mlflow")}
        | {"python": platform.python_version()},
    }


def show(result: dict[str, Any]) -> None:
    print(f"medians (least to most) of {result['rounds']} runs, {result['cpus']} cores, {result['versions']}\n")
    print(f"{'':20}{'trials':>7}  {'ms a trial':26}{'till MLflow has it':26}s to the first report")
    medians: dict[tuple[str, int], float] = {}
    for way, count in dict.fromkeys((run["way"], run["trials"]) for run in result["runs"]):
        runs = [run for run in result["runs"] if (run["way"], run["trials"]) == (way, count)]
        medians[way, count] = statistics.median(run["ended"] for run in runs)
        cells = [_spread([run[name] for run in runs]) for name in ("ended", "mirrored", "start_seconds")]
        print(f"{way:20}{count:7}  " + "".join(f"{cell:26}" for cell in cells).rstrip())
    for way, count in medians:
        if way != "dialin" and ("dialin", count) in medians:
            ratio = medians["dialin", count] / medians[way, count]
            print(f"{count} trials: dialin costs {ratio:.3f} of {way} (1/{1 / ratio:.1f})")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
