"""The paths of the API that are about studies."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from dialin import schemas as models
from dialin.errors import TooLargeError, UsageError
from dialin.server.auth import Gate
from dialin.server.streaming import Listener, event_stream
from dialin.server.studies import StudyService
from dialin.specification.code_bundle import MOST_BYTES as MOST_BUNDLE_BYTES
from dialin.specification.yaml_reader import MAX_BYTES
from dialin.store.tokens import Identity

YAML = "application/yaml"
MOST_LINES = 10_000
_SPEC_TYPES = (YAML, "text/yaml", "application/json", "text/plain")
_SPEC_BODY = {
    "requestBody": {
        "required": True,
        "description": "A specification, in YAML or JSON.",
        "content": {
            kind: {"schema": {"type": "object" if kind.endswith("json") else "string"}, "example": example}
            for kind, example in (
                (YAML, models.EXAMPLE_SPEC),
                (
                    "application/json",
                    {
                        "name": "digits-small",
                        "objective": {"dataset": "digits"},
                        "space": {"lr": {"min": 0.001, "max": 1.0, "log": True}},
                    },
                ),
            )
        },
    }
}
_ZIP_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def identity_of(request: Request) -> Identity:
    """Who asks; every path depends on it."""
    who: Identity = request.app.state.parts.gate.admit(request)
    return who


def service_of(request: Request) -> StudyService:
    service: StudyService = request.app.state.parts.service
    return service


def gate_of(request: Request) -> Gate:
    gate: Gate = request.app.state.parts.gate
    return gate


Who = Annotated[Identity, Depends(identity_of)]
Admission = Annotated[Gate, Depends(gate_of)]
Service = Annotated[StudyService, Depends(service_of)]
BundleDigest = Annotated[str | None, Query(max_length=64, description="Files that were sent before, by their digest.")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=128)]
Sort = Annotated[
    str, Query(max_length=20, description="number, value, epochs, state, started_at, ended_at; -value for downwards")
]
StudyId = Annotated[str, Path(max_length=96, examples=["digits-small-4f7k2m"])]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before.")]


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of the errors that a path can answer with, besides those that every path can."""
    described = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": "A problem", "content": described} for status in sorted({*statuses, 401, 403, 429})}


async def body_of(request: Request, most: int) -> bytes:
    """The body of a request. Raises TooLargeError before more than `most` bytes were read."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise TooLargeError(f"{int(declared)} bytes were sent; at most {most} are taken")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise TooLargeError(f"more than {most} bytes were sent; at most so many are taken")
    return bytes(data)


async def spec_of(request: Request) -> bytes:
    kind = request.headers.get("content-type", YAML).partition(";")[0].strip().lower()
    if kind and kind not in _SPEC_TYPES:
        raise UsageError(f"content type {kind[:80]!r}; allowed: {', '.join(_SPEC_TYPES)}")
    return await body_of(request, MAX_BYTES)


Spec = Annotated[bytes, Depends(spec_of)]
router = APIRouter(dependencies=[Depends(identity_of)])


@router.post(
    "/studies",
    status_code=201,
    response_model=models.Study,
    responses={
        200: {"model": models.Study, "description": "It was submitted before"},
        **errors(400, 404, 409, 413, 422, 503),
    },
    openapi_extra=_SPEC_BODY,
    summary="Submit a study",
)
async def submit(
    identity: Who,
    gate: Admission,
    service: Service,
    text: Spec,
    priority: Annotated[int, Query(ge=-100, le=100)] = 0,
    bundle: BundleDigest = None,
    key: Key = None,
) -> Response:
    if key is not None and not key.isprintable():
        raise UsageError("Idempotency-Key: printable characters only")

    def submitted() -> tuple[dict[str, Any], bool]:
        with gate.planning(identity.name):
            return service.submit(identity, text, priority=priority, key=key, bundle=bundle)

    study, is_new = await run_in_threadpool(submitted)
    return JSONResponse(study, 201 if is_new else 200, {"Location": study["links"]["self"]})


@router.post(
    "/plan",
    response_model=models.PlanDocument,
    responses=errors(400, 404, 413, 422, 503),
    openapi_extra=_SPEC_BODY,
    summary="Say what a specification would do; nothing is kept",
)
async def plan(identity: Who, gate: Admission, service: Service, text: Spec, bundle: BundleDigest = None) -> Response:
    def planned() -> dict[str, Any]:
        with gate.planning(identity.name):
            return service.plan(text, bundle)

    return JSONResponse(await run_in_threadpool(planned))


@router.post(
    "/bundles",
    status_code=201,
    response_model=models.Bundle,
    responses=errors(413, 422),
    openapi_extra=_ZIP_BODY,
    summary="Send the files of a function of one's own",
)
async def bundle(identity: Who, service: Service, request: Request) -> Response:
    data = await body_of(request, MOST_BUNDLE_BYTES)
    return JSONResponse(await run_in_threadpool(service.add_bundle, identity, data), 201)


@router.get("/studies", response_model=models.StudyPage, responses=errors(400, 422), summary="Studies, newest first")
def studies(
    service: Service,
    state: Annotated[list[models.StudyStateName] | None, Query()] = None,
    name: Annotated[str | None, Query(max_length=64)] = None,
    owner: Annotated[str | None, Query(max_length=64)] = None,
    archived: bool = False,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    cursor: Cursor = None,
) -> Response:
    found = service.page(states=state or (), name=name, owner=owner, archived=archived, limit=limit, cursor=cursor)
    return JSONResponse(found)


@router.get("/studies/{study_id}", response_model=models.StudyInFull, responses=errors(404, 422), summary="A study")
def study(service: Service, study_id: StudyId) -> Response:
    return JSONResponse(service.study(study_id))


@router.get(
    "/studies/{study_id}/trials", response_model=models.TrialPage, responses=errors(400, 404, 422), summary="Trials"
)
def trials(
    service: Service,
    study_id: StudyId,
    sort: Sort = "number",
    state: Annotated[list[models.TrialStateName] | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Cursor = None,
) -> Response:
    return JSONResponse(service.trials(study_id, sort=sort, states=state or (), limit=limit, cursor=cursor))


@router.get(
    "/studies/{study_id}/trials/{number}",
    response_model=models.Trial,
    responses=errors(404, 422),
    summary="A trial",
)
def trial(service: Service, study_id: StudyId, number: Annotated[int, Path(ge=0, lt=2**31)]) -> Response:
    return JSONResponse(service.trial(study_id, number))


@router.get(
    "/studies/{study_id}/trials/{number}/log",
    response_class=PlainTextResponse,
    responses=errors(404, 409, 422),
    summary="The last lines of what a trial has printed, with its traceback where it has failed",
)
def trial_log(
    service: Service,
    study_id: StudyId,
    number: Annotated[int, Path(ge=0, lt=2**31)],
    tail: Annotated[int, Query(ge=1, le=MOST_LINES)] = 1000,
) -> PlainTextResponse:
    return PlainTextResponse(service.trial_log(study_id, number, tail))


yaml = {"description": "The best configuration so far", "content": {YAML: {"schema": {"type": "string"}}}}


@router.get(
    "/studies/{study_id}/best",
    response_model=models.Best,
    responses={200: yaml, **errors(404, 409, 422)},
    summary="The best configuration so far, as JSON or as a specification that trains it again",
)
def best(service: Service, study_id: StudyId, request: Request) -> Response:
    if "yaml" in request.headers.get("accept", ""):
        return Response(service.best_yaml(study_id), media_type=YAML)
    return JSONResponse(service.best(study_id))


@router.get(
    "/studies/{study_id}/curve",
    response_model=models.BestCurve,
    responses=errors(404, 422),
    summary="The best value so far over trials, epochs and time",
)
def curve(service: Service, study_id: StudyId) -> Response:
    return JSONResponse(service.curve(study_id))


@router.get(
    "/studies/{study_id}/logs",
    response_class=PlainTextResponse,
    responses=errors(404, 422),
    summary="The last lines of the driver's log",
)
def logs(
    service: Service, study_id: StudyId, tail: Annotated[int, Query(ge=1, le=MOST_LINES)] = 200
) -> PlainTextResponse:
    return PlainTextResponse(service.log(study_id, tail))


stream = {"description": "Server-sent events", "content": {"text/event-stream": {"schema": {"type": "string"}}}}


@router.get(
    "/studies/{study_id}/events",
    response_class=StreamingResponse,
    responses={200: stream, **errors(404, 422)},
    summary="What happens in a study, as it happens: trials, reports, and each decision with its reason",
)
async def events(
    identity: Who,
    gate: Admission,
    service: Service,
    study_id: StudyId,
    request: Request,
    tail: Annotated[bool, Query(description="Only what happens from now on.")] = False,
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> Response:
    listener = Listener(identity, lambda: gate.still_knows(request, identity))
    return await event_stream(service, request, listener, gate.streams, study_id, last=last, tail=tail)


about: dict[str, Any] = {
    "status_code": 202,
    "response_model": models.Study,
    "responses": errors(400, 404, 409, 422),
}


@router.post("/studies/{study_id}/stop", **about, summary="Stop a study; it can go on later")
def stop(identity: Who, service: Service, study_id: StudyId) -> Response:
    return JSONResponse(service.act(identity, study_id, "stop", {}), 202)


@router.post("/studies/{study_id}/resume", **about, summary="Go on with a study that was stopped or has failed")
def resume(identity: Who, service: Service, study_id: StudyId) -> Response:
    return JSONResponse(service.act(identity, study_id, "resume", {}), 202)


@router.post("/studies/{study_id}/extend", **about, summary="Add to the budget of a study that has ended")
def extend(identity: Who, service: Service, study_id: StudyId, more: Annotated[models.Extension, Body()]) -> Response:
    change = {name: None if value is None else str(value) for name, value in more.model_dump().items()}
    return JSONResponse(service.act(identity, study_id, "extend", change), 202)


@router.delete(
    "/studies/{study_id}",
    status_code=204,
    responses=errors(404, 409, 422),
    summary="Archive a study that has ended",
)
def archive(identity: Who, service: Service, study_id: StudyId) -> Response:
    service.archive(identity, study_id)
    return Response(status_code=204)
