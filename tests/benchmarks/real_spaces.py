"""What a search is worth on the spaces that are shipped: real trainings, and the winners' accuracy on the test split.

    python tests/benchmarks/real_spaces.py --json FILE [--space digits] [--seeds 20] [--first-seed 0] [--processes 1]
                                           [--searchers NAME ...] [--data-dir DIR] [--fresh 5]
    python tests/benchmarks/real_spaces.py --json FILE --summary [--of dialin]

The real Study, and Optuna, in simulated time: two workers, each epoch takes the same time, paused trials stay in memory.
A search ends when its epochs are used up, the same number for every searcher. Its winner is what it recommends to its
user: dialin's incumbent, and of every other searcher the complete trial with the best validation value. The winner's
configuration is then trained `--fresh` times from new seeds, and its test accuracy (of the epoch with the best validation
value, as `dialin run` measures it) is the result. Nothing else reads the test split. The references are the catalogue's
defaults, trained for as many epochs as a trial has, and for as many as a whole search has.

Every search is appended to FILE when it ends, and one that is there is not run again, so an interrupted run goes on
where it was. FILE may hold several spaces; a space that was changed is another one. `--summary` prints the table: the
mean over searches, its standard error, how many searches ended above the mean of the default, and the difference of the
searcher that `--of` names to each other one, paired by seed, in standard errors.

`--searchers` also takes settings of dialin, such as "search.sampler=gp" or "search.sampler=gp,budget.trials=60".
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

from dialin.objectives import build
from dialin.objectives.base import Objective, Run
from dialin.planning.plan import Resources
from dialin.planning.seeds import seed_of_trial
from dialin.specification import active_params, load_spec, parse_spec, spec_from_data, to_data, to_yaml
from dialin.specification.domains import Fixed, Scalar
from dialin.specification.study_spec import StudySpec
from tests.benchmarks.searchers.trained import CPUS, SEARCHERS, Searcher, study_with

REFERENCES = ("default", "default, all epochs")
FRESH_SEEDS = 10**6
"""Seeds of trainings for the test split start here; those of searches are below."""

Params = Mapping[str, Scalar]


@dataclass(frozen=True)
class Space:
    """A space to search.

    spec: the specification. epochs: how many a search may train in all. build: makes what trains.
    """

    spec: StudySpec
    epochs: int
    build: Callable[[StudySpec], Objective]

    @cached_property
    def objective(self) -> Objective:
        return self.build(self.spec)

    @property
    def digest(self) -> str:
        """Tells spaces, and their budgets, apart."""
        return hashlib.sha256(f"{self.epochs}{to_yaml(self.spec)}".encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Cut:
    """How a shipped space is shortened, and how many epochs a search of it may train in all."""

    epochs: int
    overrides: tuple[str, ...] = ()


SPACES: Mapping[str, Cut] = {
    # `dialin run digits` trains 75 to 148 epochs, depending on the sampler; its plan expects 70.
    "digits": Cut(100),
    # About five minutes of one core, the trainings of the winner among them. A plan expects 93 epochs.
    "fashion_mnist": Cut(
        100,
        (
            "objective.samples=2000",
            "objective.validation_fraction=0.25",
            "budget.epochs=9",
            "budget.trials=40",
            "early_stopping.asha.grace_epochs=1",
        ),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """How a search ended: what it recommends with the value that it saw, and what it spent.

    lengths: by trial, how many epochs it was trained.
    """

    params: Params | None
    value: float
    lengths: list[int]


def open_space(name: str, data_dir: Path) -> Space:
    """A shipped space as this benchmark searches it."""
    cut = SPACES[name]
    space = Space(load_spec(name, cut.overrides), cut.epochs, partial(build, data_dir=data_dir))
    space.objective.prepare(print)
    return space


def search(space: Space, searcher: Searcher, workers: int = CPUS) -> Outcome:
    """Run a search in simulated time until its epochs are spent. Every epoch takes the same time, so the worker that
    began its epoch first ends it first."""
    runs: dict[int, Run] = {}
    lengths: dict[int, int] = {}
    busy: deque[Any] = deque()
    for _ in range(space.epochs):
        while len(busy) < workers and (asked := searcher.ask()) is not None:
            busy.append(asked)
        if not busy:
            break
        trial = busy.popleft()
        if trial.number not in runs:
            runs[trial.number] = space.objective.start(trial.params, trial.seed, Resources())
        run = runs[trial.number]
        metrics = run.epoch()
        epoch = lengths[trial.number] = lengths.get(trial.number, 0) + 1
        if not searcher.report(trial, epoch, metrics, run.findings()):
            busy.append(trial)
        elif epoch >= space.spec.budget.epochs:
            del runs[trial.number]
    winner = searcher.winner()
    params, value = winner if winner is not None else (None, math.nan)
    return Outcome(params, value, [lengths.get(number, 0) for number in range(searcher.trials())])


def accuracies(space: Space, params: Params, seeds: Iterable[int], epochs: int) -> list[float]:
    """Train a configuration for so many epochs, once for each seed; its accuracies on the test split."""
    # A schedule ends with the training, so the objective must know its length. The doctor changes no result.
    changes = [f"budget.epochs={epochs}", "early_stopping.doctor=off"]
    objective = space.build(parse_spec(to_yaml(space.spec), overrides=changes))
    found = []
    for seed in seeds:
        run = objective.start(params, seed, Resources())
        for _ in range(epochs):
            run.epoch()
        found.append(run.test()["accuracy"])
        run.close()
    return found


def default_of(spec: StudySpec) -> Params:
    """What the catalogue says where a person says nothing: the fixed knobs of the space, and defaults."""
    data = to_data(spec)
    fixed = {name for name, domain in spec.space.items() if isinstance(domain, Fixed)}
    data["space"] = {name: value for name, value in data["space"].items() if name in fixed}
    return active_params(spec_from_data(data), {})


def measure(space: Space, name: str, seed: int, fresh: int) -> dict[str, Any]:
    """One search, or one reference, with its accuracies on the test split, as it is stored."""
    began, seeds = time.process_time(), [seed_of_trial(FRESH_SEEDS + seed, index) for index in range(fresh)]
    row: dict[str, Any] = {"space": space.spec.name, "digest": space.digest, "searcher": name, "seed": seed}
    if name in REFERENCES:
        whole = name != "default"
        params, epochs = default_of(space.spec), space.epochs if whole else space.spec.budget.epochs
        row |= {"params": dict(params), "epochs": epochs}
        row["test"] = accuracies(space, params, seeds[:1] if whole else seeds, epochs)
    else:
        outcome = search(space, maker_of(name)(space.spec, seed))
        row |= {"params": outcome.params, "value": outcome.value, "lengths": outcome.lengths}
        row |= {"epochs": sum(outcome.lengths), "search_seconds": time.process_time() - began}
        length = space.spec.budget.epochs
        row["test"] = accuracies(space, outcome.params, seeds, length) if outcome.params is not None else [0.0]
    return {**row, "seconds": time.process_time() - began}


def maker_of(name: str) -> Callable[[StudySpec, int], Searcher]:
    """What makes the searcher of that name, or dialin's with the settings that the name consists of."""
    if name in SEARCHERS:
        return SEARCHERS[name]
    if "=" not in name:
        raise SystemExit(f"no searcher {name!r}; there are: {', '.join((*REFERENCES, *SEARCHERS))}, and KEY=VALUE,...")
    return study_with(*name.split(","))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The searches of a file; a last line that was cut off is left out."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a search to a file, in place of a last line that was cut off."""
    with path.open("ab+") as file:
        file.seek(0)
        written = file.read()
        if not written.endswith(b"\n"):
            file.truncate(written.rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")


_spaces: dict[tuple[str, Path], Space] = {}


def _job(job: tuple[str, Path, str, int, int]) -> dict[str, Any]:
    space, data_dir, name, seed, fresh = job
    if (space, data_dir) not in _spaces:
        _spaces[space, data_dir] = open_space(space, data_dir)
    return measure(_spaces[space, data_dir], name, seed, fresh)


def run(arguments: argparse.Namespace) -> None:
    """Run what the file does not have yet, one seed of every searcher after another. Two runs may share a file."""
    digest = open_space(arguments.space, arguments.data_dir).digest
    names = arguments.searchers or [*REFERENCES, *SEARCHERS]
    for name in names:
        name in REFERENCES or maker_of(name)  # a wrong name is an error before anything is trained
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    jobs = (
        (arguments.space, arguments.data_dir, name, seed, arguments.fresh)
        for seed in seeds
        for name in names
        # Read anew for each search: another run may have added to the file.
        if (digest, name, seed)
        not in {(row["digest"], row["searcher"], row["seed"]) for row in read_rows(arguments.json)}
    )
    with ProcessPoolExecutor(arguments.processes) as pool:
        for row in pool.map(_job, jobs) if arguments.processes > 1 else map(_job, jobs):
            append_row(arguments.json, row)
            name, accuracy = row["searcher"], _mean(row["test"])
            print(f"{name}, seed {row['seed']}: {accuracy:.4f}, {row['seconds']:.0f} s", flush=True)


def summarize(rows: Sequence[Mapping[str, Any]], of: str) -> str:
    """The table of one space as Markdown, the best first; differences are those of the searcher `of` to each row."""
    by_name: dict[str, dict[int, float]] = {}
    for row in rows:
        by_name.setdefault(row["searcher"], {})[row["seed"]] = _mean(row["test"])
    default = _mean(list(by_name["default"].values())) if "default" in by_name else math.nan
    lines = [
        f"| search | test accuracy (s.e.) | above the default | {of} - it (s.e.) | in s.e. | validation | epochs | trials "
        "| n |",
        "|---|" + "--:|" * 8,
    ]
    for name, means in sorted(by_name.items(), key=lambda entry: -_mean(list(entry[1].values()))):
        values = list(means.values())
        mine = [row for row in rows if row["searcher"] == name]
        above = "" if name in REFERENCES else f"{_mean([value > default for value in values]):.0%}"
        searched = [row for row in mine if "lengths" in row]
        seen = f"{_mean([row['value'] for row in searched]):.4f}" if searched else ""
        trials = f"{_mean([len(row['lengths']) for row in searched]):.0f}" if searched else ""
        epochs = f"{_mean([row['epochs'] for row in mine]):.0f}"
        cells = [f"{_mean(values):.4f} ({_error(values):.4f})", above, *_difference(by_name.get(of, {}), means)]
        lines.append(f"| {name} | " + " | ".join([*cells, seen, epochs, trials, str(len(values))]) + " |")
    return "\n".join(lines)


def _difference(one: Mapping[int, float], other: Mapping[int, float]) -> tuple[str, str]:
    """The mean difference over the seeds that both have, with its standard error, and the same in standard errors."""
    pairs = [one[seed] - other[seed] for seed in one if seed in other]
    if one is other or len(pairs) < 2:
        return "", ""
    error = _error(pairs)
    return f"{_mean(pairs):+.4f} ({error:.4f})", f"{_mean(pairs) / error:+.1f}" if error else ""


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _error(values: Sequence[float]) -> float:
    """The standard error of the mean; NaN for one value."""
    if len(values) < 2:
        return math.nan
    mean = _mean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--space", choices=list(SPACES), default="digits")
    parser.add_argument("--searchers", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--fresh", type=int, default=5, help="trainings of each winner for the test split")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--data-dir", type=Path, default=Path("dialin_out/data"))
    parser.add_argument("--summary", action="store_true", help="print the table of what FILE has, and train nothing")
    parser.add_argument("--of", default="dialin", metavar="NAME")
    arguments = parser.parse_args()
    if not arguments.summary:
        run(arguments)
    rows = [row for row in read_rows(arguments.json) if row["space"] == arguments.space]
    for digest in sorted({row["digest"] for row in rows}):
        mine = [row for row in rows if row["digest"] == digest]
        print(
            f"\n{arguments.space} ({digest}), accuracy on the test split of each winner, {arguments.fresh} trainings\n"
        )
        print(summarize(mine, arguments.of))


if __name__ == "__main__":
    main()
