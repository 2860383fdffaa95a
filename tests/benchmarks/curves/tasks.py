"""A task of a table as `search_quality.py` simulates it: its space, what regret is measured against, and the prior that
a search is given."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dialin.specification import parse_spec, searched
from dialin.specification.domains import Choice, Domain, IntRange, Scalar, holds
from dialin.specification.study_spec import StudySpec
from tests.benchmarks.curves.base import Module
from tests.benchmarks.searchers.base import Problem

RANDOM_POINTS, KEPT, NEIGHBOURS = 4000, 20, 20


@dataclass(frozen=True)
class Task:
    """A task with what regret is measured against."""

    problem: Problem
    table: Any
    worst: float
    """The value that has regret 1."""
    best: float
    """The best value known, which has regret 0."""
    seconds: float
    """Of a full training, the mean over random configurations."""


def module_of(table: str) -> Module:
    return importlib.import_module(f"tests.benchmarks.curves.{table}")


def load_task(table: str, task: str, prior: str, seed: int) -> Task:
    """A task with a prior of that kind. The seed decides which random configurations the prior was found among."""
    module = module_of(table)
    text = f"name: benchmark\nobjective: {module.OBJECTIVE}\nspace:{module.space(task)}\n"
    spec = parse_spec(text)
    known = cached(f"{table} {task} known", text, lambda: _known(spec, module, task))
    centres = None
    if prior in ("good", "bad"):
        what = f"{table} {task} {prior} {seed}"
        centres = cached(what, text, lambda: _centres(spec, module, task, prior, seed))
    problem = Problem(_with_prior(text, centres, prior), module.epochs(task), centres)
    return Task(problem, module.load(task), *known)


def cached(what: str, text: str, make: Callable[[], Any]) -> Any:
    """What `make` gives, as JSON reads it, from a file in the folder of temporary files if it has been made before by
    the same sources for a space of the same text."""
    sources = "".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py")))
    name = hashlib.sha256(f"{what}\n{text}\n{sources}".encode()).hexdigest()[:32]
    path = Path(tempfile.gettempdir()) / f"dialin-search-quality-{os.getuid()}" / f"{name}.json"
    if not path.is_file():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps(make()))
        part.replace(path)
    return json.loads(path.read_text())


def configurations_at(spec: StudySpec, points: np.ndarray) -> list[dict[str, Scalar]]:
    """The configurations of points (n, knobs) of the unit cube: what `Encoding.decode` gives one by one, in a hundredth
    of the time. For spaces without fixed knobs and without steps."""
    names = searched(spec)
    columns = [_values(spec.space[name], units) for name, units in zip(names, points.T, strict=True)]
    conditions = [spec.space[name].when for name in names]
    found: list[dict[str, Scalar]] = []
    for values in zip(*columns, strict=True):
        params: dict[str, Scalar] = {}
        for name, when, value in zip(names, conditions, values, strict=True):
            if holds(when, params):
                params[name] = value
        found.append(params)
    return found


def _values(domain: Domain, units: np.ndarray) -> list[Scalar]:
    if isinstance(domain, Choice):
        return [
            domain.values[index] for index in (units * len(domain.values)).astype(int).clip(max=len(domain.values) - 1)
        ]
    whole = isinstance(domain, IntRange)
    low, high = (domain.low - 0.5, domain.high + 0.5) if whole else (domain.low, domain.high)
    values = low * (high / low) ** units if domain.log else low + (high - low) * units
    values = np.clip(np.round(values) if whole else values, domain.low, domain.high)
    return values.astype(int).tolist() if whole else values.tolist()


def _known(spec: StudySpec, module: Module, task: str) -> tuple[float, float, float]:
    """The worst and the best value known, and the mean seconds of a training: by random points, and steps around the
    best of them. The same for every searcher and seed."""
    generator, table = np.random.default_rng(0), module.load(task)

    def observe(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values, seconds = table.curves(configurations_at(spec, points))
        return values.max(axis=1), seconds[:, -1]

    points = generator.random((RANDOM_POINTS, len(searched(spec))))
    parts = [observe(part) for part in np.array_split(points, 8)]
    tops, seconds = np.concatenate([top for top, _ in parts]), np.concatenate([part for _, part in parts])
    worst, width = float(np.quantile(tops, module.WORST)), 0.15
    for _ in range(module.CLIMBS):
        order = np.argsort(-tops)[:KEPT]
        steps = np.repeat(points[order], NEIGHBOURS, 0)
        moved = generator.random(steps.shape) < np.resize(module.MOVED, len(steps))[:, None]
        steps = np.clip(steps + moved * generator.normal(0, width, steps.shape), 0, 1)
        points, tops = np.concatenate([points[order], steps]), np.concatenate([tops[order], observe(steps)[0]])
        width *= 0.8
    return worst, float(tops.max()), float(seconds.mean())


def _centres(spec: StudySpec, module: Module, task: str, kind: str, seed: int) -> dict[str, Scalar]:
    points = np.random.default_rng(seed).random((module.RANDOM_CONFIGURATIONS, len(searched(spec))))
    return module.centres(task, kind, seed, configurations_at(spec, points))


def _with_prior(text: str, centres: Mapping[str, Scalar] | None, kind: str) -> StudySpec:
    """The specification with the prior that the search is given, as far as the language has a section for it."""
    if "prior" not in StudySpec.model_fields or kind == "catalogue":
        return parse_spec(text)
    return parse_spec(text + f"prior: {'off' if centres is None else json.dumps(centres)}\n")
