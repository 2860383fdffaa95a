"""The best configuration as a file that is itself a specification: running it trains that one trial again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from service.results.summary import Result
from service.search.records import TrialRecord
from service.spec import to_yaml
from service.spec.domains import Fixed, Scalar
from service.spec.study_spec import StudySpec


def best_config(spec: StudySpec, record: TrialRecord, result: Result) -> str:
    """YAML with every knob fixed, the seed of the trial and its budget; `dialin run FILE` reproduces the trial."""
    best = result.best
    if best is None or best.trial != record.number:
        raise ValueError(f"trial {record.number} is not the best of {result.study_id}")
    reproduction = spec.model_copy(
        update={
            "search": spec.search.model_copy(update={"trial_seed": record.seed, "sampler": "random"}),
            "early_stopping": spec.early_stopping.model_copy(update={"asha": None}),
            "budget": spec.budget.model_copy(update={"trials": 1, "hours": None, "target": None}),
            "space": _fixed(best.params),
        }
    )
    lines = [
        f"# Best of study {result.study_id}: trial {best.trial}, {result.metric} {best.value:.6g}, epoch {best.epoch}."
    ]
    if result.test is not None:
        lines.append(f"# On the test split ({result.test_count}): {_test_line(result.test)}.")
    lines.append("# Train it again: dialin run best_config.yaml")
    return "\n".join(lines) + "\n" + to_yaml(reproduction)


def write_best_config(path: Path, spec: StudySpec, record: TrialRecord, result: Result) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(best_config(spec, record, result))
    partial.rename(path)


def _fixed(params: Mapping[str, Scalar]) -> dict[str, Fixed]:
    return {name: Fixed(value) for name, value in params.items()}


def _test_line(test: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in test.items())
