"""What no section of a specification can see alone: the checks between sections."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from dialin.errors import Problem, did_you_mean
from dialin.specification.domains import Choice, Fixed, allows
from dialin.specification.study_spec import LEAST_SHARE, ObjectiveSpec, StudySpec
from dialin.specification.writing import domain_data
from dialin.texts import show_value

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "synthetic")
PATH_PREFIXES = ("npz:", "folder:")


def check_sections(spec: StudySpec) -> Iterator[Problem]:
    """Every contradiction between the sections of a specification, found as it is asked for."""
    return chain(_objective(spec), _grid(spec), _claim(spec), _enqueued(spec), _rungs(spec), _gpus(spec), _grace(spec))


def _objective(spec: StudySpec) -> Iterator[Problem]:
    objective = spec.objective
    if not isinstance(objective, ObjectiveSpec):
        return
    prefix = next((prefix for prefix in PATH_PREFIXES if objective.dataset.startswith(prefix)), None)
    if prefix is None and objective.dataset not in DATASETS:
        near = did_you_mean(objective.dataset, (*DATASETS, "npz:PATH", "folder:PATH"))
        yield Problem("objective.dataset", f"unknown data set {objective.dataset!r}; {near}")
    elif objective.dataset == prefix:
        yield Problem("objective.dataset", f"{objective.dataset!r} names no path after {prefix!r}")
    wanted = "min" if objective.metric == "val_loss" else "max"
    if objective.mode != wanted:
        yield Problem("objective.mode", f"{objective.mode!r} of {objective.metric} finds the worst; use {wanted!r}")


def _grid(spec: StudySpec) -> Iterator[Problem]:
    if spec.search.sampler != "grid":
        return
    for name, domain in spec.space.items():
        if not isinstance(domain, Fixed | Choice):
            yield Problem(f"space.{name}", "a grid takes values and lists; this is a range")


def _claim(spec: StudySpec) -> Iterator[Problem]:
    for side in ("better", "than"):
        for name in getattr(spec.claim, side, {}):
            if name not in spec.space:
                near = did_you_mean(name, spec.space)
                yield Problem(f"claim.{side}.{name}", f"{name!r} is not a knob of this space; {near}")


def _enqueued(spec: StudySpec) -> Iterator[Problem]:
    for index, configuration in enumerate(spec.search.enqueue):
        for name, value in configuration.items():
            path = f"search.enqueue.{index}.{name}"
            if name not in spec.space:
                yield Problem(path, f"no knob of this space; {did_you_mean(name, spec.space)}")
            elif not allows(spec.space[name], value):
                values = show_value(domain_data(spec.space[name]))
                yield Problem(path, f"{show_value(value)} is not one of its values: {values}")


def _rungs(spec: StudySpec) -> Iterator[Problem]:
    asha = spec.early_stopping.asha
    if asha is None or asha.rungs is None:
        return
    path, rungs = "early_stopping.asha.rungs", asha.rungs
    if asha.grace_epochs is not None:
        yield Problem(path, "grace_epochs says where the rungs begin; name either")
    if rungs != sorted(set(rungs)) or any(not 1 <= rung < spec.budget.epochs for rung in rungs):
        yield Problem(path, f"{rungs} are not rising whole numbers from 1 to {spec.budget.epochs - 1}")


def _gpus(spec: StudySpec) -> Iterator[Problem]:
    gpus = spec.resources.gpus
    if gpus is not None and 0 < gpus < LEAST_SHARE:
        yield Problem("resources.gpus", f"{gpus:g} is below {LEAST_SHARE:g}, the least share")
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        yield Problem("resources.gpus", f"{gpus:g} is neither a share of one GPU nor a whole number of them")


def _grace(spec: StudySpec) -> Iterator[Problem]:
    asha, epochs = spec.early_stopping.asha, spec.budget.epochs
    if asha is not None and asha.grace_epochs is not None and asha.grace_epochs > epochs:
        message = f"{asha.grace_epochs} is more than the {epochs} epochs of a trial (budget.epochs)"
        yield Problem("early_stopping.asha.grace_epochs", message)
