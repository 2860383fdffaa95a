"""Plans: everything about a study that can be decided before its first trial. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dialin.errors import Problem, SpecError
from dialin.specification.range_tests import Calibration
from dialin.specification.study_spec import MOST_RUNGS, StudySpec


@dataclass(frozen=True)
class Resources:
    """What one trial may use."""

    cpus: float = 1.0
    """CPU cores."""
    gpus: float = 0.0
    """GPUs; a fraction means that several trials share a GPU, 0 that the trial trains on the CPU."""


@dataclass(frozen=True)
class ClusterShape:
    """What all trials together may use."""

    cpus: float
    """CPU cores of all machines."""
    gpus: float = 0.0
    """GPUs of all machines."""


@dataclass(frozen=True)
class Plan:
    """How a study will run on a cluster."""

    spec: StudySpec
    """The specification."""
    rungs: tuple[int, ...]
    """The epochs after which ASHA compares trials, in rising order, below `spec.budget.epochs`; empty without ASHA."""
    concurrency: int
    """How many trials run at a time."""
    resources: Resources
    """What each trial may use."""
    most_epochs: int
    """Epochs of all trials together if none is stopped early."""
    likely_epochs: int
    """Epochs of all trials together if each rung promotes one in `reduction_factor` of its trials."""
    calibration: Calibration | None = None
    """What the range tests found; None where the space asks for none, or before they have been run."""

    @property
    def waits_at(self) -> tuple[int, ...]:
        """The rungs at which a trial may be paused; empty for ASHA of type `stopping`, which never pauses trials."""
        asha = self.spec.early_stopping.asha
        return self.rungs if asha is not None and asha.type == "promotion" else ()


def plan_study(spec: StudySpec, cluster: ClusterShape) -> Plan:
    """Return the plan of a study on a cluster.

    Raises SpecError when one trial needs more than the cluster has, and for more than MOST_RUNGS rungs.
    """
    rungs = rungs_for(spec)
    if len(rungs) > MOST_RUNGS:
        asha = spec.early_stopping.asha
        factor = f"{asha.reduction_factor:g}" if asha is not None else ""
        problem = f"{factor} makes {len(rungs)} rungs of {spec.budget.epochs} epochs; at most {MOST_RUNGS} are allowed"
        raise SpecError([Problem("early_stopping.asha.reduction_factor", problem)])
    _check_fits(spec, cluster)
    resources, concurrency = _allocate(spec, cluster)
    return Plan(
        spec=spec,
        rungs=rungs,
        concurrency=concurrency,
        resources=resources,
        most_epochs=spec.budget.trials * spec.budget.epochs,
        likely_epochs=_likely_epochs(spec, rungs),
    )


def plan_elsewhere(spec: StudySpec, concurrency: int | None = None) -> Plan:
    """Return the plan of a study whose cluster is not known here, such as a study on a server.

    `concurrency`: how many of its trials run at a time; None if unknown, then as many as the specification asks for.
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
    """Return the epochs after which trials are compared; empty without ASHA.

    These are the rungs that the specification names, or else the geometric series that starts at the grace period
    (Li et al. 2020, ASHA).
    """
    asha = spec.early_stopping.asha
    if asha is None:
        return ()
    if asha.rungs is not None:
        return tuple(asha.rungs)
    return rungs_of(spec.budget.epochs, grace_of(spec), asha.reduction_factor)


def grace_of(spec: StudySpec) -> int:
    """Return the first rung: `grace_epochs`, or else a twelfth of a trial's epochs, which did best on LCBench."""
    asha = spec.early_stopping.asha
    if asha is not None and asha.grace_epochs is not None:
        return asha.grace_epochs
    return max(1, round(spec.budget.epochs / 12))


def rungs_of(epochs: int, grace: int, reduction_factor: float) -> tuple[int, ...]:
    """Return grace, grace * factor, grace * factor^2, ... below `epochs`, each rounded up to a whole epoch."""
    rungs: list[int] = []
    exact = float(grace)
    while (rung := math.ceil(exact - 1e-9)) < epochs:
        if not rungs or rung > rungs[-1]:
            rungs.append(rung)
        exact *= reduction_factor
    return tuple(rungs)


def _check_fits(spec: StudySpec, cluster: ClusterShape) -> None:
    """Raise SpecError when one trial needs more than the whole cluster has."""
    needs = (("cpus", spec.resources.cpus, cluster.cpus), ("gpus", spec.resources.gpus or 0.0, cluster.gpus))
    problems = [
        Problem(f"resources.{name}", f"a trial needs {needed:g}, and the cluster has {available:g}")
        for name, needed, available in needs
        if needed > available
    ]
    if problems:
        raise SpecError(problems)


def _allocate(spec: StudySpec, cluster: ClusterShape) -> tuple[Resources, int]:
    """The resources of a trial, and how many trials run at a time."""
    asked = spec.resources
    most = min(spec.budget.trials, asked.concurrency or spec.budget.trials)
    fitting = min(most, int(cluster.cpus / asked.cpus + 1e-9))
    if asked.gpus is not None:
        gpus = asked.gpus
    elif cluster.gpus == 0 or spec.objective.subject == "synthetic":
        gpus = 0.0
    else:
        # Trials share a GPU only if the specification asks for more concurrency than there are GPUs.
        per_gpu = math.ceil(fitting / cluster.gpus) if asked.concurrency is not None else 1
        gpus = math.floor(1e4 / per_gpu) / 1e4
    if gpus:
        fitting = min(fitting, _fitting_gpus(cluster.gpus, gpus))
    return Resources(asked.cpus, gpus), max(1, fitting)


def _fitting_gpus(available: float, needed: float) -> int:
    """How many trials fit on the GPUs."""
    # Ray places a fraction on one GPU and does not split it over two.
    return int(available) * int(1 / needed + 1e-9) if needed < 1 else int(available / needed + 1e-9)


def _likely_epochs(spec: StudySpec, rungs: tuple[int, ...]) -> int:
    """The expected number of epochs if each rung promotes one in `reduction_factor` of its trials.

    The estimate is a little low, because asynchronous rungs promote the first trials that reach them at any rank.
    """
    asha = spec.early_stopping.asha
    if asha is None:
        return spec.budget.trials * spec.budget.epochs
    epochs_per_trial, fraction, before = 0.0, 1.0, 0  # `fraction` of the trials reaches the next rung
    for rung in (*rungs, spec.budget.epochs):
        epochs_per_trial += fraction * (rung - before)
        fraction, before = fraction / asha.reduction_factor, rung
    return round(spec.budget.trials * epochs_per_trial)
