"""What the learning-rate range test is worth: the same budget of epochs, its own cost counted, against a fixed range.

    python tests/benchmarks/range_test.py [--seeds 5] [--trials 16] [--method minimum] [--data-dir D] [--json FILE]

Two searches a seed over one space: the learning rate in the catalogue's range, or about the rates of range tests for
each optimizer and normalization. Both get the same number of epochs; those that the tests took are taken from the
second's. Prints the best validation accuracy after a third of the epochs and at the end: median and range over seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from dialin.settings import Settings
from dialin.specification import parse_spec
from dialin.study_flow.read_back import load_study
from dialin.study_flow.run import run_study

SPACE = """
name: {name}
objective: {{dataset: {dataset}, validation_fraction: 0.2, samples: {samples}}}
space:
  optimizer: [sgd, adam]
  normalization: [none, batch]
  lr: {lr}
  momentum: {{min: 0.5, max: 0.98, when: {{optimizer: sgd}}}}
  batch_size: {{min: 16, max: 128, log: true}}
search: {{sampler: tpe, seed: {seed}}}
early_stopping: {{asha: {{type: stopping}}}}
budget: {{trials: {trials}, epochs: 9}}
"""
ARMS = {
    "fixed": "{{min: 1e-4, max: 1, log: true}}",
    "range_test": "{{range_test: {{method: {method}, per: [optimizer, normalization]}}}}",
}


class Quiet:
    def note(self, text: str) -> None: ...
    def planned(self, *_: object) -> None: ...
    def receive(self, event: object) -> None: ...


def search(arguments: argparse.Namespace, arm: str, seed: int) -> tuple[list[float], float]:
    """The best validation accuracy after each epoch trained, in the order of the trials, and the tests' cost."""
    text = SPACE.format(
        name=arm.replace("_", "-"), dataset=arguments.dataset, samples=arguments.samples,
        lr=ARMS[arm].format(method=arguments.method), seed=seed, trials=arguments.trials,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.read({}, out=folder, data_dir=str(arguments.data_dir))
        result = run_study(parse_spec(text), settings, Quiet(), "inline").result
        back = load_study(settings, result.study_id)
        best, course = 0.0, []
        for trial in back.trials:
            for value in trial.values.values():
                best = max(best, value if value == value else 0.0)
                course.append(best)
        return course, back.calibration.epochs if back.calibration is not None else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=120, help="the budget that both arms are judged at")
    parser.add_argument(
        "--method", choices=("minimum", "third", "knees"), default="minimum", help="how the rate is read"
    )
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--samples", type=int, default=1400)
    parser.add_argument("--data-dir", type=Path, default=Path("dialin-data/data"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[tuple[float, float, float]]] = {arm: [] for arm in ARMS}
    for seed in range(arguments.seeds):
        for arm, rows in found.items():
            course, cost = search(arguments, arm, seed)
            third, end = (max(0, int(share * arguments.epochs - cost)) for share in (1 / 3, 1))
            rows.append((course[third - 1] if third else 0.0, course[min(end, len(course)) - 1], cost))
            print(f"seed {seed} {arm}: {rows[-1][0]:.4f} after a third, {rows[-1][1]:.4f} at the end, tests {cost:.1f}")
    for arm, rows in found.items():
        thirds, ends, costs = zip(*rows, strict=True)
        print(f"{arm:<12} a third: {line(thirds)}   end: {line(ends)}   tests: {statistics.mean(costs):.1f} epochs")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2))


def line(values: tuple[float, ...]) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f}, n = {len(values)})"


if __name__ == "__main__":
    main()
