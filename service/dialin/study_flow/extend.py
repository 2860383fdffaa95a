"""What one study takes over from another, or from its own past: finished trials to learn from, and more budget."""

from __future__ import annotations

import math
import re

from dialin.errors import ConflictError, NotFoundError, Problem, SpecError, UsageError
from dialin.lifecycle import StudyState
from dialin.planning.plan import rungs_for
from dialin.settings import Settings
from dialin.specification import spec_from_data, spec_of_study, to_data
from dialin.specification.study_spec import StudySpec
from dialin.store.studies import Studies, StudyRow


def resolve_warm_start(spec: StudySpec, settings: Settings) -> StudySpec:
    """The specification with the ids of the studies that it wants to learn from, in place of names and `last`.

    Raises NotFoundError for one that is not known, SpecError for one that measured something else or still runs.
    """
    if not spec.search.warm_start:
        return spec
    if not settings.has_database:
        raise NotFoundError(f"search.warm_start: there is no study in {settings.out}")
    with Studies(settings.database) as studies:
        rows = [studies.find(reference) for reference in spec.search.warm_start]
    problems = []
    for index, row in enumerate(rows):
        path, measured = f"search.warm_start.{index}", spec_of_study(row.id, row.spec).objective.metric
        if measured != spec.objective.metric:
            problems.append(Problem(path, f"study {row.id} measured {measured}, this one {spec.objective.metric}"))
        if row.state is StudyState.RUNNING:
            problems.append(Problem(path, f"study {row.id} has not ended"))
    if problems:
        raise SpecError(problems)
    search = spec.search.model_copy(update={"warm_start": [row.id for row in rows]})
    return spec.model_copy(update={"search": search})


def unfinished_spec(row: StudyRow, settings: Settings) -> StudySpec:
    """The specification of a study that can be resumed. Raises ConflictError for a study that is complete."""
    spec = spec_of_study(row.id, row.spec)
    if row.state is StudyState.COMPLETE:
        extend = settings.command(f"extend {row.id} --trials +10")
        raise ConflictError(f"study {row.id} is complete; add to its budget with: {extend}")
    return spec


def extended_spec(row: StudyRow, trials: str | None, epochs: str | None) -> StudySpec:
    """The specification of a study with a larger budget. Raises as `extend_budget`."""
    return extend_budget(spec_of_study(row.id, row.spec), trials, epochs)


def extend_budget(spec: StudySpec, trials: str | None, epochs: str | None) -> StudySpec:
    """The specification with a larger budget: numbers, or `+N`.

    Rungs stay where they are, and the old length becomes one when trials get longer; the next ones follow by the
    reduction factor. Raises UsageError for a budget that is not a larger one.
    """
    if trials is None and epochs is None:
        raise UsageError("nothing to add: name --trials or --epochs")
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
        raise UsageError(f"{option} {wanted!r}: a whole number, or +N")
    new = now + int(wanted) if wanted.startswith("+") else int(wanted)
    if new <= now:
        raise UsageError(f"{option} {wanted}: the study has {now} already; name more, or +N")
    return new
