"""Which rule reads the best learning rate off a range test: ours, fastai's four and Lightning's, against trainings.

    python tests/benchmarks/lr_rules.py [--part judge] [--data-dir D] [--json FILE] [--only-table]

For each combination of knobs, trainings at rates 2.2 apart, two seeds each, and the range tests of each rule, two seeds
each. A rate is as good as the best when its accuracy, the mean over the seeds, is within half a point or one standard
error of the best, whichever is more. A rule's answer is right when it is within a factor 3 of such a rate. Accuracy is
that of the last epoch, on the validation split and up to 2,000 test images together. Our rules were made on the
parts `first` and `second`; `judge` has other batch sizes, normalizations, activations, initializations and images.
Prints, for each rule, the share within a factor 3 and the accuracy lost at its answer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from dialin.planning.range_test_reading import read_curves
from dialin.planning.seeds import seed_of_trial
from dialin.specification import complete
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.range_tests import Curve, Sweep
from dialin.training.configuration import Configuration, TrainingOptions
from dialin.training.datasets import load, prepare
from dialin.training.device_data import Split, Splits, place
from dialin.training.network import build_network
from dialin.training.optimizers import build_optimizer
from dialin.training.range_test import range_test
from dialin.training.run import ImageRun
from dialin.training.step import TrainingStep
from tests.benchmarks import peer_lr_rules as peers

APART = 2.2
SEEDS = (1, 2)
WITHIN = 3.0
TOLERANCE = 0.005
SWEEP = Sweep(1e-5, 10.0, peers.STEPS)
TEST_IMAGES = 2000

Params = Mapping[str, Any]
Record = dict[str, Any]
"""Of one combination: data set, params, accuracies {rate: [one a seed]}, curves, losses of the peers' tests."""

SETS = {"digits": {"samples": None, "epochs": 5}, "fashion_mnist": {"samples": 4000, "epochs": 2}}


def first() -> list[tuple[str, Params]]:
    """What our rules were first made on: 24 combinations of digits."""
    optimizers = [{"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "sgd", "momentum": 0.9},
                  {"optimizer": "adam"}, {"optimizer": "rmsprop"}]  # fmt: skip
    grid = itertools.product(optimizers, (16, 64, 256), ("batch", "none"))
    return [("digits", {**o, "batch_size": size, "normalization": norm}) for o, size, norm in grid]


def second() -> list[tuple[str, Params]]:
    """27 other combinations of digits: they judged the first rule, and were developed on from then on."""
    optimizers = [{"optimizer": "nesterov", "momentum": 0.9}, {"optimizer": "adagrad"}, {"optimizer": "adamw"},
                  {"optimizer": "nadam"}, {"optimizer": "sgd", "momentum": 0.5},
                  {"optimizer": "sgd", "momentum": 0.97}]  # fmt: skip
    plain = _rotated(optimizers, (32, 128, 48), ("group", "none", "layer"))
    others = [{"activation": "tanh", "initialization": "xavier"}, {"activation": "elu", "initialization": "orthogonal"},
              {"activation": "gelu", "initialization": "kaiming"}]  # fmt: skip
    return plain + [
        ("digits", {**optimizers[i], "batch_size": 32 if i % 2 else 128, "normalization": "none", **other})
        for i, other in itertools.product((0, 2, 3), others)
    ]


def judge() -> list[tuple[str, Params]]:
    """What rules are judged on: 24 combinations of digits and 9 of Fashion-MNIST, none of them a development one."""
    optimizers = [{"optimizer": "nesterov", "momentum": 0.8}, {"optimizer": "adagrad"}, {"optimizer": "adamw"},
                  {"optimizer": "nadam"}, {"optimizer": "sgd", "momentum": 0.8},
                  {"optimizer": "rmsprop", "momentum": 0.5}]  # fmt: skip
    digits = _rotated(optimizers, (24, 96, 40), ("batch", "instance", "group"))
    digits += [("digits", {**o, "batch_size": 32, "normalization": "none", "activation": "silu",
                           "initialization": "kaiming"}) for o in optimizers]  # fmt: skip
    fashion = [{"optimizer": "sgd", "momentum": 0.9, "batch_size": 32}, {"optimizer": "nesterov", "batch_size": 128},
               {"optimizer": "adam", "batch_size": 32}, {"optimizer": "adamw", "batch_size": 128},
               {"optimizer": "rmsprop", "batch_size": 64}, {"optimizer": "adagrad", "batch_size": 32},
               {"optimizer": "sgd", "momentum": 0.0, "batch_size": 64}, {"optimizer": "nadam", "batch_size": 256},
               {"optimizer": "sgd", "momentum": 0.9, "batch_size": 128, "normalization": "none"}]  # fmt: skip
    return digits + [("fashion_mnist", {"width": 8, **params}) for params in fashion]


def _rotated(
    optimizers: Sequence[Params], sizes: Sequence[int], normalizations: Sequence[str]
) -> list[tuple[str, Params]]:
    """Each optimizer with each batch size, and the normalizations in turn."""
    return [
        ("digits", {**optimizer, "batch_size": size, "normalization": normalizations[(i + j) % len(normalizations)]})
        for i, optimizer in enumerate(optimizers)
        for j, size in enumerate(sizes)
    ]


PARTS: Mapping[str, Callable[[], list[tuple[str, Params]]]] = {"first": first, "second": second, "judge": judge}


@cache
def splits_of(dataset: str, data_dir: Path) -> Splits:
    return place(load(prepare(dataset, data_dir, print)), "cpu", 0.2, SETS[dataset]["samples"], 0)


def measure(dataset: str, params: Params, data_dir: Path) -> Record:
    """Everything about one combination, as plain data."""
    splits, whole = splits_of(dataset, data_dir), complete(params)
    return {
        "dataset": dataset,
        "params": dict(params),
        "accuracies": trainings(whole, splits, int(SETS[dataset]["epochs"] or 1)),
        "curves": [vars(range_test(whole, splits, seed, SWEEP)) for seed in SEEDS],
        "fastai": [training_losses(whole, splits, seed, peers.fastai_rates()) for seed in SEEDS],
        "lightning": [training_losses(whole, splits, seed, peers.lightning_rates()) for seed in SEEDS],
    }


def trainings(params: Params, splits: Splits, epochs: int) -> dict[str, list[float]]:
    """The accuracies at each rate, from the catalogue's default outwards until both ends are clearly worse."""
    centre = round(math.log(float(CATALOGUE["lr"].default(params))) / math.log(APART))
    found: dict[int, list[float]] = {}

    def train(step: int) -> float:
        if step not in found:
            lr = APART**step
            found[step] = [accuracy({**params, "lr": lr}, splits, seed, epochs) for seed in SEEDS]
        return statistics.mean(found[step])

    for step in range(centre - 3, centre + 4):
        train(step)
    for way in (-1, 1):
        end = centre + 3 * way
        while abs(end - centre) < 12 and max(train(end), train(end - way)) > best_mean(found.values()) - 0.03:
            end += way
    return {f"{APART**step:.6g}": found[step] for step in sorted(found)}


def best_mean(values: Any) -> float:
    return max(statistics.mean(of_rate) for of_rate in values)


def accuracy(params: Params, splits: Splits, seed: int, epochs: int) -> float:
    """The accuracy after the last epoch; that of the weights as they are where the loss stops being finite."""
    run = ImageRun(params, splits, seed, TrainingOptions(epochs, "val_accuracy", maximize=True, doctor=False))
    for _ in range(epochs):
        metrics = run.epoch()
        if not math.isfinite(metrics["train_loss"]):
            break
    test = Split(*splits.test.take(slice(0, TEST_IMAGES)))
    right = metrics["val_accuracy"] * len(splits.validation) + run.evaluate(test)[1] * len(test)
    return right / (len(splits.validation) + len(test))


def training_losses(params: Params, splits: Splits, seed: int, rates: Sequence[float]) -> list[float]:
    """The training loss of each step while the rate rises; ends with the first one that is not finite."""
    configuration = Configuration.from_params(params)
    torch.manual_seed(seed_of_trial(seed, -1))
    model = build_network(configuration, splits)
    step = TrainingStep(model, build_optimizer(model, configuration), configuration, splits.statistics, "float32")
    model.train()
    losses: list[float] = []
    order = torch.randperm(0)
    for lr in rates:
        if len(order) < configuration.optimizer.batch_size:
            order = torch.randperm(len(splits.train))
        batch, order = order[: configuration.optimizer.batch_size], order[configuration.optimizer.batch_size :]
        losses.append(float(step.take(*splits.train.take(batch), lr).loss.detach()))
        if not math.isfinite(losses[-1]):
            break
    return losses


def answers(record: Record) -> dict[str, float | None]:
    """The rate that each rule reads off the tests of a combination; over the seeds, the geometric mean."""
    curves = [Curve(**{key: tuple(v) if isinstance(v, list) else v for key, v in c.items()}) for c in record["curves"]]
    default = float(CATALOGUE["lr"].default(complete(record["params"])))
    minimum, third = (read_curves(curves, method, default) for method in ("minimum", "third"))
    found: dict[str, float | None] = {
        # As studies use them: where the curves are unclear, the default.
        "minimum, the default here": minimum.rate if minimum.confident else default,
        "third": third.rate if third.confident else default,
        "middle of the knees": read_curves(curves, "knees").rate,
        "the catalogue's default": default,
    }
    each = [peers.fastai_rules(losses) for losses in record["fastai"]]
    found |= {name: _mean([one[name] for one in each]) for name in each[0]}
    found["Lightning"] = _mean([peers.lightning_rule(losses) for losses in record["lightning"]])
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    there = [math.log(value) for value in values if value is not None]
    return math.exp(statistics.mean(there)) if there else None


def as_good_as_the_best(accuracies: Mapping[float, Sequence[float]]) -> list[float]:
    """The rates whose mean accuracy is within TOLERANCE or one standard error of the best."""
    means = {rate: statistics.mean(values) for rate, values in accuracies.items()}
    best = max(means.values())
    near = [statistics.variance(accuracies[rate]) for rate, mean in means.items() if mean > best - 0.05]
    error = math.sqrt(statistics.mean(near) / len(next(iter(accuracies.values()))))
    return [rate for rate, mean in means.items() if mean >= best - max(TOLERANCE, error)]


def verdict(record: Record, answer: float | None) -> tuple[bool, float]:
    """Whether an answer is within the factor, and the accuracy lost at it (on a line between the trained rates)."""
    accuracies = {float(rate): values for rate, values in record["accuracies"].items()}
    means = [(math.log(rate), statistics.mean(values)) for rate, values in sorted(accuracies.items())]
    best = max(mean for _, mean in means)
    if answer is None:
        return False, best - min(mean for _, mean in means)
    good = as_good_as_the_best(accuracies)
    right = min(abs(math.log(answer / rate)) for rate in good) <= math.log(WITHIN)
    return right, best - _between(means, math.log(answer))


def _between(points: Sequence[tuple[float, float]], at: float) -> float:
    """The value on the lines between points; beyond the ends that of the end."""
    if at <= points[0][0]:
        return points[0][1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if at <= x1:
            return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
    return points[-1][1]


def table(records: Sequence[Record]) -> list[str]:
    """One line a rule: the share within the factor, median and mean accuracy lost."""
    verdicts: dict[str, list[tuple[bool, float]]] = {}
    for record in records:
        for rule, answer in answers(record).items():
            verdicts.setdefault(rule, []).append(verdict(record, answer))
    lines = [f"{'rule':<26} within {WITHIN:g}x   lost: median   mean   n"]
    for rule, found in sorted(verdicts.items(), key=lambda item: -sum(right for right, _ in item[1])):
        share = sum(right for right, _ in found) / len(found)
        lost = [value for _, value in found]
        lines.append(
            f"{rule:<26} {share:9.2f}   {statistics.median(lost):12.4f}   {statistics.mean(lost):.4f}   {len(found)}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=sorted(PARTS), default="judge")
    parser.add_argument("--dataset", choices=sorted(SETS), help="only the combinations of this data set")
    parser.add_argument("--data-dir", type=Path, default=Path("dialin-data/data"))
    parser.add_argument("--json", type=Path, help="raw results; combinations that it has are not measured again")
    parser.add_argument("--only-table", action="store_true", help="measure nothing; the table of --json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    records: list[Record] = json.loads(arguments.json.read_text()) if arguments.json and arguments.json.exists() else []
    known = [(record["dataset"], record["params"]) for record in records]
    for dataset, params in PARTS[arguments.part]():
        if arguments.only_table or (dataset, dict(params)) in known or arguments.dataset not in (None, dataset):
            continue
        records.append(measure(dataset, params, arguments.data_dir))
        print(
            dataset, params, {r: round(statistics.mean(v), 3) for r, v in records[-1]["accuracies"].items()}, flush=True
        )
        if arguments.json:
            arguments.json.write_text(json.dumps(records))
    for dataset in (*SETS, "all"):
        chosen = [record for record in records if dataset in ("all", record["dataset"])]
        if chosen:
            print(f"\n{arguments.part}, {dataset}", *table(chosen), sep="\n")


if __name__ == "__main__":
    main()
