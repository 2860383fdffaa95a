"""Every fault in turn, and a table of what came of it.

python tests/faults/run.py [--short] [--seed 0] [--only WORD ...] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.faults import hangs, injections, server_injections
from tests.faults.injections import Row


def faults(short: bool, generator: random.Random, folder: Path) -> dict[str, Callable[[], Row]]:
    """Name -> what injects it."""
    kills = 2 if short else 10

    def writes() -> Row:
        points = sorted(generator.sample(range(1, 50), 4)) if short else None
        return injections.writes_interrupted(folder / "writes", points, injections.undisturbed(folder / "undisturbed"))

    return {
        "driver": lambda: injections.driver_killed(folder / "driver", kills, generator),
        "woken": lambda: injections.driver_woken(folder / "woken"),
        "writes": writes,
        "worker": lambda: injections.worker_killed(folder / "worker", 1 if short else 5, generator),
        "node": lambda: injections.node_killed(folder / "node"),
        "checkpoint": lambda: injections.checkpoint_truncated(folder / "checkpoint"),
        "storage": lambda: injections.storage_locked(folder / "storage", 3 if short else 30),
        "disk": lambda: injections.disk_full(folder / "disk"),
        "hang": lambda: hangs.trial_hangs(folder / "hang"),
        "driver-frozen": lambda: hangs.driver_frozen(folder / "driver-frozen"),
        "extended": lambda: hangs.extended_at_once(folder / "extended"),
        "mlflow": lambda: injections.mlflow_killed(folder / "mlflow"),
        "mlflow-frozen": lambda: injections.mlflow_frozen(folder / "mlflow-frozen"),
        "recorder": lambda: injections.recorder_killed(folder / "recorder", 1 if short else 3),
        "folder": lambda: injections.study_folder_deleted(folder / "folder"),
        "mlflow-down": lambda: injections.mlflow_killed(folder / "mlflow-down", from_the_start=True),
        "guard": lambda: server_injections.guards_killed(
            folder / "guard", ["api"] if short else ["api", "mlflow", "ray"]
        ),
        "frozen": lambda: server_injections.parts_frozen(
            folder / "frozen", ["dialin.server.serve"] if short else list(server_injections.FROZEN)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print("| fault | times | trials lost | epochs repeated | longest time to continue, s |\n|---|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory(prefix="dialin-faults-", ignore_cleanup_errors=True) as folder:
        for name, inject in faults(arguments.short, random.Random(arguments.seed), Path(folder)).items():
            if arguments.only and name not in arguments.only:
                continue
            try:
                row = inject()
            except injections.Skipped as why:
                print(f"| {name} | not injected: {why} | | | |", flush=True)
                continue
            rows.append(row)
            print(f"| {row.fault} | {row.times} | {row.lost} | {row.repeated} | {row.seconds:.1f} |", flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
