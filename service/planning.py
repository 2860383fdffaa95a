"""A specification and a cluster become a plan: everything that can be decided before the first trial runs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from service.spec.study_spec import StudySpec


@dataclass(frozen=True)
class Resources:
    """What one trial may use. `gpus` may be a fraction; 0 means the CPU."""

    cpus: float = 1.0
    gpus: float = 0.0


@dataclass(frozen=True)
class ClusterShape:
    """What the trials may use in total."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Plan:
    """A study with everything decided.

    `rungs` are the epochs at which trials are compared, rising, below `spec.budget.epochs`; empty without ASHA.
    `likely_epochs` is the sum over all trials when each rung lets one in `reduction_factor` pass.
    """

    spec: StudySpec
    rungs: tuple[int, ...]
    concurrency: int
    resources: Resources
    most_epochs: int
    likely_epochs: int
