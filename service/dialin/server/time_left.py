"""How long a study that runs will probably take still."""

from __future__ import annotations

from dialin.lifecycle import TRIAL_ENDED
from dialin.planning.plan import ClusterShape, plan_study
from dialin.planning.time_left import SETTLED_SECONDS, epochs_left
from dialin.server.trial_view import TrialView
from dialin.specification.study_spec import StudySpec

_ANY_CLUSTER = ClusterShape(cpus=1e6, gpus=1e6)  # of which the number of epochs does not depend


def seconds_left(spec: StudySpec, view: TrialView, seconds: float, concurrency: int) -> float | None:
    """The epochs that are probably left, each taking what the `seconds` of its drivers say an epoch took so far. None
    while too few epochs were trained to tell."""
    trained = sum(len(record.values) for record in view.records)
    if seconds < SETTLED_SECONDS or trained < max(4, 2 * concurrency):
        return None
    furthest = {record.number: record.epochs_done for record in view.records}
    ended = {record.number for record in view.records if record.state in TRIAL_ENDED}
    left = epochs_left(plan_study(spec, _ANY_CLUSTER), furthest, ended) * seconds / trained
    if spec.budget.hours is not None:
        left = min(left, max(0.0, spec.budget.hours * 3600 - seconds))
    return round(left, 1)
