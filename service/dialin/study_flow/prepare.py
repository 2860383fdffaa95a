"""The first stage: plans a study and makes its data available. Nothing is stored yet."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from dialin import objectives
from dialin.objectives.base import Objective
from dialin.planning.plan import ClusterShape, Plan, plan_study
from dialin.settings import Settings
from dialin.specification.study_spec import StudySpec


@dataclass(frozen=True)
class Prepared:
    """A study that can start."""

    plan: Plan
    """Everything that can be decided before the first trial."""
    objective: Objective
    """What is tuned; its data is on this machine."""


def prepare(spec: StudySpec, settings: Settings, shape: ClusterShape, note: Callable[[str], None]) -> Prepared:
    """Plan a study for a cluster of this shape, and make its data available; `note` receives a line for a download.

    Raises SpecError when a trial needs more than the cluster has, and DataError for data that is not available.
    """
    plan = plan_study(spec, shape)
    objective = objectives.build(spec, settings.data_dir)
    if settings.out in settings.data_dir.parents:
        # Data that is prepared there would make the folder with the rights of any other, which are then taken from it.
        with suppress(OSError):
            settings.out.mkdir(mode=0o700, parents=True)
    objective.prepare(note)
    return Prepared(plan, objective)
