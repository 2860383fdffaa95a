"""How good a search is: the real Study in simulated time over tables of real learning curves, beside its peers.

    python tests/benchmarks/search_quality.py [--tasks T ...] [--seeds 4] [--budget 50] [--workers 8] [--json FILE]
                                              [--searchers NAME ...] [--table lcbench] [--processes 2]

`--workers` workers train at once, each epoch taking the seconds that the table says; a worker that is free asks at
once. Normalized regret is (best known - best seen) / (best known - worst known) of a task: 0 is the best that a search
of its own found there (random points, then steps around the best; no searcher sees it), and the best seen is the best
value after any epoch trained so far. It is read off when so many full trainings' worth of epochs, and of seconds of all
workers together, have been spent; a full training's worth of seconds is the mean over random configurations. The mean is
over tasks and seeds, its standard error over seeds; ranks are over searchers within a task and a seed.
"""

from __future__ import annotations

import argparse
import heapq
import importlib
import json
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from dialin.search.models.encoding import Encoding
from dialin.specification import active_params, parse_spec
from tests.benchmarks.searchers.base import Problem, Searcher

MODULES = ("dialin", "stock", "syne_tune")
MARKS = (5, 10, 20, 50)
RANDOM_POINTS, CLIMBS, KEPT, NEIGHBOURS = 4000, 14, 20, 20


@dataclass(frozen=True)
class Task:
    """A task with what regret is measured against."""

    problem: Problem
    table: Any
    worst: float
    best: float
    seconds: float  # of a full training, the mean over random configurations


@dataclass(frozen=True)
class Course:
    """Regret when so many trainings' worth of epochs, and of seconds, had been spent; how many trials; ask's seconds."""

    by_epochs: list[float]
    by_seconds: list[float]
    trials: int
    ask_seconds: float


def load_task(table: str, task: str) -> Task:
    module = importlib.import_module(f"tests.benchmarks.curves.{table}")
    text = f"name: benchmark\nobjective: {{dataset: digits}}\nspace:{module.SPACE}\n"
    problem = Problem(parse_spec(text), module.EPOCHS)
    loaded = module.load(task)
    return Task(problem, loaded, *_known(problem, loaded))


def _known(problem: Problem, table: Any) -> tuple[float, float, float]:
    """The worst and the best value known, and the mean seconds of a training: by random points, and steps around the
    best of them. The same for every searcher and seed."""
    encoding, generator = Encoding(problem.spec), np.random.default_rng(0)

    def look(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        params = [active_params(problem.spec, encoding.decode(point)) for point in points]
        values, seconds = table.curves(params)
        return values.max(axis=1), seconds[:, -1]

    points = generator.random((RANDOM_POINTS, len(encoding.names)))
    parts = [look(part) for part in np.array_split(points, 8)]
    tops, seconds = np.concatenate([top for top, _ in parts]), np.concatenate([part for _, part in parts])
    worst, width = float(tops.min()), 0.15
    for _ in range(CLIMBS):
        order = np.argsort(-tops)[:KEPT]
        steps = np.repeat(points[order], NEIGHBOURS, 0)
        moved = generator.random(steps.shape) < 0.5
        steps = np.clip(steps + moved * generator.normal(0, width, steps.shape), 0, 1)
        points, tops = np.concatenate([points[order], steps]), np.concatenate([tops[order], look(steps)[0]])
        width *= 0.8
    return worst, float(tops.max()), float(seconds.mean())


def simulate(task: Task, searcher: Searcher, budget: float, workers: int) -> Course:
    """One search until `budget` trainings' worth of epochs and of seconds have been spent."""
    epochs, marks = task.problem.epochs, [mark for mark in MARKS if mark <= budget]
    curves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    running: list[tuple[float, int, int, int]] = []  # end of the epoch, order, key, epoch
    best, spent_epochs, spent_seconds, order, ask_seconds = -np.inf, 0, 0.0, 0, 0.0
    by_epochs: list[float] = []
    by_seconds: list[float] = []

    def fill(now: float) -> None:
        nonlocal order, ask_seconds
        while len(running) < workers:
            began = time.perf_counter()
            asked = searcher.ask()
            ask_seconds += time.perf_counter() - began
            if asked is None:
                return
            if asked.key not in curves:
                values, seconds = task.table.curves([asked.params])
                curves[asked.key] = values[0], np.diff(np.concatenate([[0.0], seconds[0]]))
            order += 1
            took = float(curves[asked.key][1][asked.epochs_done])
            heapq.heappush(running, (now + took, order, asked.key, asked.epochs_done + 1))

    fill(0.0)
    while len(by_epochs) < len(marks) or len(by_seconds) < len(marks):
        if not running:
            raise RuntimeError("the searcher has nothing to do, and nothing runs")
        now, _, key, epoch = heapq.heappop(running)
        values, seconds = curves[key]
        best = max(best, float(values[epoch - 1]))
        spent_epochs += 1
        spent_seconds += float(seconds[epoch - 1])
        regret = (task.best - best) / (task.best - task.worst)
        for spent, unit, into in ((spent_epochs, epochs, by_epochs), (spent_seconds, task.seconds, by_seconds)):
            while len(into) < len(marks) and spent >= marks[len(into)] * unit:
                into.append(regret)
        if not searcher.report(key, epoch, float(values[epoch - 1])) and epoch < epochs:
            order += 1
            heapq.heappush(running, (now + float(seconds[epoch]), order, key, epoch + 1))
        fill(now)
    return Course(by_epochs, by_seconds, len(curves), ask_seconds)


def searchers(wanted: Sequence[str] | None) -> tuple[dict[str, Any], list[str]]:
    """Name -> what makes one; and a line for each module that cannot be had here."""
    found: dict[str, Any] = {}
    missing = []
    for name in MODULES:
        try:
            found |= importlib.import_module(f"tests.benchmarks.searchers.{name}").SEARCHERS
        except ImportError as error:
            missing.append(f"not measured: searchers/{name}.py ({error})")
    if wanted:
        unknown = [name for name in wanted if name not in found]
        if unknown:
            raise SystemExit(f"no searcher {unknown[0]!r}; there are: {', '.join(found)}")
        found = {name: found[name] for name in wanted}
    return found, missing


_tasks: dict[tuple[str, str], Task] = {}


def _one(job: tuple[str, str, str, int, float, int]) -> Course:
    table, name, searcher, seed, budget, workers = job
    if (table, name) not in _tasks:
        _tasks[table, name] = load_task(table, name)
    task = _tasks[table, name]
    made = searchers([searcher])[0][searcher](task.problem, seed)
    return simulate(task, made, budget, workers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="lcbench")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--searchers", nargs="+")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=50)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tasks = arguments.tasks or importlib.import_module(f"tests.benchmarks.curves.{arguments.table}").TASKS
    found, missing = searchers(arguments.searchers)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    jobs = [
        (arguments.table, task, name, seed, arguments.budget, arguments.workers)
        for task in tasks
        for name in found
        for seed in seeds
    ]
    with ProcessPoolExecutor(arguments.processes) as pool:
        courses = dict(zip(jobs, pool.map(_one, jobs), strict=True))
    marks = [mark for mark in MARKS if mark <= arguments.budget]
    table = {
        name: summarize(
            [[courses[job] for job in jobs if job[1] == task and job[2] == name] for task in tasks], len(marks)
        )
        for name in found
    }
    add_ranks(table, courses, jobs, list(found), len(marks))
    for line in missing:
        print(line)
    print(text_of(table, marks, len(tasks), arguments))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"marks": marks, "tasks": list(tasks), "table": table}, indent=2))


def summarize(courses: list[list[Course]], marks: int) -> dict[str, Any]:
    """Of one searcher, courses by task and seed."""
    row: dict[str, Any] = {}
    for kind in ("by_epochs", "by_seconds"):
        values = np.array([[getattr(course, kind)[:marks] for course in task] for task in courses])
        by_seed = values.mean(axis=0)
        error = by_seed.std(axis=0, ddof=1) / np.sqrt(len(by_seed)) if len(by_seed) > 1 else np.full(marks, np.nan)
        row[kind] = {"mean": by_seed.mean(axis=0).tolist(), "standard_error": error.tolist()}
        row[kind]["by_task"] = values.mean(axis=1).tolist()
    every = [course for task in courses for course in task]
    row["trials"] = float(np.mean([course.trials for course in every]))
    row["ask_milliseconds"] = 1000 * sum(course.ask_seconds for course in every) / sum(c.trials for c in every)
    return row


def add_ranks(table: dict[str, Any], courses: dict[Any, Course], jobs: list[Any], names: list[str], marks: int) -> None:
    """The mean rank at the last mark by epochs, 1 is best; ties share."""
    groups: dict[tuple[str, int], list[float]] = {}
    for name in names:
        for job in (job for job in jobs if job[2] == name):
            groups.setdefault((job[1], job[3]), []).append(courses[job].by_epochs[marks - 1])
    values = np.array(list(groups.values()))
    ranks = (values[:, None, :] < values[:, :, None]).sum(2) + (
        (values[:, None, :] == values[:, :, None]).sum(2) + 1
    ) / 2
    for name, rank in zip(names, ranks.mean(axis=0), strict=True):
        table[name]["rank"] = float(rank)


def text_of(table: dict[str, Any], marks: Sequence[int], tasks: int, arguments: argparse.Namespace) -> str:
    """The table as Markdown, the best at the last mark first."""
    lines = [
        f"mean normalized regret (standard error over {arguments.seeds} seeds), {tasks} tasks of {arguments.table}, "
        f"{arguments.workers} workers; after so many full trainings' worth of epochs | of seconds",
        "",
        "| search | "
        + " | ".join(f"{mark} ep." for mark in marks)
        + " | "
        + " | ".join(f"{mark} sec." for mark in marks)
        + " | rank | trials | ms an ask |",
        "|---|" + "--:|" * (2 * len(marks) + 3),
    ]
    for name, row in sorted(table.items(), key=lambda entry: entry[1]["by_epochs"]["mean"][-1]):
        cells = [
            f"{mean:.3f} ({error:.3f})"
            for kind in ("by_epochs", "by_seconds")
            for mean, error in zip(row[kind]["mean"], row[kind]["standard_error"], strict=True)
        ]
        cells += [f"{row['rank']:.1f}", f"{row['trials']:.0f}", f"{row['ask_milliseconds']:.0f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
