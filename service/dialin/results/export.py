"""Exports the best configuration as a specification file; running it trains that trial again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dialin.results.summary import BestTrial, Result
from dialin.search.records import TrialRecord
from dialin.specification import searched, to_block_yaml, to_data
from dialin.specification.domains import Fixed, Scalar
from dialin.specification.study_spec import SearchSpec, StudySpec

MOST_NAME = 64  # characters of a study's name
SUFFIX = "-best"  # `dialin show NAME` shows the newest study with a name; with the same name it would not be the search


def best_config(spec: StudySpec, record: TrialRecord, result: Result) -> str:
    """Return YAML with every knob fixed, the trial's seed and its budget; `dialin run FILE` reproduces the trial.

    Searched knobs come first, one per line. Parts that only a search needs are left out: configurations to try first,
    studies to learn from, a claim, a target. Raises ValueError for a trial that is not the best one of `result`.
    """
    best = result.best
    if best is None or best.trial != record.number:
        raise ValueError(f"trial {record.number} is not the best trial of study {result.study_id}")
    data = to_data(_reproduction(spec, record))
    return "".join([*_header(record, result, best), *_document(data, spec)])


def write_best_config(path: Path, spec: StudySpec, record: TrialRecord, result: Result) -> None:
    """Write `best_config` to the file atomically, so that a reader never sees half of it. Raises as that function."""
    partial = path.with_suffix(".partial")
    partial.write_text(best_config(spec, record, result), encoding="utf-8")
    partial.rename(path)


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
    yield (
        f"# Best of study {result.study_id}: trial {best.trial}, {result.metric} {best.value:.6g}, "
        f"epoch {best.epoch}.\n"
    )
    if result.test is not None:
        yield f"# On the test split ({result.test_count}): {_test_line(result.test)}.\n"
    yield "# Train it again: dialin run best_config.yaml\n"
    if record.continues is not None:
        yield (
            f"# The trial continued trial {record.continues} after epoch {record.began}, when trials were shorter. "
            "Trained without\n# that break it may reach another value.\n"
        )


def _document(data: Mapping[str, Any], spec: StudySpec) -> Iterator[str]:
    """The specification as YAML, its knobs in three groups."""
    before = {name: data[name] for name in ("version", "name", "objective")}
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


def _test_line(test: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in test.items())
