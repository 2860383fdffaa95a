"""The server's application: the API below /api/v1, health and figures also without it, and the page."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI

from dialin import schemas as models
from dialin.execution.ray_jobs import Jobs
from dialin.server import about, problems, routes
from dialin.server.auth import Gate
from dialin.server.driver_access import JobsWithOwnRoles
from dialin.server.edge import Addressed, Anonymous, Bodies, Headers
from dialin.server.keeper import MirrorKeeper
from dialin.server.metrics import Figures
from dialin.server.mlflow_proxy import MlflowProxy
from dialin.server.page_backend import PageBackend
from dialin.server.readiness import Readiness
from dialin.server.recent import Recent
from dialin.server.reconciler import Reconciler
from dialin.server.shape import KnownShape
from dialin.server.studies import API, StudyService
from dialin.settings import LOOPBACK, MLFLOW_PATH, ServerSettings, Settings
from dialin.specification.code_bundle import MOST_BYTES as MOST_BUNDLE_BYTES
from dialin.store.output_folder import open_output
from dialin.store.submissions import Submissions
from dialin.store.tokens import Tokens
from dialin.web import pages
from dialin.web.responses import MAX_FORM_BYTES


@dataclass(frozen=True)
class Parts:
    """What an application is made of; closed by its end."""

    settings: Settings
    server: ServerSettings
    submissions: Submissions
    tokens: Tokens
    service: StudyService
    reconciler: Reconciler
    keeper: MirrorKeeper
    gate: Gate

    def close(self) -> None:
        """Close the connections to the database; what is used again opens new ones."""
        self.service.reader.close()
        self.service.bundles.close()
        self.submissions.close()
        self.tokens.close()


def create_app(settings: Settings, server: ServerSettings, jobs: Jobs, *, host: str = "127.0.0.1") -> FastAPI:
    """An application over a database and a cluster. `host`: where it will listen; only on loopback is it open while
    there is no token. Its reconciler and its keeper run as long as the application does."""
    parts = _parts(settings, server, jobs, host)
    mlflow = _mlflow_proxy(settings, parts.gate)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        threads = [
            threading.Thread(target=parts.reconciler.run, name="reconciler", daemon=True),
            threading.Thread(target=parts.keeper.run, name="keeper", daemon=True),
            threading.Thread(target=parts.service.bundles.keep_clean, name="bundles", daemon=True),
        ]
        for thread in threads:
            thread.start()
        yield
        parts.reconciler.close()
        parts.keeper.close()
        parts.service.bundles.close()
        for thread in threads:
            thread.join(timeout=5)
        if mlflow is not None:
            await mlflow.close()
        parts.close()

    app = FastAPI(
        title="dialin",
        version="1",
        description="Finds good training knobs: submit a search space, watch it, take the best configuration. "
        "Answers are at most a second old; events come as things happen.",
        lifespan=lifespan,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    problems.install(app)
    app.state.readiness = Readiness.of(settings, parts.submissions, jobs)
    app.state.figures = Figures(parts.service, parts.submissions, parts.reconciler)
    app.include_router(routes.router, prefix=API, tags=["studies"])
    app.include_router(about.router, prefix=API, tags=["server"])
    app.include_router(about.health, prefix=API, tags=["server"])
    app.include_router(about.health, include_in_schema=False)
    app.include_router(pages.router(PageBackend(parts.service, parts.gate)))
    app.state.mlflow_link = parts.service.mlflow_link
    if mlflow is not None:
        app.mount(MLFLOW_PATH, mlflow)
    app.state.parts = parts
    _describe(app)
    # The last one is asked first.
    app.add_middleware(Recent, gate=parts.gate)
    app.add_middleware(Bodies, most=_most_bytes)
    app.add_middleware(Anonymous, gate=parts.gate)
    own = frozenset(name.lower() for name in server.allowed_hosts)
    app.add_middleware(Addressed, names=own | {*LOOPBACK, host.lower()}, own=own)
    app.add_middleware(Headers)
    return app


def _parts(settings: Settings, server: ServerSettings, jobs: Jobs, host: str) -> Parts:
    open_output(settings)
    submissions, tokens = Submissions(settings.database), Tokens(settings.database)
    keeper = MirrorKeeper(settings)
    if settings.allow_code and settings.database_url is not None:
        jobs = JobsWithOwnRoles(jobs, settings, submissions)
    reconciler = Reconciler(
        submissions,
        jobs,
        max_running=server.max_running,
        max_attempts=server.max_attempts,
        poll_seconds=server.poll_seconds,
        # A study that ended without its driver's word must not be running in MLflow for ever.
        abandoned=lambda _study_id: keeper.wake(),
    )
    service = StudyService(settings, server, submissions, KnownShape(jobs), reconciler.wake)
    gate = Gate(tokens, server, is_open=host in LOOPBACK)
    return Parts(settings, server, submissions, tokens, service, reconciler, keeper, gate)


def _mlflow_proxy(settings: Settings, gate: Gate) -> MlflowProxy | None:
    """The way to an MLflow that answers this server only; None for one that people reach by themselves."""
    if settings.mlflow_uri is None or settings.mlflow_secret is None:
        return None
    return MlflowProxy(gate, settings.mlflow_uri, settings.mlflow_secret)


def _most_bytes(path: str) -> int | None:
    """How large a request's body may be. Most paths take none, or a specification, alone or in a form; the way to
    MLflow limits what it passes on by itself."""
    if path.startswith(f"{MLFLOW_PATH}/"):
        return None
    return MOST_BUNDLE_BYTES if path == f"{API}/bundles" else MAX_FORM_BYTES


def _describe(app: FastAPI) -> None:
    """The description says how errors look, and how to say who one is."""
    made = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is not None:
            return app.openapi_schema  # whoever asks, with or without a token
        document = made()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schema = models.ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas["ProblemDocument"] = schema
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
