"""An estimate of how long a running study still takes."""

from __future__ import annotations

from dialin.lifecycle import TRIAL_ENDED
from dialin.planning.plan import ClusterShape, plan_study
from dialin.planning.time_left import SETTLED_SECONDS, epochs_left
from dialin.server.trial_view import TrialView
from dialin.specification.study_spec import StudySpec

_ANY_CLUSTER = ClusterShape(cpus=1e6, gpus=1e6)  # the number of epochs does not depend on the cluster


def seconds_left(spec: StudySpec, view: TrialView, seconds: float, concurrency: int) -> float | None:
    """Seconds until the study has probably ended; None while too few epochs were trained for an estimate.

    `seconds`: how long it has been driven. An epoch is assumed to take as long as those so far took on average.
    """
    trained = sum(len(record.values) for record in view.records)
    if seconds < SETTLED_SECONDS or trained < max(4, 2 * concurrency):
        return None
    furthest = {record.number: record.epochs_done for record in view.records}
    ended = {record.number for record in view.records if record.state in TRIAL_ENDED}
    left = epochs_left(plan_study(spec, _ANY_CLUSTER), furthest, ended) * seconds / trained
    if spec.budget.hours is not None:
        left = min(left, max(0.0, spec.budget.hours * 3600 - seconds))
    return round(left, 1)
