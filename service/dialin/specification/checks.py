"""What no section of a specification can see alone: the checks between sections."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

from dialin.errors import Problem, did_you_mean
from dialin.specification.domains import Choice, Fixed, allows
from dialin.specification.metrics import MEASURED, METRIC_NAME, VALIDATION
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.specification.writing import domain_data
from dialin.texts import show_value


def check_sections(spec: StudySpec) -> Iterator[Problem]:
    """Every contradiction between the sections of a specification, found as it is asked for."""
    return chain(
        _grid(spec), _claim(spec), _enqueued(spec), _rungs(spec), _grace(spec), _constraints(spec), _target(spec)
    )


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
    rungs, last = asha.rungs, spec.budget.epochs - 1
    if rungs != sorted(set(rungs)) or any(not 1 <= rung <= last for rung in rungs):
        yield Problem("early_stopping.asha.rungs", f"{rungs} are not rising whole numbers from 1 to {last}")


def _grace(spec: StudySpec) -> Iterator[Problem]:
    asha, epochs = spec.early_stopping.asha, spec.budget.epochs
    if asha is not None and asha.grace_epochs is not None and asha.grace_epochs > epochs:
        message = f"{asha.grace_epochs} is more than the {epochs} epochs of a trial (budget.epochs)"
        yield Problem("early_stopping.asha.grace_epochs", message)


def _constraints(spec: StudySpec) -> Iterator[Problem]:
    own = isinstance(spec.objective, PythonSpec)
    allowed = (*VALIDATION, *MEASURED)
    for name in spec.constraints:
        path = f"constraints.{name}"
        if not own and name not in allowed:
            yield Problem(path, f"{name!r} is not measured by a trial; {did_you_mean(name, allowed)}")
        elif own and not re.fullmatch(METRIC_NAME, name):
            yield Problem(path, f"{show_value(name)}; allowed: 1 to 64 letters, digits and _, no digit first")


def _target(spec: StudySpec) -> Iterator[Problem]:
    if spec.has_front and spec.budget.target is not None:
        message = "several metrics have no one value to reach; leave it out, or bound a metric in constraints"
        yield Problem("budget.target", message)
