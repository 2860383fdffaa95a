"""A specification and a cluster become a plan: everything that can be decided before the first trial runs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dialin.errors import Problem, SpecError
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import MOST_RUNGS, StudySpec


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
    `calibration`: what the range tests found, where the space asks for them and they have been run.
    `likely_epochs` is the sum over all trials when each rung lets one in `reduction_factor` pass.
    """

    spec: StudySpec
    rungs: tuple[int, ...]
    concurrency: int
    resources: Resources
    most_epochs: int
    likely_epochs: int
    calibration: Calibration | None = None

    @property
    def waits_at(self) -> tuple[int, ...]:
        """The rungs at which a trial may have to wait."""
        asha = self.spec.early_stopping.asha
        return self.rungs if asha is not None and asha.type == "promotion" else ()


def plan_study(spec: StudySpec, cluster: ClusterShape) -> Plan:
    """The plan of a study on a cluster. Raises SpecError when one trial needs more than there is, and for more than
    MOST_RUNGS."""
    rungs = rungs_for(spec)
    if len(rungs) > MOST_RUNGS:
        asha = spec.early_stopping.asha
        factor = f"{asha.reduction_factor:g}" if asha is not None else ""
        problem = f"{factor} makes {len(rungs)} rungs of {spec.budget.epochs} epochs; at most {MOST_RUNGS} are allowed"
        raise SpecError([Problem("early_stopping.asha.reduction_factor", problem)])
    resources, concurrency = _share(spec, cluster)
    return Plan(
        spec=spec,
        rungs=rungs,
        concurrency=concurrency,
        resources=resources,
        most_epochs=spec.budget.trials * spec.budget.epochs,
        likely_epochs=_likely_epochs(spec, rungs),
    )


def plan_elsewhere(spec: StudySpec, concurrency: int | None = None) -> Plan:
    """The plan of a study whose cluster is not known here, as that of a server.

    `concurrency`: how many of its trials run at a time, where that is known; else as many as it asks for.
    """
    rungs, asked = rungs_for(spec), spec.resources
    return Plan(
        spec=spec,
        rungs=rungs,
        concurrency=concurrency or min(spec.budget.trials, asked.concurrency or spec.budget.trials),
        resources=Resources(asked.cpus, asked.gpus or 0.0),
        most_epochs=spec.budget.trials * spec.budget.epochs,
        likely_epochs=_likely_epochs(spec, rungs),
    )


def rungs_for(spec: StudySpec) -> tuple[int, ...]:
    """The epochs at which a specification has its trials compared: as it names them, or from the grace on."""
    asha = spec.early_stopping.asha
    if asha is None:
        return ()
    if asha.rungs is not None:
        return tuple(asha.rungs)
    return rungs_of(spec.budget.epochs, grace_of(spec), asha.reduction_factor)


def grace_of(spec: StudySpec) -> int:
    """The first rung: as asked for, else a twelfth of a trial, which was the better choice on LCBench."""
    asha = spec.early_stopping.asha
    if asha is not None and asha.grace_epochs is not None:
        return asha.grace_epochs
    return max(1, round(spec.budget.epochs / 12))


def rungs_of(epochs: int, grace: int, reduction_factor: float) -> tuple[int, ...]:
    """grace, grace * factor, grace * factor^2, ... below `epochs`, as whole epochs, rising."""
    rungs: list[int] = []
    exact = float(grace)
    while (rung := math.ceil(exact - 1e-9)) < epochs:
        if not rungs or rung > rungs[-1]:
            rungs.append(rung)
        exact *= reduction_factor
    return tuple(rungs)


def _share(spec: StudySpec, cluster: ClusterShape) -> tuple[Resources, int]:
    """What a trial gets, and how many run at a time."""
    asked = spec.resources
    problems = [
        Problem(f"resources.{name}", f"a trial wants {wanted:g}, and there are {there:g}")
        for name, wanted, there in (("cpus", asked.cpus, cluster.cpus), ("gpus", asked.gpus or 0.0, cluster.gpus))
        if wanted > there
    ]
    if problems:
        raise SpecError(problems)
    most = min(spec.budget.trials, asked.concurrency or spec.budget.trials)
    fitting = min(most, int(cluster.cpus / asked.cpus + 1e-9))
    if asked.gpus is not None:
        gpus = asked.gpus
    elif cluster.gpus == 0 or spec.objective.subject == "synthetic":
        gpus = 0.0
    else:
        # As many trials a GPU as it takes to run those asked for; alone on a GPU when nothing was asked.
        per_gpu = math.ceil(fitting / cluster.gpus) if asked.concurrency is not None else 1
        gpus = math.floor(1e4 / per_gpu) / 1e4
    if gpus:
        fitting = min(fitting, _fitting_gpus(cluster.gpus, gpus))
    return Resources(asked.cpus, gpus), max(1, fitting)


def _fitting_gpus(there: float, wanted: float) -> int:
    # A fraction lies on one GPU; Ray does not split a trial over two.
    return int(there) * int(1 / wanted + 1e-9) if wanted < 1 else int(there / wanted + 1e-9)


def _likely_epochs(spec: StudySpec, rungs: tuple[int, ...]) -> int:
    """Each rung lets one in `reduction_factor` pass; the first trials at a rung always do, so this is a little low."""
    asha = spec.early_stopping.asha
    if asha is None:
        return spec.budget.trials * spec.budget.epochs
    total, share, before = 0.0, 1.0, 0
    for rung in (*rungs, spec.budget.epochs):
        total += share * (rung - before)
        share, before = share / asha.reduction_factor, rung
    return round(spec.budget.trials * total)
