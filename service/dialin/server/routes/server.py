"""The paths of the API that are about the server: what it knows, who asks, whether it can work, its metrics."""

from __future__ import annotations

from fastapi import APIRouter, Depends, status
from starlette.requests import Request
from starlette.responses import Response

from dialin import schemas
from dialin.server.routes.dependencies import Caller, caller_of, errors, state_of
from dialin.specification import shipped
from dialin.study_flow import plan_builder

router = APIRouter(dependencies=[Depends(caller_of)])
health = APIRouter()
MOST_WARNINGS = 20  # studies that readiness names
_TEXT = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}


@router.get("/search-spaces", responses=errors(), summary="The search spaces that come with dialin")
def list_search_spaces() -> list[schemas.SearchSpace]:
    """The search spaces that come with dialin."""
    return [_search_space(name) for name in shipped.names()]


@router.get("/knobs", responses=errors(), summary="The knobs of the catalogue")
def list_knobs() -> list[schemas.Knob]:
    """The knobs of the catalogue."""
    return plan_builder.knobs()


@router.get("/session", responses=errors(), summary="The caller")
def session(caller: Caller) -> schemas.Session:
    """The caller, as the server knows them."""
    return schemas.Session(name=caller.name, role=caller.role)


@health.get("/healthz", summary="Whether the server is there")
async def healthz() -> schemas.Health:
    """An answer shows that the server is there."""
    return schemas.Health(status="ok")


@health.get(
    "/readyz",
    responses={503: {"model": schemas.Readiness, "description": "Not ready"}},
    summary="Whether the database, Ray and MLflow answer",
)
async def readyz(request: Request, response: Response) -> schemas.Readiness:
    """Whether the server can work. MLflow is a mirror: studies are accepted and run without it."""
    state = state_of(request)
    parts = await state.readiness.texts()
    wrong = {name for name, text in parts.items() if text != "ok"}
    # Only their ids: why they cannot be read is not for callers who are not known.
    unreadable = sorted(state.reconciler.unreadable)
    warnings = [f"study {study} cannot be read as it is stored" for study in unreadable[:MOST_WARNINGS]]
    if len(unreadable) > MOST_WARNINGS:
        warnings.append(f"and {len(unreadable) - MOST_WARNINGS} more cannot")
    if wrong - {"mlflow"}:
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return schemas.Readiness(status="unavailable", warnings=warnings, **parts)
    return schemas.Readiness(status="degraded" if wrong else "ok", warnings=warnings, **parts)


@health.get(
    "/metrics",
    dependencies=[Depends(caller_of)],
    response_class=Response,
    responses={200: _TEXT, **errors()},
    summary="Metrics for Prometheus",
)
def metrics(request: Request) -> Response:
    """The metrics, as text."""
    text = state_of(request).metrics.text()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _search_space(name: str) -> schemas.SearchSpace:
    text = shipped.read(name)
    first = next((line for line in text.splitlines() if line.startswith("#")), "")
    return schemas.SearchSpace(name=name, summary=first.lstrip("# ").strip(), yaml=text)
