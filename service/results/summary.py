"""What came out of a study: one record, and the JSON object that machines get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from service.search.ranking import best_of, peak_of
from service.search.records import State, TrialRecord
from service.spec.domains import Scalar
from service.spec.study_spec import StudySpec


@dataclass(frozen=True)
class Best:
    """The best configuration: its trial, its metric, the epoch that reached it, and every knob."""

    trial: int
    value: float
    epoch: int
    params: Mapping[str, Scalar]


@dataclass(frozen=True)
class Result:
    """A study's outcome. `test` is None while nothing was read from the test split; paths are absolute.

    `epochs` counts what was trained against what all trials at full length would have taken.
    """

    study_id: str
    state: str
    metric: str
    mode: str
    best: Best | None
    test: Mapping[str, float] | None
    trials: Mapping[str, int]
    epochs: Mapping[str, int]
    seconds: float
    paths: Mapping[str, str | None]
    reason: str = field(default="", compare=False)

    def to_data(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        data = asdict(self)
        data.pop("reason")
        data["best"] = None if self.best is None else {**asdict(self.best), "params": dict(self.best.params)}
        return data


def summarize(
    spec: StudySpec,
    study_id: str,
    state: str,
    records: Sequence[TrialRecord],
    *,
    test: Mapping[str, float] | None = None,
    seconds: float = 0.0,
    paths: Mapping[str, str | None] | None = None,
    reason: str = "",
) -> Result:
    """The outcome as the stored trials have it."""
    counts = Counter(record.state for record in records)
    ends = (State.COMPLETE, State.STOPPED, State.DIVERGED, State.FAILED)
    trained = sum(len(record.values) for record in records)
    return Result(
        study_id=study_id,
        state=state,
        metric=spec.objective.metric,
        mode=spec.objective.mode,
        best=find_best(spec, records),
        test=dict(test) if test is not None else None,
        trials={end.value: counts[end] for end in ends},
        epochs={"trained": trained, "full": sum(record.continues is None for record in records) * spec.budget.epochs},
        seconds=round(seconds, 3),
        paths=dict(paths or {}),
        reason=reason,
    )


def find_best(spec: StudySpec, records: Sequence[TrialRecord]) -> Best | None:
    """The best trial, as `service.search.ranking` has it: a complete one, else one that may become it. None while no
    trial that has not failed has a finite value."""
    record = best_of(records, spec.objective.mode)
    peak = peak_of(record.values, spec.objective.mode == "max") if record is not None else None
    if record is None or peak is None:
        return None
    return Best(record.number, peak.value, peak.epoch, dict(record.params))


def figure(value: float) -> str:
    """A metric's value to be read: four decimals, or four digits where those would say little."""
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.4g}"
