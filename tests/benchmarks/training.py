"""One trial's training against the usual loop: samples a second, seconds to an accuracy, and accuracies over seeds.

    python tests/benchmarks/training.py [--cases NAME ...] [--rounds 3] [--seeds 5] [--threads 1] [--data-dir D]
                                        [--precision bfloat16] [--compile] [--json FILE]

The usual loop: a torchvision dataset of PIL images, transforms (crop, flip, tensor, normalize), a DataLoader with
workers, float32, channels first, `loss.item()` for the running loss, no compilation; on a GPU with pinned memory and
non-blocking copies. dialin's: `ImageRun` as a trial runs it, the doctor included. Both train the same network with the
same initialization, optimizer (SGD with Nesterov's momentum), schedule (cosine), batch size, augmentation and number of
torch threads on the same images, and validate after each epoch; all of that counts. The usual loop gets the number of
workers (0, 1, 2, 4, ... up to the cores) that was fastest for it in a trial run. The two take turns; medians over rounds.

Seconds to the accuracy that a case names are counted from before the data is opened to the end of the first epoch that
reached it; `never` where none did. Accuracies are those of the last epoch, mean and standard deviation over seeds.
--precision is dialin's (`objective.precision`); the usual loop's is float32. With --compile a third way takes part:
dialin's with `objective.compile`. What compiling costs is printed for the first time, with torch's cache on disk empty,
and for the times after it, as it is from a study's second trial on.

On a GPU, for resnet18 on CIFAR-10: the FLOPs of an epoch as torch counts them, the rate that follows, and its share of
what a bfloat16 matrix product of 8192 x 8192 reaches on the same chip in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import VisionDataset

from dialin.specification.study_spec import Precision
from dialin.training.configuration import Configuration, TrainingOptions
from dialin.training.datasets import ImageData, load, prepare
from dialin.training.device_data import Splits, place
from dialin.training.network import build_network
from dialin.training.run import ImageRun

VALIDATION = 0.2
MATMUL_SIDE, MATMUL_TIMES = 8192, 50
CHOOSING_EPOCHS = 3  # to choose the number of workers by


@dataclass(frozen=True)
class Case:
    """A network on a data set, with the accuracy to reach, chosen before anything was measured."""

    model: str
    dataset: str
    samples: int | None
    epochs: int
    batch_size: int
    width: int
    accuracy: float
    augmentation: str = "crop+flip"
    lr: float = 0.05

    @property
    def name(self) -> str:
        return f"{self.model}/{self.dataset}"

    def params(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "width": self.width,
            "batch_size": self.batch_size,
            "optimizer": "sgd",
            "lr": self.lr,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 5e-4,
            "schedule": "cosine",
            "normalization": "batch",
            "augmentation": self.augmentation,
            "input": "standardize",
        }


CPU_CASES = (
    Case("small_cnn", "digits", None, 8, 32, 16, 0.90, augmentation="crop"),
    Case("small_cnn", "fashion_mnist", 6000, 8, 64, 16, 0.75),
    Case("small_cnn", "cifar10", 6000, 4, 64, 16, 0.35),
    Case("resnet18", "cifar10", 1000, 2, 64, 16, 0.20),
)
GPU_CASES = (
    Case("small_cnn", "digits", None, 8, 32, 16, 0.90, augmentation="crop"),
    Case("small_cnn", "fashion_mnist", None, 5, 128, 32, 0.88),
    Case("small_cnn", "cifar10", None, 8, 128, 32, 0.60),
    Case("resnet18", "cifar10", None, 8, 512, 64, 0.85, lr=0.2),
)


@dataclass(frozen=True)
class Training:
    """One trial: seconds to the end of each epoch from the start, training images seen a second in the epochs after the
    first (which warms up), and validation accuracies."""

    ends: list[float]
    images_per_second: float
    accuracies: list[float]

    def seconds_to(self, accuracy: float) -> float | None:
        return next((end for end, got in zip(self.ends, self.accuracies, strict=True) if got >= accuracy), None)


def ours(
    case: Case, seed: int, data_dir: Path, device: str, precision: Precision, compile_network: bool = False
) -> Training:
    began = time.perf_counter()
    splits = place(load(prepare(case.dataset, data_dir, print)), device, VALIDATION, case.samples, 0)
    metric = "val_accuracy"
    options = TrainingOptions(case.epochs, metric, True, compile=compile_network, precision=precision)
    run = ImageRun(case.params(), splits, seed, options)
    return _train(case, began, len(splits.train), lambda _epoch: run.epoch()[metric])


def usual(case: Case, seed: int, data_dir: Path, device: str, workers: int) -> Training:
    began = time.perf_counter()
    data = load(prepare(case.dataset, data_dir, print))
    splits = place(data, "cpu", VALIDATION, case.samples, 0)  # which images are whose, as for ours
    torch.manual_seed(seed)
    # The same network from the same initialization, in torch's own memory format.
    network = _as_usual(build_network(Configuration.from_params(case.params()), splits)).to(device)
    loop = UsualLoop(case, network, data, splits, device, workers)
    return _train(case, began, len(splits.train), loop.epoch)


def _as_usual(network: nn.Module) -> nn.Module:
    placed: nn.Module = network.to(memory_format=torch.contiguous_format)
    for module in placed.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True  # as torchvision's networks have it
    return placed


def _train(case: Case, began: float, images: int, epoch: Callable[[int], float]) -> Training:
    ends: list[float] = []
    accuracies: list[float] = []
    for number in range(1, case.epochs + 1):
        accuracies.append(epoch(number))
        ends.append(time.perf_counter() - began)
    return Training(ends, images * (case.epochs - 1) / (ends[-1] - ends[0]), accuracies)


class Images(VisionDataset):  # type: ignore[misc]
    """As torchvision.datasets.CIFAR10 and MNIST hand out images: one at a time, from an array, by way of PIL."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, rows: np.ndarray, transform: Any) -> None:
        super().__init__(root=".", transform=transform)
        self.data = np.ascontiguousarray(images[rows].transpose(0, 2, 3, 1))
        self.targets = labels[rows].tolist()

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels = self.data[index]
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), self.targets[index]

    def __len__(self) -> int:
        return len(self.targets)


class UsualLoop:
    """What a tutorial would write."""

    def __init__(
        self, case: Case, network: nn.Module, data: ImageData, splits: Splits, device: str, workers: int
    ) -> None:
        of = splits.statistics
        side = data.x_train.shape[-1]
        shared = [
            transforms.ToTensor(),
            transforms.Normalize((of.mean / 255).flatten().tolist(), (of.std / 255).flatten().tolist()),
        ]
        changes = [transforms.RandomCrop(side, padding=max(1, side // 8))]
        if "flip" in case.augmentation:
            changes.append(transforms.RandomHorizontalFlip())
        rows = [split.rows.numpy() for split in (splits.train, splits.validation) if split.rows is not None]
        loader = partial(DataLoader, num_workers=workers, pin_memory=device == "cuda", persistent_workers=workers > 0)
        kept, held = (Images(data.x_train, data.y_train, part, None) for part in rows)
        kept.transform, held.transform = transforms.Compose([*changes, *shared]), transforms.Compose(shared)
        self._train = loader(kept, batch_size=case.batch_size, shuffle=True)
        self._validation = loader(held, batch_size=500)
        self._network, self._device = network, device
        self._loss = nn.CrossEntropyLoss()
        self._optimizer = torch.optim.SGD(
            network.parameters(), lr=case.lr, momentum=0.9, nesterov=True, weight_decay=5e-4
        )
        steps = case.epochs * len(self._train)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, steps)

    def epoch(self, _number: int) -> float:
        self._network.train()
        running, right = 0.0, 0
        for batch in self._train:
            images, labels = (part.to(self._device, non_blocking=True) for part in batch)
            self._optimizer.zero_grad()
            logits = self._network(images)
            loss = self._loss(logits, labels)
            loss.backward()
            self._optimizer.step()
            self._schedule.step()
            running += loss.item() * len(labels)
            right += (logits.argmax(1) == labels).sum().item()
        return self._validate()

    @torch.no_grad()
    def _validate(self) -> float:
        self._network.eval()
        right, count = 0, 0
        for batch in self._validation:
            images, labels = (part.to(self._device, non_blocking=True) for part in batch)
            right += (self._network(images).argmax(1) == labels).sum().item()
            count += len(labels)
        return right / count


def compare(case: Case, arguments: argparse.Namespace, device: str) -> dict[str, Any]:
    """The loops in turn: at least `rounds` times for the rates, and with `seeds` seeds for the accuracies."""
    data_dir, precision = arguments.data_dir, arguments.precision
    short = replace(case, epochs=min(case.epochs, CHOOSING_EPOCHS))
    counts = [0, *(2**power for power in range((os.cpu_count() or 1).bit_length()))]
    workers = max(counts, key=lambda count: usual(short, 0, data_dir, device, count).images_per_second)
    ways: dict[str, Callable[[int], Training]] = {
        "dialin": lambda seed: ours(case, seed, data_dir, device, precision),
        "usual": lambda seed: usual(case, seed, data_dir, device, workers),
    }
    if arguments.compile:
        ways["compiled"] = lambda seed: ours(case, seed, data_dir, device, precision, True)
    runs: dict[str, list[Training]] = {way: [] for way in ways}
    cold = {way: train(0).ends[0] for way, train in ways.items()}  # and all have been warmed up
    for seed in range(max(arguments.rounds, arguments.seeds)):
        for way, train in ways.items():
            runs[way].append(train(seed))
    return {
        "case": case.name,
        "epochs": case.epochs,
        "batch_size": case.batch_size,
        "workers": workers,
        "accuracy": case.accuracy,
        "first_epoch_ever": cold,
        **{way: _row(case, found) for way, found in runs.items()},
    }


def _row(case: Case, runs: list[Training]) -> dict[str, Any]:
    rates = [run.images_per_second for run in runs]
    reached = [run.seconds_to(case.accuracy) for run in runs]
    last = [run.accuracies[-1] for run in runs]
    return {
        "images_per_second": statistics.median(rates),
        "least": min(rates),
        "most": max(rates),
        "epoch_seconds": statistics.median((run.ends[-1] - run.ends[0]) / (len(run.ends) - 1) for run in runs),
        "first_epoch": statistics.median(run.ends[0] for run in runs),
        # The median with those that never got there beyond all others.
        "seconds_to_accuracy": sorted(reached, key=lambda value: (value is None, value))[len(reached) // 2],
        "accuracy_mean": statistics.mean(last),
        "accuracy_deviation": statistics.stdev(last) if len(last) > 1 else 0.0,
        "n": len(runs),
    }


def chip_share(case: Case, images_per_second: float, data_dir: Path) -> dict[str, float]:
    """FLOPs of one training image (forward and backward), the rate, and its share of the chip's matrix products'."""
    from torch.utils.flop_counter import FlopCounterMode

    splits = place(load(prepare(case.dataset, data_dir, print)), "cuda", VALIDATION, case.samples, 0)
    network = build_network(Configuration.from_params(case.params()), splits)
    images, labels = splits.train.take(torch.arange(case.batch_size, device="cuda"))
    with FlopCounterMode(display=False) as counter:
        nn.functional.cross_entropy(network(images.float()), labels).backward()
    flops = counter.get_total_flops() / case.batch_size
    matmul = matmul_rate()
    rate = flops * images_per_second
    return {
        "flops_an_image": flops,
        "flops_per_second": rate,
        "matmul_flops_per_second": matmul,
        "share": rate / matmul,
    }


def matmul_rate() -> float:
    """FLOPs a second of a bfloat16 matrix product, the median of `MATMUL_TIMES`."""
    one = torch.randn(MATMUL_SIDE, MATMUL_SIDE, device="cuda", dtype=torch.bfloat16)
    taken = []
    for _ in range(MATMUL_TIMES):
        torch.cuda.synchronize()
        began = time.perf_counter()
        one @ one
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return float(2 * MATMUL_SIDE**3 / statistics.median(taken))


def show(row: dict[str, Any]) -> None:
    mine, theirs = row["dialin"], row["usual"]
    print(f"{row['case']}  ({row['epochs']} epochs, batch {row['batch_size']}, n = {mine['n']})")
    ways = [("dialin", mine), (f"usual, {row['workers']} workers", theirs)]
    if "compiled" in row:
        ways.append(("dialin, compiled", row["compiled"]))
    for way, found in ways:
        seconds = found["seconds_to_accuracy"]
        print(
            f"  {way:18}{found['images_per_second']:9,.0f} images/s ({found['least']:,.0f} to {found['most']:,.0f})"
            f"   {'never' if seconds is None else f'{seconds:.2f} s'} to {row['accuracy']:g}"
            f"   accuracy {found['accuracy_mean']:.4f} +- {found['accuracy_deviation']:.4f}"
        )
    print(f"  {mine['images_per_second'] / theirs['images_per_second']:.2f} times as fast", flush=True)
    if "compiled" in row:
        show_compiled(row)
    if "chip" in row:
        chip = row["chip"]
        print(
            f"  {chip['flops_an_image'] / 1e9:.2f} GFLOP an image, {chip['flops_per_second'] / 1e12:.0f} TFLOP/s, "
            f"{chip['share']:.0%} of the {chip['matmul_flops_per_second'] / 1e12:.0f} of a matrix product"
        )


def show_compiled(row: dict[str, Any]) -> None:
    mine, compiled = row["dialin"], row["compiled"]
    costs = compiled["first_epoch"] - mine["first_epoch"]
    saves = mine["epoch_seconds"] - compiled["epoch_seconds"]
    # The first epoch trains as well, only faster.
    pays = f"pays after {(costs + saves) / saves:,.0f} epochs" if saves > 0 else "never pays"
    print(
        f"  compiling took {row['first_epoch_ever']['compiled'] - mine['first_epoch']:.1f} s the first time and "
        f"{costs:.1f} s with the cache full; it saves {1000 * saves:.0f} ms an epoch and {pays}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cases = {case.name: case for case in (GPU_CASES if device == "cuda" else CPU_CASES)}
    parser.add_argument("--cases", nargs="+", choices=list(cases), default=list(cases))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=Path("dialin-data/data"))
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto", help="dialin's")
    parser.add_argument("--compile", action="store_true", help="measure objective.compile, too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
        run(arguments, device, cases)


def run(arguments: argparse.Namespace, device: str, cases: dict[str, Case]) -> None:
    where = torch.cuda.get_device_name() if device == "cuda" else f"{os.cpu_count()} CPU cores, {platform.machine()}"
    print(
        f"{where}, {arguments.threads} torch threads, torch {torch.__version__}, Python {platform.python_version()}\n"
    )
    rows = []
    for name in arguments.cases:
        row = compare(cases[name], arguments, device)
        if device == "cuda" and name == "resnet18/cifar10":
            row["chip"] = chip_share(cases[name], row["dialin"]["images_per_second"], arguments.data_dir)
        rows.append(row)
        show(row)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
