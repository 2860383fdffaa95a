"""Points a second into MLflow: dialin's recorder against Ray's MLflowLoggerCallback and plain log_metric.

    python tests/benchmarks/recorder.py [--epochs 20] [--trials 100] [--rounds 3] [--json FILE]

All three write the same: trials with 8 params and 6 metrics an epoch, runs created and ended within the time taken;
only the 6 metrics count as points. Each round has a fresh database; medians over rounds. Ray's callback and log_metric
are so slow that they get 2 trials where the recorder gets all. Ray's callback is driven directly, with its own code. A
server is warm and at rest before anything is written to it: it goes on starting processes after its first answer, and
each of them opens its store at its first request.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dialin.events.log import EventLog  # noqa: E402
from dialin.events.types import (  # noqa: E402
    EpochReported,
    StudyEnded,
    StudyStarted,
    TrialDecided,
    TrialEnded,
    TrialStarted,
)
from dialin.paths import sqlite_url  # noqa: E402
from dialin.search.decision import Decision  # noqa: E402
from dialin.tracking.cursor import read_cursor  # noqa: E402
from dialin.tracking.mirror import Mirror  # noqa: E402
from dialin.tracking.mlflow_client import LazyClient  # noqa: E402
from dialin.tracking.recorder import workers_for  # noqa: E402
from dialin.tracking.replicate import Replicator  # noqa: E402

BETWEEN = Decision("continue", "between_rungs")
PARAMS: dict[str, Any] = {
    "model": "small_cnn",
    "optimizer": "sgd",
    "lr": 0.0123456789,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "batch_size": 64,
    "schedule": "cosine",
    "nesterov": True,
}
NAMES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
SLOW_TRIALS = 2


def metrics_of(trial: int, epoch: int) -> dict[str, float]:
    return {name: trial + epoch / (7 + place) for place, name in enumerate(NAMES)}


def report_of(trial: int, epoch: int) -> tuple[EpochReported, TrialDecided]:
    """What a driver logs of an epoch."""
    metrics = metrics_of(trial, epoch)
    return EpochReported(trial, epoch, metrics, metrics["val_accuracy"]), TrialDecided(trial, epoch, BETWEEN)


def with_recorder(uri: str, folder: Path, trials: int, epochs: int) -> float:
    """Seconds to replicate a complete event log; what the study itself waits for is in `append_microseconds`."""
    with EventLog(folder / "spool") as log:
        log.append(StudyStarted("bench-1", "bench", {}, {}))
        for trial in range(trials):
            log.append(TrialStarted(trial, PARAMS))
            for epoch in range(1, epochs + 1):
                log.append(*report_of(trial, epoch))
            log.append(TrialEnded(trial, "complete", ""))
        log.append(StudyEnded("complete", ""))
    client = LazyClient(uri)
    client.search_experiments()  # the first use of a store is not what is measured
    recorder = Replicator(folder / "spool", client, folder / "artifacts", uri, workers_for(uri))
    began = time.perf_counter()
    while not recorder.done:
        recorder.step()
    return time.perf_counter() - began


def with_ray(uri: str, folder: Path, trials: int, epochs: int) -> float:
    """Seconds that Ray's callback takes, in the driver's loop."""
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    class Trial:
        def __init__(self, number: int) -> None:
            self.number, self.config, self.local_path = number, PARAMS, str(folder)

        def __str__(self) -> str:
            return f"trial_{self.number}"

    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name="bench")
    callback.setup()
    began = time.perf_counter()
    for number in range(trials):
        trial: Any = Trial(number)
        callback.log_trial_start(trial)
        for epoch in range(1, epochs + 1):
            callback.log_trial_result(epoch, trial, metrics_of(number, epoch) | {"training_iteration": epoch})
        callback.log_trial_end(trial)
    return time.perf_counter() - began


def with_log_metric(uri: str, folder: Path, trials: int, epochs: int) -> float:
    """Seconds with a call a point: what a script that uses MLflow's client does."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.create_experiment("bench", artifact_location=(folder / "artifacts").as_uri())
    began = time.perf_counter()
    for trial in range(trials):
        run = client.create_run(experiment, run_name=f"trial-{trial}").info.run_id
        for name, value in PARAMS.items():
            client.log_param(run, name, value)
        for epoch in range(1, epochs + 1):
            for name, value in metrics_of(trial, epoch).items():
                client.log_metric(run, name, value, step=epoch)
        client.set_terminated(run)
    return time.perf_counter() - began


WAYS: dict[str, Callable[[str, Path, int, int], float]] = {
    "dialin's recorder": with_recorder,
    "plain log_metric": with_log_metric,
    "Ray's MLflowLoggerCallback": with_ray,
}


def check(database: Path, trials: int, epochs: int) -> None:
    """Every point is there: a rate of lost points is worth nothing."""
    import sqlite3

    connection = sqlite3.connect(database)
    names = ", ".join(repr(name) for name in NAMES)
    (count,) = connection.execute(f"select count(*) from metrics where key in ({names})").fetchone()
    connection.close()
    if count != trials * epochs * len(NAMES):
        raise RuntimeError(f"{count} points in MLflow; {trials * epochs * len(NAMES)} were written")


@contextmanager
def serving(database: Path, folder: Path) -> Iterator[str]:
    """A real server over the database, with MLflow's defaults."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", sqlite_url(database)]
    command += ["--port", str(port), "--default-artifact-root", str(folder / "served")]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: answers(port), 120)
        wait_until(lambda: at_rest(process.pid), 120)
        warm(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def warm(port: int) -> None:
    """So many requests over connections of their own that each of the server's four processes gets some."""
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"

    def ask(_number: int) -> None:
        with urllib.request.urlopen(address, timeout=60) as answer:
            answer.read()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(80)))


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1):
            return True
    except OSError:
        return False


def at_rest(pid: int) -> bool:
    """Whether a process and those it started have used less than half a core for two seconds; idle, they use a quarter."""
    used = processor_seconds(pid)
    time.sleep(2)
    return processor_seconds(pid) - used < 1.0


def processor_seconds(pid: int) -> float:
    server = psutil.Process(pid)
    total = 0.0
    for process in [server, *server.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not happen in time")
        time.sleep(0.01)


def rates(migrated: Path, over_http: bool, rounds: int, trials: int, epochs: int) -> dict[str, float]:
    """Points a second of each way, the median of the rounds; the ways take turns within a round."""
    measured: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, write in WAYS.items():
            count = trials if write is with_recorder else min(trials, SLOW_TRIALS)
            with tempfile.TemporaryDirectory() as name:
                folder, database = Path(name), Path(name) / "mlflow.db"
                shutil.copy(migrated, database)
                if over_http:
                    with serving(database, folder) as uri:
                        seconds = write(uri, folder, count, epochs)
                else:
                    seconds = write(sqlite_url(database), folder, count, epochs)
                check(database, count, epochs)
            measured[way].append(count * epochs * len(NAMES) / seconds)
    return {way: statistics.median(values) for way, values in measured.items()}


def append_microseconds() -> float:
    """What an epoch costs the driver: the median of 5,000."""
    with tempfile.TemporaryDirectory() as name:
        taken = []
        with EventLog(Path(name)) as log:
            for epoch in range(1, 5001):
                metrics = metrics_of(1, epoch)
                began = time.perf_counter()
                log.append(EpochReported(1, epoch, metrics, 0.5), TrialDecided(1, epoch, BETWEEN))
                taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def seconds_to_first_write() -> float:
    """From starting the recorder on a new SQLite store, migrations and imports included, to the first saved position."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = EventLog(folder / "spool")
        mirror = Mirror(folder / "spool", sqlite_url(folder / "mlflow.db"), restore=log.restore)
        log.append(StudyStarted("bench-1", "bench", {}, {}))
        began = time.perf_counter()
        mirror.start()
        wait_until(lambda: read_cursor(folder / "spool").offset > 0, 120)
        seconds = time.perf_counter() - began
        log.append(StudyEnded("complete", ""))
        mirror.close(60)
        log.close()
    return seconds


def measure(rounds: int, trials: int, epochs: int) -> dict[str, Any]:
    from mlflow import MlflowClient

    with tempfile.TemporaryDirectory() as name:
        migrated = Path(name) / "mlflow.db"
        MlflowClient(tracking_uri=sqlite_url(migrated)).search_experiments()
        points = {store: rates(migrated, store == "http", rounds, trials, epochs) for store in ("sqlite", "http")}
    return {
        "points_per_second": points,
        "append_microseconds": append_microseconds(),
        "seconds_to_first_write": seconds_to_first_write(),
        "rounds": rounds,
        "trials": trials,
        "epochs": epochs,
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("mlflow", "ray")} | {"python": platform.python_version()},
    }


def show(result: dict[str, Any]) -> None:
    print(f"points a second into MLflow, median of {result['rounds']} ({result['cpus']} cores, {result['versions']})\n")
    print(f"{'':28}{'SQLite':>9}{'ratio':>8}{'HTTP':>9}{'ratio':>8}")
    for way in WAYS:
        line = f"{way:28}"
        for store in ("sqlite", "http"):
            rate = result["points_per_second"][store]
            ratio = rate["dialin's recorder"] / rate[way]
            line += f"{rate[way]:9,.0f}" + (f"{ratio:8.1f}" if ratio != 1 else f"{'':8}")
        print(line)
    print(f"\nan epoch costs the driver {result['append_microseconds']:.0f} microseconds")
    print(
        f"a new SQLite store has its first run after {result['seconds_to_first_write']:.1f} s, in the recorder's process"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    result = measure(arguments.rounds, arguments.trials, arguments.epochs)
    show(result)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
