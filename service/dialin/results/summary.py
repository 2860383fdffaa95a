"""The result of a study, computed from its stored trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dialin.lifecycle import TRIAL_ENDED, TrialState
from dialin.planning.plan import rungs_for
from dialin.results.looks import Look, count_text, look_at
from dialin.search.front import PlacedTrial, front_of
from dialin.search.goals import Goals
from dialin.search.incumbent import incumbent_of
from dialin.search.records import TrialRecord
from dialin.specification.domains import Scalar
from dialin.specification.metrics import Metric
from dialin.specification.study_spec import StudySpec
from dialin.texts import metric_text


@dataclass(frozen=True)
class BestTrial:
    """The best trial of a study."""

    trial: int
    """The trial's number."""
    value: float
    """The metric at its best epoch; with several metrics the first one."""
    epoch: int
    """The first epoch that reached this value."""
    params: Mapping[str, Scalar]
    """Every active knob, including those at their defaults."""
    values: Mapping[str, float] = field(default_factory=dict)
    """With several metrics: all of them after that epoch, by name; empty with one."""
    bounded: Mapping[str, float] = field(default_factory=dict)
    """What the study's constraints bound, after that epoch, by name; empty without constraints."""
    expected: float | None = None
    """What the metric is expected to be: `value` without the luck that noise explains (`dialin.search.incumbent`). None
    while no trial is complete, for few epochs, and for several metrics."""

    def value_text(self) -> str:
        """Return the metric as people read it: "0.9738 expected (0.9826 at its luckiest epoch, 7)"; the value alone
        where nothing else is expected."""
        return expected_text(self.value, self.epoch, self.expected)

    def to_data(self) -> dict[str, Any]:
        """Return plain data; what is empty is left out."""
        several = {name: dict(found) for name in ("values", "bounded") if (found := getattr(self, name))}
        return {
            "trial": self.trial,
            "value": self.value,
            "epoch": self.epoch,
            "params": dict(self.params),
            "expected": self.expected,
            **several,
        }


def is_lucky(value: float, expected: float | None) -> bool:
    """Whether another value is expected than the observed one, with the digits that people see."""
    return expected is not None and metric_text(expected) != metric_text(value)


def expected_text(value: float, epoch: int, expected: float | None) -> str:
    """Return `BestTrial.value_text` of these fields."""
    observed = metric_text(value)
    if not is_lucky(value, expected):
        return observed
    return f"{metric_text(expected)} expected ({observed} at its luckiest epoch, {epoch})"


@dataclass(frozen=True)
class Result:
    """The result of a study, so far or at its end."""

    study_id: str
    """The study's id."""
    state: str
    """The state of the study, as in `dialin.lifecycle.StudyState`."""
    metric: str
    """The metric that is optimized."""
    mode: str
    """"max" or "min"."""
    best: BestTrial | None
    """The best trial that has not failed; None while none has a finite value, or none meets the constraints. With
    several metrics: that of the Pareto front which is best by the first one."""
    looks: Sequence[Look]
    """Every look at the test split, oldest first."""
    trials: Mapping[str, int]
    """How many trials have ended in each state."""
    epochs: Mapping[str, float]
    """Where the epochs went; see `count_epochs`."""
    seconds: float
    """How long drivers have worked on the study."""
    paths: Mapping[str, str | None] = field(default_factory=dict)
    """Absolute paths: `best_config`, `mlflow` (or a server's address), `storage`; None where there is no such file.
    With several metrics `pareto`, the folder of the Pareto front's configurations, in place of `best_config`."""
    reason: str = field(default="", compare=False)
    """Why the study ended; empty for a study that used up its budget."""
    metrics: Sequence[Metric] = ()
    """What is optimized: one metric, or several."""
    front: Sequence[BestTrial] = ()
    """With several metrics: the Pareto front, from the best by the first metric to the worst; empty with one."""

    @property
    def test(self) -> Mapping[str, float] | None:
        """The best trial's metrics on the test split; None if it has not been evaluated there."""
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
        """Return the data that is stored with the study."""
        return {
            "study_id": self.study_id,
            "state": self.state,
            "metric": self.metric,
            "mode": self.mode,
            "best": None if self.best is None else self.best.to_data(),
            **({"front": [one.to_data() for one in self.front]} if self.front else {}),
            "test": None if self.test is None else dict(self.test),
            "test_trial": self.test_trial,
            "test_looks": [look.to_data() for look in self.looks],
            "trials": dict(self.trials),
            "epochs": dict(self.epochs),
            "seconds": self.seconds,
            "paths": dict(self.paths),
        }


@dataclass(frozen=True)
class Spent:
    """What a study has cost beside the epochs of its trials."""

    range_tests: float = 0.0
    """The cost of its range tests, in epochs of training."""
    seconds: float = 0.0
    """How long drivers have worked on it."""


def summarize(
    spec: StudySpec,
    study_id: str,
    state: str,
    records: Sequence[TrialRecord],
    *,
    looks: Sequence[Look] = (),
    spent: Spent | None = None,
    luckiest: bool = False,
) -> Result:
    """Return the result of a study from its stored trials, without `paths` and `reason`.

    `spent`: None for a study that has spent nothing else. `luckiest`: the best trial is chosen as in older versions,
    see `is_of_luckiest`.
    """
    spent = spent or Spent()
    counts = Counter(record.state for record in records)
    front = find_front(spec, records, luckiest=luckiest)
    return Result(
        study_id=study_id,
        state=state,
        metric=spec.objective.metric,
        mode=spec.objective.mode,
        best=front[0] if front else None,
        looks=tuple(looks),
        trials={end.value: counts[end] for end in TRIAL_ENDED},
        epochs=count_epochs(spec, records, spent.range_tests),
        seconds=round(spent.seconds, 3),
        metrics=spec.metrics,
        front=front if spec.has_front else (),
    )


def count_epochs(spec: StudySpec, records: Sequence[TrialRecord], range_tests: float = 0.0) -> dict[str, float]:
    """Return how many epochs a study spent on what.

    - `trained`: epochs that trials have reported
    - `repeated`: epochs that were trained again after a crash, from an older checkpoint
    - `range_tests`: cost of the range tests in epochs
    - `full`: epochs of all trials at their full length
    - `saved`: epochs that trials did not train because early stopping ended them; a trial that diverged, failed, ended
      by itself or was interrupted saves nothing
    - `saved_share`: `saved` as a fraction of the epochs that the study would have spent without early stopping
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
        # A row of an older version does not say what stopped the trial. Early stopping stops trials at rungs only.
        return record.epochs_done in rungs_for(spec)
    return record.decision.is_early_stop


def epochs_text(epochs: Mapping[str, float]) -> str:
    """Return `count_epochs` as a phrase: "324 of 540, and 6 in range tests, 40% saved by stopping early"."""
    extra = [
        f"{epochs[kind]:g} {words}"
        for kind, words in (("repeated", "repeated after a crash"), ("range_tests", "in range tests"))
        if epochs.get(kind)
    ]
    saved = [f"{epochs['saved_share']:.0%} saved by stopping early"] if epochs.get("saved") else []
    return ", ".join([f"{epochs['trained']:g} of {epochs['full']:g}", *(f"and {text}" for text in extra), *saved])


def is_of_luckiest(summary: Mapping[str, Any]) -> bool:
    """Whether a stored summary is of a version that took the trial with the best value of any epoch. Its answer stays
    until the study is extended: the file of its best configuration and its test score belong to that trial."""
    best = summary.get("best")
    return best is not None and "expected" not in best


def find_best(spec: StudySpec, records: Sequence[TrialRecord], *, luckiest: bool = False) -> BestTrial | None:
    """Return the best trial by `dialin.search.incumbent`: a complete one, or while there is none, the best of the
    others. `luckiest`: as in older versions, see `is_of_luckiest`.

    Failed trials do not count. None while no trial has a finite value, or none meets the constraints.
    """
    front = find_front(spec, records, luckiest=luckiest)
    return front[0] if front else None


def find_front(spec: StudySpec, records: Sequence[TrialRecord], *, luckiest: bool = False) -> tuple[BestTrial, ...]:
    """Return the Pareto front, from the best by the first metric to the worst; with one metric the best trial alone.

    Of the complete trials, or while there is none, of the others that have not failed. Empty where there is none.
    """
    goals = Goals.of(spec)
    if not goals.is_single:
        return tuple(_of_point(one, goals) for one in front_of(records, goals))
    found = incumbent_of(records, spec, luckiest=luckiest)
    if found is None:
        return ()
    return (BestTrial(found.record.number, *found.peak, dict(found.record.params), expected=found.expected),)


def _of_point(placed: PlacedTrial, goals: Goals) -> BestTrial:
    record, point = placed.record, placed.point
    values = {metric.name: value for metric, value in zip(goals.metrics, point.values, strict=True)}
    return BestTrial(
        record.number,
        point.values[0],
        point.epoch,
        dict(record.params),
        values if len(values) > 1 else {},
        dict(point.bounded),
    )
