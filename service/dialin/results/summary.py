"""What came out of a study: one record, and the JSON object that machines get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dialin.lifecycle import TrialState
from dialin.planning.plan import rungs_for
from dialin.results.looks import Look, count_text, look_at
from dialin.search.ranking import best_of, peak_of
from dialin.search.records import TrialRecord
from dialin.specification.domains import Scalar
from dialin.specification.study_spec import StudySpec


@dataclass(frozen=True)
class Best:
    """The best configuration: its trial, its metric, the epoch that reached it, and every knob."""

    trial: int
    value: float
    epoch: int
    params: Mapping[str, Scalar]


@dataclass(frozen=True)
class Result:
    """A study's outcome. Paths are absolute. `looks`: every one at the test split, the first one first. `epochs`: see
    `count_epochs`.
    """

    study_id: str
    state: str
    metric: str
    mode: str
    best: Best | None
    looks: Sequence[Look]
    trials: Mapping[str, int]
    epochs: Mapping[str, float]
    seconds: float
    paths: Mapping[str, str | None]
    reason: str = field(default="", compare=False)

    @property
    def test(self) -> Mapping[str, float] | None:
        """The best trial's metrics on the test split; None while that was not read for this trial."""
        look = look_at(self.looks, self.best.trial) if self.best is not None else None
        return None if look is None else look.values

    @property
    def test_trial(self) -> int | None:
        """The trial that `test` belongs to: the best one, or None without a test."""
        return self.best.trial if self.best is not None and self.test is not None else None

    @property
    def test_count(self) -> str:
        """Which look at the test split `test` is, in words; empty without a test."""
        return "" if self.test_trial is None else count_text(self.looks, self.test_trial)

    def to_data(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "study_id": self.study_id,
            "state": self.state,
            "metric": self.metric,
            "mode": self.mode,
            "best": None if self.best is None else {**asdict(self.best), "params": dict(self.best.params)},
            **test_data(self),
            "trials": dict(self.trials),
            "epochs": dict(self.epochs),
            "seconds": self.seconds,
            "paths": dict(self.paths),
        }


def test_data(result: Result) -> dict[str, Any]:
    """What is known of the test split, for machines."""
    return {
        "test": None if result.test is None else dict(result.test),
        "test_trial": result.test_trial,
        "test_looks": [look.to_data() for look in result.looks],
    }


def summarize(
    spec: StudySpec,
    study_id: str,
    state: str,
    records: Sequence[TrialRecord],
    *,
    looks: Sequence[Look] = (),
    range_tests: float = 0.0,
    seconds: float = 0.0,
    paths: Mapping[str, str | None] | None = None,
    reason: str = "",
) -> Result:
    """The outcome as the stored trials have it. `range_tests`: epochs that range tests took."""
    counts = Counter(record.state for record in records)
    ends = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.DIVERGED, TrialState.FAILED)
    return Result(
        study_id=study_id,
        state=state,
        metric=spec.objective.metric,
        mode=spec.objective.mode,
        best=find_best(spec, records),
        looks=tuple(looks),
        trials={end.value: counts[end] for end in ends},
        epochs=count_epochs(spec, records, range_tests),
        seconds=round(seconds, 3),
        paths=dict(paths or {}),
        reason=reason,
    )


def count_epochs(spec: StudySpec, records: Sequence[TrialRecord], range_tests: float = 0.0) -> dict[str, float]:
    """Where the epochs of a study went.

    `trained`: epochs that trials have reported; `repeated`: trained again after a crash, from an older checkpoint;
    `range_tests`: what the learning rate's range tests took; `full`: what all trials at full length would take;
    `saved`: what trials that early stopping ended were spared; `saved_share`: of all that would have been spent without
    it, the part that was saved. A trial that diverged, failed, ended by itself or was interrupted saves nothing.
    """
    length = spec.budget.epochs
    trained, repeated = sum(len(record.values) for record in records), sum(record.repeated for record in records)
    saved = sum(max(0, length - record.epochs_done) for record in records if _was_stopped(spec, record))
    spent = trained + repeated + range_tests
    return {
        "trained": trained,
        "repeated": repeated,
        "range_tests": round(range_tests, 1),
        "full": sum(record.continues is None for record in records) * length,
        "saved": saved,
        "saved_share": round(saved / (spent + saved), 4) if saved else 0.0,
    }


def _was_stopped(spec: StudySpec, record: TrialRecord) -> bool:
    if record.state is not TrialState.STOPPED or spec.early_stopping.asha is None:
        return False
    if record.decision is None or record.decision.cause == "unknown":
        # An old row, which does not say who stopped the trial: early stopping does so at rungs alone.
        return record.epochs_done in rungs_for(spec)
    return record.decision.is_early_stop


def epochs_text(epochs: Mapping[str, float]) -> str:
    """How many epochs were trained of how many, what else was spent, and what early stopping saved."""
    beside = [
        f"{epochs[kind]:g} {words}"
        for kind, words in (("repeated", "repeated after a crash"), ("range_tests", "in range tests"))
        if epochs.get(kind)
    ]
    saved = [f"{epochs['saved_share']:.0%} saved by stopping early"] if epochs.get("saved") else []
    return ", ".join([f"{epochs['trained']:g} of {epochs['full']:g}", *(f"and {text}" for text in beside), *saved])


def find_best(spec: StudySpec, records: Sequence[TrialRecord]) -> Best | None:
    """The best trial, as `dialin.search.ranking` has it: a complete one, else one that may become it. None while no
    trial that has not failed has a finite value."""
    record = best_of(records, spec.objective.mode)
    peak = peak_of(record.values, spec.objective.mode == "max") if record is not None else None
    if record is None or peak is None:
        return None
    return Best(record.number, peak.value, peak.epoch, dict(record.params))
