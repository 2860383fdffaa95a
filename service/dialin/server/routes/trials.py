"""The paths of the API that are about the trials of a study."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query
from starlette.responses import PlainTextResponse

from dialin import schemas
from dialin.lifecycle import TrialState
from dialin.server.routes.dependencies import Cursor, StudyId, TrialNumber, Trials, caller_of, errors
from dialin.server.routes.studies import MOST_LINES
from dialin.server.services.trials import SORTS

Sort = Annotated[
    str,
    Query(
        max_length=80,
        description=f"{', '.join(SORTS)}; with several metrics or constraints also metrics.NAME, such as "
        "metrics.parameters; with a dash before it, such as -value, in reverse",
    ),
]

router = APIRouter(prefix="/studies/{study_id}/trials", dependencies=[Depends(caller_of)])


@router.get("", responses=errors(400, 404, 422), summary="Trials")
def list_trials(
    trials: Trials,
    study_id: StudyId,
    sort: Sort = "number",
    state: Annotated[list[TrialState] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Cursor = None,
) -> schemas.TrialPage:
    """A page of a study's trials."""
    return trials.list_page(study_id, sort=sort, states=state or (), limit=limit, cursor=cursor)


@router.get("/{number}", responses=errors(404, 422), summary="A trial")
def trial(trials: Trials, study_id: StudyId, number: TrialNumber) -> schemas.Trial:
    """One trial."""
    return trials.get(study_id, number)


@router.get(
    "/{number}/log",
    response_class=PlainTextResponse,
    responses=errors(404, 409, 422),
    summary="The last lines of a trial's output, with the traceback of one that failed",
)
def trial_log(
    trials: Trials,
    study_id: StudyId,
    number: TrialNumber,
    tail: Annotated[int, Query(ge=1, le=MOST_LINES)] = 1000,
) -> PlainTextResponse:
    """A trial's log."""
    return PlainTextResponse(trials.log(study_id, number, tail))
