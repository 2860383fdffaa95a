"""Whether a long study stays as fast and as small as it began: time and driver memory over its trials.

    python tests/benchmarks/flatness.py [--trials 2000] [--epochs 20] [--sampler auto] [--json FILE]

A trial does nothing but report, each value better than all before it, so that ASHA lets nearly every trial go on to its
end. Two trials run at a time on Ray, everything is stored and mirrored. The cost of a hundred trials is the time between
the ends of the first and the last of them; the driver's resident memory is looked at after the first hundred and at the
end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.overhead import SPACE, FirstReport, Nothing

PART = 100


class Watcher:
    """A `driver.Listener` that notes, at the end of each trial, the time and the memory."""

    def __init__(self) -> None:
        self.ended: list[tuple[float, float]] = []

    def note(self, text: str) -> None: ...
    def planned(self, *_: Any) -> None: ...

    def receive(self, event: Any) -> None:
        if event.kind == "trial_ended" and event.state == "complete":  # paused trials end when Tune has ended
            self.ended.append((time.perf_counter(), resident_mb()))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--sampler", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    from dialin import objectives
    from dialin.settings import Settings
    from dialin.specification import parse_spec
    from dialin.study_flow.run import run_study

    watcher = Watcher()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        objectives.build = lambda spec, data_dir: Nothing(FirstReport(folder))  # type: ignore[assignment,return-value]
        overrides = [f"budget.trials={arguments.trials}", f"budget.epochs={arguments.epochs}"]
        overrides += [f"search.sampler={arguments.sampler}", "resources.concurrency=2"]
        result = run_study(parse_spec(SPACE, "", overrides), Settings(folder, folder), watcher).result  # type: ignore[arg-type]
    times, memory = zip(*watcher.ended, strict=True)
    costs = [
        1000 * (times[start + PART - 1] - times[start]) / (PART - 1) for start in range(0, len(times) - PART + 1, PART)
    ]
    growth = memory[-1] - memory[PART - 1]
    print(f"{result.trials}, {result.epochs['trained']} reports")
    print("ms a trial, by hundreds: " + " ".join(f"{cost:.0f}" for cost in costs))
    print(f"the last hundred cost {costs[-1] / costs[0]:.2f} times the first")
    print(f"driver's memory: {memory[PART - 1]:.0f} MB after {PART} trials, {growth:+.0f} MB from there to the end")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"milliseconds": costs, "growth_mb": growth}, indent=2))


if __name__ == "__main__":
    main()
