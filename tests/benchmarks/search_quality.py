"""How good a search is: the real Study in simulated time over tables of real learning curves, beside its peers.

    python tests/benchmarks/search_quality.py [--table lcbench|conditional] [--tasks T ...] [--judge] [--seeds 4]
                                              [--searchers NAME ...] [--prior good|bad|none] [--budget 20]
                                              [--workers 8] [--processes 2] [--json FILE] [--join FILE ...]
                                              [--from MODULE ...]

`--workers` workers train at once, each epoch taking the seconds that the table says; a worker that is free asks at
once. Regret is (best known - best observed) / (best known - worst) of a task: 0 is the best that a search of its own
found there (random points, then steps around the best; no searcher is told), and the best observed is the best value
after any epoch trained so far. 1 is the worst known on LCBench, and the median random configuration in the conditional
spaces. Regret is read off when so many full trainings' worth of epochs have been spent, and on LCBench of seconds of all
workers together; a full training's worth of seconds is the mean over random configurations. A simulation that would
need more than twice the budget's epochs to spend its seconds ends there, and the columns that it has not reached show
the regret at that time: an upper bound. A line under the table counts such columns. The mean is over tasks and seeds,
its standard error over seeds; ranks are over searchers within a task and a seed.

`--from` takes only the searches of these modules of `searchers/`: the peers do not go into one environment (see the
Makefile). `--judge` takes the tasks that nothing may be tuned on. `--prior` says what the searches that take a prior are told (a
table's module says how it is found). With `--json` each simulation is kept in the file when it ends, and those that the
file holds are not run again. `--join` prints the table of several such files, and simulates nothing;
a search with another prior than the first file's has it in its name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "service")]

import numpy as np  # noqa: E402

from tests.benchmarks.curves.tasks import Task, load_task, module_of  # noqa: E402
from tests.benchmarks.simulation import Course, simulate  # noqa: E402

MODULES = ("dialin", "stock", "syne_tune", "optuna_gp", "smac", "neps")


class Setting(NamedTuple):
    """What all simulations of one table have in common."""

    table: str
    prior: str
    marks: tuple[float, ...]
    workers: int


class Run(NamedTuple):
    """One simulation."""

    task: str
    search: str
    seed: int


Courses = dict[Run, Course]


def searchers(wanted: Sequence[str] | None, modules: Sequence[str] = MODULES) -> tuple[dict[str, Any], list[str]]:
    """Name -> what makes one; and a line for each module that cannot be had here."""
    found: dict[str, Any] = {}
    missing = []
    for name in modules:
        if wanted and set(wanted) <= set(found):
            break
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


_tasks: dict[tuple[str, str, str, int], Task] = {}


def _simulated(setting: Setting, run: Run) -> Course:
    key = setting.table, run.task, setting.prior, run.seed
    if key not in _tasks:
        _tasks[key] = load_task(*key)
    task = _tasks[key]
    searcher = searchers([run.search])[0][run.search](task.problem, run.seed)
    return simulate(task, searcher, setting.marks, module_of(setting.table).CLOCKS, setting.workers)


def main() -> None:
    arguments = _parser().parse_args()
    if arguments.join:
        print(text_of(*joined(arguments.join)))
        return
    module = module_of(arguments.table)
    prior = arguments.prior or module.PRIORS[0]
    if prior not in module.PRIORS:
        raise SystemExit(f"no prior {prior!r} for {arguments.table}; there are: {', '.join(module.PRIORS)}")
    marks = tuple(mark for mark in module.MARKS if mark <= (arguments.budget or max(module.MARKS)))
    setting = Setting(arguments.table, prior, marks, arguments.workers)
    tasks = arguments.tasks or (module.JUDGING if arguments.judge else module.TASKS)
    found, missing = searchers(arguments.searchers, arguments.modules)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    runs = [Run(task, name, seed) for name in found for task in tasks for seed in seeds]
    courses = _read(arguments.json, setting) if arguments.json is not None and arguments.json.is_file() else {}
    for run, course in _all_simulated(setting, [run for run in runs if run not in courses], arguments.processes):
        courses[run] = course
        if arguments.json is not None:
            _write(arguments.json, setting, courses)
    for line in missing:
        print(line)
    print(text_of(setting, {run: courses[run] for run in runs}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", default="lcbench")
    parser.add_argument("--tasks", nargs="+")
    parser.add_argument("--judge", action="store_true")
    parser.add_argument("--searchers", nargs="+")
    parser.add_argument("--from", dest="modules", nargs="+", choices=MODULES, default=MODULES)
    parser.add_argument("--prior")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--budget", type=float)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--join", nargs="+", type=Path)
    return parser


def _all_simulated(setting: Setting, runs: Sequence[Run], processes: int) -> Iterable[tuple[Run, Course]]:
    """Each run with its course, as soon as those before it have ended."""
    if processes == 1:
        yield from ((run, _simulated(setting, run)) for run in runs)
        return
    with ProcessPoolExecutor(processes) as pool:
        yield from zip(runs, pool.map(_simulated, [setting] * len(runs), runs), strict=True)


def _write(path: Path, setting: Setting, courses: Mapping[Run, Course]) -> None:
    data = {
        "setting": setting._asdict(),
        "courses": [run._asdict() | asdict(course) for run, course in courses.items()],
        "table": table_of(setting, courses),
    }
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1))
    part.replace(path)


def _read(path: Path, setting: Setting) -> Courses:
    """The courses of a file. SystemExit where they were simulated under another setting than this one."""
    data = json.loads(path.read_text())
    stored = _setting_of(data)
    if stored != setting:
        raise SystemExit(f"{path} was measured with {stored}, and this is {setting}")
    fields = Run._fields
    return {
        Run(**{name: row[name] for name in fields}): Course(
            **{name: value for name, value in row.items() if name not in fields}
        )
        for row in data["courses"]
    }


def _setting_of(data: Mapping[str, Any]) -> Setting:
    return Setting(**{**data["setting"], "marks": tuple(data["setting"]["marks"])})


def joined(paths: Sequence[Path]) -> tuple[Setting, Courses]:
    """The courses of several files, on the tasks and seeds that all searches have. Their setting may differ in the prior:
    a search with another prior than that of the first file has it in its name."""
    setting = _setting_of(json.loads(paths[0].read_text()))
    courses: Courses = {}
    for path in paths:
        prior = _setting_of(json.loads(path.read_text())).prior
        note = "" if prior == setting.prior else f", prior: {prior}"
        read = _read(path, setting._replace(prior=prior))
        courses |= {run._replace(search=run.search + note): course for run, course in read.items()}
    places: dict[str, set[tuple[str, int]]] = {}
    for run in courses:
        places.setdefault(run.search, set()).add((run.task, run.seed))
    common = set.intersection(*places.values())
    if not common:
        raise SystemExit("the files have no task and seed in common")
    return setting, {run: course for run, course in courses.items() if (run.task, run.seed) in common}


def table_of(setting: Setting, courses: Mapping[Run, Course]) -> dict[str, dict[str, Any]]:
    """Search -> its row. A search that has not been simulated on each task with each seed has means over fewer."""
    names = list(dict.fromkeys(run.search for run in courses))
    rows = {name: summarize({run: course for run, course in courses.items() if run.search == name}) for name in names}
    for name, rank in ranks(courses).items():
        rows[name]["rank"] = rank
    return rows


def summarize(courses: Mapping[Run, Course]) -> dict[str, Any]:
    """The row of one search."""
    row: dict[str, Any] = {}
    tasks = list(dict.fromkeys(run.task for run in courses))
    for kind in ("by_epochs", "by_seconds"):
        values = {run: np.array(getattr(course, kind)) for run, course in courses.items()}
        seeds = [[value for run, value in values.items() if run.seed == seed] for seed in {run.seed for run in courses}]
        by_seed = np.array([np.mean(seed, axis=0) for seed in seeds])
        error = by_seed.std(axis=0, ddof=1) / np.sqrt(len(by_seed)) if len(by_seed) > 1 else by_seed[0] * np.nan
        by_task = [np.mean([value for run, value in values.items() if run.task == task], axis=0) for task in tasks]
        row[kind] = {"mean": by_seed.mean(axis=0).tolist(), "standard_error": error.tolist()}
        row[kind]["by_task"] = {task: values.tolist() for task, values in zip(tasks, by_task, strict=True)}
    every = list(courses.values())
    row["unreached"] = sum(course.unreached for course in every)
    row["trials"] = float(np.mean([course.trials for course in every]))
    row["ask_milliseconds"] = 1000 * sum(course.ask_seconds for course in every) / sum(c.trials for c in every)
    return row


def ranks(courses: Mapping[Run, Course]) -> dict[str, float]:
    """The mean rank of each search at the last mark by epochs, 1 is best; ties share."""
    groups: dict[tuple[str, int], dict[str, float]] = {}
    for run, course in courses.items():
        groups.setdefault((run.task, run.seed), {})[run.search] = course.by_epochs[-1]
    found: dict[str, list[float]] = {}
    for group in groups.values():
        values = list(group.values())
        for name, own in group.items():
            rank = sum(value < own for value in values) + (values.count(own) + 1) / 2
            found.setdefault(name, []).append(rank)
    return {name: float(np.mean(each)) for name, each in found.items()}


def text_of(setting: Setting, courses: Mapping[Run, Course]) -> str:
    """The table as Markdown, the best at the last mark first."""
    clocks = module_of(setting.table).CLOCKS
    tasks, seeds = len({run.task for run in courses}), len({run.seed for run in courses})
    columns = [f"{mark:g} {clock[:2]}." for clock in clocks for mark in setting.marks]
    lines = [
        f"mean normalized regret (standard error over {seeds} seeds), {tasks} tasks of {setting.table}, prior: "
        f"{setting.prior}, {setting.workers} workers; after so many full trainings' worth of {' | of '.join(clocks)}",
        "",
        "| search | " + " | ".join(columns) + " | rank | trials | ms an ask |",
        "|---|" + "--:|" * (len(columns) + 3),
    ]
    rows = table_of(setting, courses)
    for name, row in sorted(rows.items(), key=lambda entry: entry[1]["by_epochs"]["mean"][-1]):
        cells = [
            f"{mean:.3f} ({error:.3f})"
            for clock in clocks
            for mean, error in zip(row[f"by_{clock}"]["mean"], row[f"by_{clock}"]["standard_error"], strict=True)
        ]
        cells += [f"{row['rank']:.1f}", f"{row['trials']:.0f}", f"{row['ask_milliseconds']:.1f}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    cut = {name: row["unreached"] for name, row in rows.items() if row["unreached"]}
    if cut:
        counts = ", ".join(f"{name} {count}" for name, count in cut.items())
        lines += [
            "",
            f"Columns by seconds that show the regret at twice the budget's epochs, summed over runs: {counts}.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
