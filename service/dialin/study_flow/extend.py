"""Specifications of studies that build on stored ones: warm starts, resumed studies and extended budgets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from dialin.errors import ConflictError, NotFoundError, Problem, SpecError, UsageError
from dialin.lifecycle import StudyState
from dialin.planning.plan import rungs_for
from dialin.settings import Settings
from dialin.specification import spec_from_data, spec_of_study, to_data
from dialin.specification.study_spec import StudySpec
from dialin.store.studies import Studies, StudyRow


def resolve_warm_start(spec: StudySpec, settings: Settings) -> StudySpec:
    """Return the specification with ids in `search.warm_start`, in place of names of studies and `last`.

    A name may mean another study later, so that a resumed study would learn from different trials. Raises NotFoundError
    for an unknown study, and SpecError for one that optimized another metric or is still running.
    """
    if not spec.search.warm_start:
        return spec
    if not settings.has_database:
        raise NotFoundError(f"search.warm_start names studies to learn from, but {settings.out} has no studies")
    with Studies(settings.database) as studies:
        rows = [studies.find(reference) for reference in spec.search.warm_start]
    problems = [
        Problem(f"search.warm_start.{index}", text)
        for index, row in enumerate(rows)
        for text in _faults_of_warm_start(row, spec)
    ]
    if problems:
        raise SpecError(problems)
    search = spec.search.model_copy(update={"warm_start": [row.id for row in rows]})
    return spec.model_copy(update={"search": search})


def _faults_of_warm_start(row: StudyRow, spec: StudySpec) -> Iterator[str]:
    """Why a study cannot learn from a stored one."""
    theirs, ours = _names_of_metrics(spec_of_study(row.id, row.spec)), _names_of_metrics(spec)
    if theirs != ours:
        yield f"study {row.id} optimized {theirs}, this one optimizes {ours}; they must be the same"
    if row.state is StudyState.RUNNING:
        yield f"study {row.id} is still running; wait until it has ended"


def _names_of_metrics(spec: StudySpec) -> str:
    return ", ".join(metric.name for metric in spec.metrics)


def unfinished_spec(row: StudyRow, settings: Settings) -> StudySpec:
    """Return the specification of a study that can be resumed. Raises ConflictError for a study that is complete."""
    spec = spec_of_study(row.id, row.spec)
    if row.state is StudyState.COMPLETE:
        extend = settings.command(f"extend {row.id} --trials +10")
        raise ConflictError(f"study {row.id} is complete; add to its budget with: {extend}")
    return spec


def extended_spec(row: StudyRow, trials: str | None, epochs: str | None) -> StudySpec:
    """Return the specification of a stored study with a larger budget. Raises as `extend_budget`."""
    return extend_budget(spec_of_study(row.id, row.spec), trials, epochs)


def extend_budget(spec: StudySpec, trials: str | None, epochs: str | None) -> StudySpec:
    """Return the specification with a larger budget. `trials`, `epochs`: the new number, or `+N` to add N.

    Rungs stay where they are. When trials become longer, their old length becomes a rung, and further rungs follow by
    the reduction factor. Raises UsageError for a budget that is not larger.
    """
    if trials is None and epochs is None:
        raise UsageError("an extension needs --trials or --epochs: a larger number, or +N to add N")
    budget = spec.budget
    data = to_data(spec)
    data["budget"] = {
        **data.get("budget", {}),
        "trials": _larger("--trials", budget.trials, trials),
        "epochs": _larger("--epochs", budget.epochs, epochs),
    }
    asha = spec.early_stopping.asha
    if asha is not None:
        rungs = [*rungs_for(spec)]
        rung = float(budget.epochs)
        while data["budget"]["epochs"] > budget.epochs and (whole := math.ceil(rung - 1e-9)) < data["budget"]["epochs"]:
            rungs.append(whole)
            rung *= asha.reduction_factor
        stopping = data.setdefault("early_stopping", {})  # a section whose keys are all defaults is left out
        kept = {key: value for key, value in stopping.get("asha", {}).items() if key != "grace_epochs"}
        stopping["asha"] = {**kept, "rungs": rungs}
    return spec_from_data(data)


def _larger(option: str, now: int, wanted: str | None) -> int:
    if wanted is None:
        return now
    if not re.fullmatch(r"\+?[0-9]{1,7}", wanted):
        raise UsageError(f"{option} {wanted!r}: allowed are a whole number, or +N to add N")
    new = now + int(wanted) if wanted.startswith("+") else int(wanted)
    if new <= now:
        raise UsageError(f"{option} {wanted}: the study has {now} already; give a larger number, or +N to add N")
    return new
