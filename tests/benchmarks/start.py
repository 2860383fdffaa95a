"""How long one waits: for `dialin --help`, for `dialin plan digits`, and for the first report of `dialin run digits`.

    python tests/benchmarks/start.py [--rounds 5] [--json FILE]

Each is a process of its own, once before anything is counted; medians. The first report has come when the first epoch of
any trial is in the study's storage; the study is then ended by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

DIALIN = [sys.executable, "-m", "dialin"]
ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 120


def command(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([*DIALIN, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def first_report() -> float:
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        study = subprocess.Popen(
            [*DIALIN, "run", "digits", "--out", out], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while not has_reported(Path(out) / "dialin.db"):
                if study.poll() is not None or time.perf_counter() - began > LONGEST_SECONDS:
                    raise RuntimeError("the study came to no report")
                time.sleep(0.02)
            return time.perf_counter() - began
        finally:
            study.send_signal(signal.SIGTERM)
            study.wait()


def has_reported(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("select count(*) from trial_intermediate_values").fetchone()[0])
    except sqlite3.Error:  # not there yet, or without its tables
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    ways = {
        "dialin --help": lambda: command("--help"),
        "dialin plan digits": lambda: command("plan", "digits"),
        "first report of dialin run digits": first_report,
    }
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}; seconds, median (least to most)\n")
    found: dict[str, list[float]] = {}
    for name, measure in ways.items():
        measure()
        found[name] = [measure() for _ in range(arguments.rounds)]
        print(
            f"{name:36}{statistics.median(found[name]):6.2f} ({min(found[name]):.2f} to {max(found[name]):.2f})",
            flush=True,
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
