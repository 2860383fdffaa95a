"""Reads from a server while a study runs: how long they take, and what they cost the study.

    python tests/benchmarks/load.py [--rate 200] [--seconds 30] [--rounds 3] [--json FILE]

A server (`dialin up`) trains one study after the other; every other one is read from at `--rate` requests a second over
eight connections: the list, the study, its trials, its best, its curve and a page, in turn. Requests are due at fixed
times, and a late one counts from when it was due, so a server that stalls cannot hide it. The study's seconds are those
from its first report to its last, over the trials' own clock in the event log.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from dialin.client.study import StudyHandle
from dialin.events.log import read_events
from dialin.events.types import EpochReported
from dialin.paths import OutputFolder
from tests.server.harness import Up, wait_until

# Every trial to its end, one seed: the same work each time.
SPEC = """
name: load
objective: {dataset: digits}
space:
  optimizer: sgd
  lr: {min: 1e-2, max: 0.1, log: true}
  batch_size: 16
search: {sampler: random, seed: 1}
early_stopping: off
budget: {trials: 12, epochs: %d}
"""
CONNECTIONS = 8


def read_on(
    host: str, paths: list[str], rate: float, ended: threading.Event, seconds: list[float], bad: list[str]
) -> None:
    """One connection's requests, until it is to end."""
    connection = http.client.HTTPConnection(host, timeout=30)
    due, number = time.monotonic(), 0
    while not ended.is_set():
        due += 1 / rate
        pause = due - time.monotonic()
        if pause > 0:
            time.sleep(pause)
        path = paths[number % len(paths)]
        number += 1
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                bad.append(f"{path}: {answer.status}")
        except OSError as error:
            bad.append(f"{path}: {error}")
            connection = http.client.HTTPConnection(host, timeout=30)
        seconds.append(time.monotonic() - due)
    connection.close()


def training_seconds(up: Up, study: StudyHandle) -> float:
    """From the first report of a study to its last."""
    events = read_events(OutputFolder(up.out).study(study.id).events, 0, 10**9).events
    times = [event.time for event in events if isinstance(event, EpochReported)]
    return (times[-1] - times[0]) / 1000


def one(up: Up, spec: Path, rate: float, most_seconds: float) -> tuple[float, list[float], list[str]]:
    """One study, read from at `rate` requests a second (0: not at all) from its first report on."""
    latencies: list[float] = []
    bad: list[str] = []
    ended = threading.Event()
    with up.client() as client:
        study = client.submit(spec)
        wait_until(lambda: study.refresh().info.best is not None, 120, "a report")
        own = f"/api/v1/studies/{study.id}"
        paths = ["/api/v1/studies", own, f"{own}/trials", f"{own}/best", f"{own}/curve", f"/studies/{study.id}/live"]
        threads = [
            threading.Thread(
                target=read_on,
                args=(
                    f"127.0.0.1:{up.port}",
                    paths[n % 6 :] + paths[: n % 6],
                    rate / CONNECTIONS,
                    ended,
                    latencies,
                    bad,
                ),
            )
            for n in range(CONNECTIONS if rate else 0)
        ]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        while study.refresh().info.state in ("queued", "running"):
            time.sleep(1.0)
            if time.monotonic() - began > most_seconds:
                ended.set()
        ended.set()
        for thread in threads:
            thread.join()
        assert study.info.state == "complete", study.info
    return training_seconds(up, study), latencies, bad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=30.0, help="that requests are sent at least")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    alone, read, latencies, bad = [], [], [], []
    with tempfile.TemporaryDirectory() as folder, Up(Path(folder) / "up") as up:
        spec = Path(folder) / "load.yaml"
        spec.write_text(SPEC % arguments.epochs)
        one(up, spec, 0, 0)  # imports and data
        for _ in range(arguments.rounds):
            alone.append(one(up, spec, 0, 0)[0])
            seconds, more, wrong = one(up, spec, arguments.rate, 1e9)
            read.append(seconds)
            latencies += more
            bad += wrong
    result: dict[str, Any] = {
        "rate": len(latencies) / sum(read),
        "requests": len(latencies),
        "not_200": bad[:20],
        "p50_ms": 1000 * statistics.median(latencies),
        "p99_ms": 1000 * statistics.quantiles(latencies, n=100)[98],
        "alone_s": alone,
        "read_s": read,
        "slower": statistics.median(read) / statistics.median(alone) - 1,
    }
    print(f"requests       {result['requests']}, {result['rate']:.0f} a second, {len(bad)} not answered with 200")
    print(f"latency        {result['p50_ms']:.1f} ms median, {result['p99_ms']:.1f} ms p99")
    print(f"study alone    {', '.join(f'{each:.1f}' for each in alone)} s")
    print(f"study read     {', '.join(f'{each:.1f}' for each in read)} s: {result['slower']:+.1%}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
