"""Exports the best configuration as a specification file; running it trains that trial again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dialin.results.looks import look_at
from dialin.results.summary import BestTrial, Result, is_lucky
from dialin.search.records import TrialRecord
from dialin.specification import searched, to_block_yaml, to_data
from dialin.specification.domains import Fixed, Scalar
from dialin.specification.study_spec import SearchSpec, StudySpec

MOST_NAME = 64  # characters of a study's name
PARETO_INDEX = "index.yaml"
"""The file of a folder with a Pareto front that lists its points."""
SUFFIX = "-best"  # `dialin show NAME` shows the newest study with a name; with the same name it would not be the search


def best_config(spec: StudySpec, record: TrialRecord, result: Result) -> str:
    """Return YAML with every knob fixed, the trial's seed and its budget; `dialin run FILE` reproduces the trial.

    Searched knobs come first, one per line. Parts that only a search needs are left out: configurations to try first,
    studies to learn from, a claim, a target. Raises ValueError for a trial that is not the best one of `result`, nor on
    its Pareto front.
    """
    best = next((one for one in (result.best, *result.front) if one is not None and one.trial == record.number), None)
    if best is None:
        which = "on the Pareto front" if result.front else "the best trial"
        raise ValueError(f"trial {record.number} is not {which} of study {result.study_id}")
    data = to_data(_reproduction(spec, record))
    return "".join([*_header(record, result, best), *_document(data, spec)])


def write_best_config(path: Path, spec: StudySpec, record: TrialRecord, result: Result) -> None:
    """Write `best_config` to the file atomically, so that a reader never sees half of it. Raises as that function."""
    partial = path.with_suffix(".partial")
    partial.write_text(best_config(spec, record, result), encoding="utf-8")
    partial.rename(path)


def write_pareto(folder: Path, spec: StudySpec, records: Sequence[TrialRecord], result: Result) -> None:
    """Write a folder with a configuration for each point of the Pareto front, as `best_config` makes it, and
    `index.yaml`, which lists them from the best by the first metric on. It replaces an earlier one as a whole."""
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for point in result.front:
        text = best_config(spec, records[point.trial], result)
        (partial / pareto_file(point.trial)).write_text(text, encoding="utf-8")
    index = {
        "metrics": [{"name": metric.name, "mode": metric.mode} for metric in result.metrics],
        "points": [{**_point_data(point, result), "file": pareto_file(point.trial)} for point in result.front],
    }
    head = f"# The Pareto front of study {result.study_id}, the best by {result.metric} first.\n"
    (partial / PARETO_INDEX).write_text(head + to_block_yaml(index), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def pareto_file(trial: int) -> str:
    """Return the name of a point's file in the folder of the front."""
    return f"trial-{trial:04d}.yaml"


def _point_data(point: BestTrial, result: Result) -> dict[str, Any]:
    look = look_at(result.looks, point.trial)
    found = {"values": dict(point.values), "bounded": dict(point.bounded), "test": dict(look.values) if look else {}}
    return {
        "trial": point.trial,
        "epoch": point.epoch,
        **{name: values for name, values in found.items() if values},
    }


def _reproduction(spec: StudySpec, record: TrialRecord) -> StudySpec:
    return spec.model_copy(
        update={
            "name": spec.name if spec.name.endswith(SUFFIX) else spec.name[: MOST_NAME - len(SUFFIX)] + SUFFIX,
            "search": SearchSpec(sampler="random", seed=spec.search.seed, trial_seed=record.seed),
            "early_stopping": spec.early_stopping.model_copy(update={"asha": None}),
            "budget": spec.budget.model_copy(update={"trials": 1, "hours": None, "target": None}),
            "space": _fixed(record.params),
            "claim": None,
        }
    )


def _fixed(params: Mapping[str, Scalar]) -> dict[str, Fixed]:
    return {name: Fixed(value) for name, value in params.items()}


def _header(record: TrialRecord, result: Result, best: BestTrial) -> Iterator[str]:
    which = "On the Pareto front of" if result.front else "Best of"
    values = best.values or {result.metric: best.value}
    yield f"# {which} study {result.study_id}: trial {best.trial}, {_values_text(values)}, epoch {best.epoch}.\n"
    if is_lucky(best.value, best.expected):
        yield f"# Of the complete trials it has the best estimate: {result.metric} {best.value_text()}.\n"
    if bounded := {name: value for name, value in best.bounded.items() if name not in values}:
        yield f"# Under constraints: {_values_text(bounded)}.\n"
    look = look_at(result.looks, best.trial)
    if look is not None:
        yield f"# On the test split ({_count_text(result)}): {_values_text(look.values)}.\n"
    file = pareto_file(best.trial) if result.front else "best_config.yaml"
    yield f"# Train it again: dialin run {file}\n"
    if record.continues is not None:
        yield (
            f"# The trial continued trial {record.continues} after epoch {record.began}, when trials were shorter. "
            "Trained without\n# that break it may reach another value.\n"
        )


def _count_text(result: Result) -> str:
    """How often the test split was looked at: of a point of a front, that it is one of several."""
    return f"one of {len(result.looks)} trials evaluated there" if result.front else result.test_count


def _document(data: Mapping[str, Any], spec: StudySpec) -> Iterator[str]:
    """The specification as YAML, its knobs in three groups."""
    before = {name: data[name] for name in ("version", "name", "objective", "constraints") if name in data}
    yield to_block_yaml(before)
    yield "space:\n"
    for title, knobs in _groups(data["space"], spec).items():
        if knobs:
            yield f"  # {title}\n"
            yield _indented(to_block_yaml(knobs))
    yield to_block_yaml({name: value for name, value in data.items() if name not in (*before, "space")})


def _groups(space: Mapping[str, Any], spec: StudySpec) -> dict[str, dict[str, Any]]:
    """The knobs of the exported space by where their values come from."""
    chosen: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    default: dict[str, Any] = {}
    moved = set(searched(spec))
    for name, domain in space.items():
        group = chosen if name in moved else fixed if name in spec.space else default
        group[name] = domain
    return {"what the search chose": chosen, "fixed in the study's specification": fixed, "at their defaults": default}


def _indented(text: str) -> str:
    return "".join(f"  {line}" for line in text.splitlines(keepends=True))


def _values_text(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in values.items())
