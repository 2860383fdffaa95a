"""The paths of the API that are about the server: what it knows, who asks, and how it is."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dialin import schemas as models
from dialin.server.routes import Who, errors, identity_of
from dialin.specification import shipped
from dialin.study_flow.views import knobs_data

router = APIRouter(dependencies=[Depends(identity_of)])
health = APIRouter()
MOST_WARNINGS = 20  # studies that are named
_TEXT = {"description": "Prometheus' text format", "content": {"text/plain": {"schema": {"type": "string"}}}}


@router.get("/search-spaces", response_model=list[models.SearchSpace], responses=errors(), summary="Shipped spaces")
def spaces() -> Response:
    return JSONResponse([_space(name) for name in shipped.names()])


@router.get("/knobs", response_model=list[models.KnobDocument], responses=errors(), summary="All knobs")
def knobs() -> Response:
    return JSONResponse(knobs_data())


@router.get("/session", response_model=models.Session, responses=errors(), summary="Who asks")
def session(identity: Who) -> Response:
    return JSONResponse({"name": identity.name, "role": identity.role.value})


@health.get("/healthz", response_model=models.Health, summary="Whether the server is there")
async def healthz() -> Response:
    return JSONResponse({"status": "ok"})


@health.get(
    "/readyz",
    response_model=models.Readiness,
    responses={503: {"model": models.Readiness, "description": "Not ready"}},
    summary="Whether database, Ray and MLflow answer",
)
async def readyz(request: Request) -> Response:
    """MLflow is a mirror: studies are taken and run without it."""
    parts = await request.app.state.readiness.texts()
    wrong = {name for name, text in parts.items() if text != "ok"}
    unreadable = sorted(request.app.state.parts.reconciler.unreadable)  # why they are is not everybody's to know
    warnings = [f"study {study} cannot be read as it is stored" for study in unreadable[:MOST_WARNINGS]]
    if len(unreadable) > MOST_WARNINGS:
        warnings.append(f"and {len(unreadable) - MOST_WARNINGS} more cannot")
    status = "ok" if not wrong else "degraded" if wrong == {"mlflow"} else "unavailable"
    return JSONResponse({"status": status, **parts, "warnings": warnings}, 503 if status == "unavailable" else 200)


@health.get(
    "/metrics",
    dependencies=[Depends(identity_of)],
    response_class=Response,
    responses={200: _TEXT, **errors()},
    summary="Figures for Prometheus",
)
def figures(request: Request) -> Response:
    return Response(request.app.state.figures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _space(name: str) -> dict[str, str]:
    text = shipped.read(name)
    first = next((line for line in text.splitlines() if line.startswith("#")), "")
    return {"name": name, "summary": first.lstrip("# ").strip(), "yaml": text}
