"""The paths of the API that are about studies."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Response, status
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse

from dialin import schemas
from dialin.lifecycle import StudyState
from dialin.server.routes.dependencies import (
    YAML,
    Auth,
    BundleDigest,
    Bundles,
    Caller,
    Cursor,
    Options,
    Spec,
    Studies,
    StudyId,
    Submission,
    caller_of,
    errors,
    read_body,
    spec_body,
)
from dialin.server.streaming import Listener, event_stream
from dialin.specification.code_bundle import MOST_BYTES as MOST_BUNDLE_BYTES

MOST_LINES = 10_000  # of a log
_ZIP_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_BEST_YAML = {"description": "The best configuration so far", "content": {YAML: {"schema": {"type": "string"}}}}
_STREAM = {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}
_SUBMITTED_BEFORE = {"model": schemas.Study, "description": "It was submitted before, with the same key"}
_ACTION: dict[str, Any] = {"status_code": 202, "responses": errors(400, 404, 409, 422)}

OnFront = Annotated[
    int | None, Query(ge=0, le=2**31 - 1, description="The trial of the Pareto front whose configuration is wanted.")
]

router = APIRouter(dependencies=[Depends(caller_of)])


@router.post(
    "/studies",
    status_code=status.HTTP_201_CREATED,
    responses={200: _SUBMITTED_BEFORE, **errors(400, 404, 409, 413, 422, 503)},
    openapi_extra=spec_body(),
    summary="Submit a study",
)
async def submit(
    caller: Caller,
    auth: Auth,
    submission: Submission,
    text: Spec,
    options: Options,
    response: Response,
) -> schemas.Study:
    """Put a study in the queue."""

    def submitted() -> tuple[schemas.Study, bool]:
        with auth.limit_planning(caller.name):
            return submission.submit(caller, text, priority=options.priority, key=options.key, bundle=options.bundle)

    study, is_new = await run_in_threadpool(submitted)
    response.status_code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    response.headers["Location"] = str(study.links.self)
    return study


@router.post(
    "/plan",
    responses=errors(400, 404, 413, 422, 503),
    openapi_extra=spec_body(),
    summary="Say what a specification would do; nothing is kept",
)
async def plan(
    caller: Caller, auth: Auth, submission: Submission, text: Spec, bundle: BundleDigest = None
) -> schemas.Plan:
    """What a specification would do."""

    def planned() -> schemas.Plan:
        with auth.limit_planning(caller.name):
            return submission.plan(text, bundle)

    return await run_in_threadpool(planned)


@router.post(
    "/bundles",
    status_code=status.HTTP_201_CREATED,
    responses=errors(413, 422),
    openapi_extra=_ZIP_BODY,
    summary="Send the files of a function of your own",
)
async def send_bundle(caller: Caller, bundles: Bundles, request: Request) -> schemas.Bundle:
    """Keep the files that a specification names."""
    data = await read_body(request, MOST_BUNDLE_BYTES)
    return await run_in_threadpool(bundles.receive, caller, data)


@router.get("/studies", responses=errors(400, 422), summary="Studies, newest first")
def list_studies(
    studies: Studies,
    state: Annotated[list[StudyState] | None, Query()] = None,
    name: Annotated[str | None, Query(max_length=64)] = None,
    owner: Annotated[str | None, Query(max_length=64)] = None,
    archived: bool = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
) -> schemas.StudyPage:
    """A page of studies."""
    return studies.list_page(states=state or (), name=name, owner=owner, archived=archived, limit=limit, cursor=cursor)


@router.get("/studies/{study_id}", responses=errors(404, 422), summary="A study")
def study(studies: Studies, study_id: StudyId) -> schemas.StudyInFull:
    """A study with what was found out about it."""
    return studies.in_full(study_id)


@router.get(
    "/studies/{study_id}/best",
    response_model=schemas.Best,
    responses={200: _BEST_YAML, **errors(400, 404, 409, 422)},
    summary="The best configuration so far, as JSON or as a specification that trains it again",
)
def best(studies: Studies, study_id: StudyId, request: Request, trial: OnFront = None) -> schemas.Best | Response:
    """The best configuration, in the format of the Accept header. With several metrics: that of the Pareto front which
    is best by the first one, unless `trial` names another."""
    if "yaml" in request.headers.get("accept", ""):
        return Response(studies.best_yaml(study_id, trial), media_type=YAML)
    return studies.best(study_id, trial)


@router.get(
    "/studies/{study_id}/curve",
    responses=errors(404, 422),
    summary="The best value so far over trials, epochs and time; of several metrics the hypervolume",
)
def curve(studies: Studies, study_id: StudyId) -> schemas.BestCurve:
    """How the best value grew."""
    return studies.curve(study_id)


@router.get(
    "/studies/{study_id}/logs",
    response_class=PlainTextResponse,
    responses=errors(404, 422),
    summary="The last lines of the driver's log",
)
def driver_log(
    studies: Studies, study_id: StudyId, tail: Annotated[int, Query(ge=1, le=MOST_LINES)] = 200
) -> PlainTextResponse:
    """The driver's log."""
    return PlainTextResponse(studies.driver_log(study_id, tail))


@router.get(
    "/studies/{study_id}/events",
    response_class=StreamingResponse,
    responses={200: _STREAM, **errors(404, 422)},
    summary="What happens in a study, as it happens: trials, reports, and each decision with its reason",
)
async def events(
    caller: Caller,
    auth: Auth,
    studies: Studies,
    study_id: StudyId,
    request: Request,
    tail: Annotated[bool, Query(description="Only what happens from now on.")] = False,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    """The study's event log as server-sent events, until the study has ended. The data of each is a JSON object with
    `time` in seconds since 1970; its id, sent back as `Last-Event-ID`, continues the stream behind it.

    - `trial_started`: `trial`, `params`, `epochs` (trained before)
    - `epoch`: `trial`, `epoch`, `value` (of the study's metric; null where it is not finite); with several metrics or
      constraints also `others` (the further metrics and what is bounded, by name)
    - `decision`: `trial`, `epoch`, `stop`, `reason` (a sentence), and the fields that it is made of: `action`, `cause`,
      and as far as they apply `metric`, `value`, `rung`, `rank`, `of`, `quota`, `cutoff`, `finding`, `detail`
    - `trial_ended`: `trial`, `state` (`waiting` if it is paused), `reason`
    - `note`: `text`
    - `study`: the study as `GET /studies/{study_id}` lists it in short, when its state changes, and at the end
    """
    listener = Listener(caller, lambda: auth.is_still_valid(request, caller))
    return await event_stream(studies, request, listener, auth.streams, study_id, last=last, tail=tail)


@router.post("/studies/{study_id}/stop", **_ACTION, summary="Stop a study; it can be resumed later")
def stop(caller: Caller, submission: Submission, study_id: StudyId) -> schemas.Study:
    """Ask for the study's end."""
    return submission.stop(caller, study_id)


@router.post("/studies/{study_id}/resume", **_ACTION, summary="Resume a study that was stopped or has failed")
def resume(caller: Caller, submission: Submission, study_id: StudyId) -> schemas.Study:
    """Put the study in the queue again."""
    return submission.resume(caller, study_id)


@router.post("/studies/{study_id}/extend", **_ACTION, summary="Add to the budget of a study that has ended")
def extend(
    caller: Caller, submission: Submission, study_id: StudyId, more: Annotated[schemas.Extension, Body()]
) -> schemas.Study:
    """Put the study in the queue again, with a larger budget."""
    trials = None if more.trials is None else str(more.trials)
    epochs = None if more.epochs is None else str(more.epochs)
    return submission.extend(caller, study_id, trials, epochs)


@router.delete(
    "/studies/{study_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(404, 409, 422),
    summary="Archive a study that has ended",
)
def archive(caller: Caller, submission: Submission, study_id: StudyId) -> Response:
    """Take the study off the list."""
    submission.archive(caller, study_id)
    return Response(status_code=status.HTTP_204_NO_CONTENT)
