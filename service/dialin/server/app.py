"""The server's application: the API below /api/v1, health and metrics also without it, and the page."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from dialin.execution.ray_jobs import Jobs
from dialin.schemas import ProblemDocument
from dialin.server import problems
from dialin.server.app_state import AppState
from dialin.server.auth import Authenticator
from dialin.server.cluster_shape import ClusterShapeProbe
from dialin.server.driver_access import JobsWithOwnRoles
from dialin.server.metrics import MetricsCollector
from dialin.server.middleware import AnonymousLimit, BodyLimit, HostAndOriginCheck, RequestIds, SecurityHeaders
from dialin.server.mirror_keeper import MirrorKeeper
from dialin.server.mlflow_proxy import MlflowProxy
from dialin.server.page_backend import PageBackend
from dialin.server.readiness import Readiness
from dialin.server.reconciler import Reconciler, SchedulingLimits
from dialin.server.response_cache import ResponseCache
from dialin.server.routes import server as server_routes
from dialin.server.routes import studies as study_routes
from dialin.server.routes import trials as trial_routes
from dialin.server.services.bundles import BundleService
from dialin.server.services.mlflow_links import MlflowLinks
from dialin.server.services.studies import API, StudyService
from dialin.server.services.submission import SpecChecker, SubmissionService
from dialin.server.services.trials import TrialService
from dialin.server.study_reader import SharedStudyReader
from dialin.settings import LOOPBACK, MLFLOW_PATH, ServerSettings, Settings
from dialin.specification.code_bundle import MOST_BYTES as MOST_BUNDLE_BYTES
from dialin.specification.schema import json_schema
from dialin.store.output_folder import open_output
from dialin.store.submissions import Submissions
from dialin.store.tokens import Tokens
from dialin.web import pages
from dialin.web.responses import MAX_FORM_BYTES

CLOSING_SECONDS = 5.0  # for each background thread


def create_app(settings: Settings, limits: ServerSettings, jobs: Jobs, *, host: str = "127.0.0.1") -> FastAPI:
    """An application over a database and a cluster.

    `host`: where it will listen; only on loopback does it work without tokens while there are none. Its background
    threads run as long as the application does.
    """
    links = MlflowLinks(settings)
    state = _create_state(settings, limits, jobs, host, links)
    mlflow = _create_mlflow_proxy(settings, state.auth)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        threads = _start_threads(state)
        yield
        state.reconciler.close()
        state.mirror_keeper.close()
        state.bundles.close()
        for thread in threads:
            thread.join(timeout=CLOSING_SECONDS)
        if mlflow is not None:
            await mlflow.close()
        state.close()

    app = FastAPI(
        title="dialin",
        version="1",
        description="Finds good training knobs: submit a search space, watch it, take the best configuration. "
        "Answers are at most a second old; events come as things happen.",
        lifespan=lifespan,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # FastAPI's pages load scripts from another host
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.dialin = state
    app.state.mlflow_link = links.home
    problems.install(app)
    _add_routes(app, state)
    if mlflow is not None:
        app.mount(MLFLOW_PATH, mlflow)
    _complete_description(app)
    _add_middleware(app, state.auth, limits, host)
    return app


def _create_state(settings: Settings, limits: ServerSettings, jobs: Jobs, host: str, links: MlflowLinks) -> AppState:
    open_output(settings)
    submissions, tokens = Submissions(settings.database), Tokens(settings.database)
    mirror_keeper = MirrorKeeper(settings)
    if settings.allow_code and settings.database_url is not None:
        jobs = JobsWithOwnRoles(jobs, settings, submissions)
    reconciler = Reconciler(
        submissions,
        jobs,
        SchedulingLimits(limits.max_running, limits.max_attempts, limits.poll_seconds),
        # Without its driver, nobody else would tell MLflow that the study's run has ended.
        on_abandoned=lambda _study_id: mirror_keeper.wake(),
    )
    reader = SharedStudyReader(settings)
    studies = StudyService(settings, submissions, reader, links)
    bundles = BundleService(settings, limits)
    submission = SubmissionService(
        submissions,
        studies,
        SpecChecker(settings, limits, bundles),
        cluster_shape=ClusterShapeProbe(jobs),
        max_studies=limits.max_studies,
        on_change=reconciler.wake,
    )
    return AppState(
        settings=settings,
        limits=limits,
        submissions=submissions,
        tokens=tokens,
        reader=reader,
        studies=studies,
        trials=TrialService(studies, reader, links),
        submission=submission,
        bundles=bundles,
        auth=Authenticator(tokens, limits, is_open=host in LOOPBACK),
        reconciler=reconciler,
        mirror_keeper=mirror_keeper,
        readiness=Readiness.of(settings, submissions, jobs),
        metrics=MetricsCollector(reader, submissions, reconciler),
    )


def _create_mlflow_proxy(settings: Settings, auth: Authenticator) -> MlflowProxy | None:
    """The way to an MLflow that answers only this server; None for one that people reach without it."""
    if settings.mlflow_uri is None or settings.mlflow_secret is None:
        return None
    return MlflowProxy(auth, settings.mlflow_uri, settings.mlflow_secret)


def _start_threads(state: AppState) -> list[threading.Thread]:
    threads = [
        threading.Thread(target=state.reconciler.run, name="reconciler", daemon=True),
        threading.Thread(target=state.mirror_keeper.run, name="mirror-keeper", daemon=True),
        threading.Thread(target=state.bundles.run, name="bundles", daemon=True),
    ]
    for thread in threads:
        thread.start()
    return threads


def _add_routes(app: FastAPI, state: AppState) -> None:
    app.include_router(study_routes.router, prefix=API, tags=["studies"])
    app.include_router(trial_routes.router, prefix=API, tags=["trials"])
    app.include_router(server_routes.router, prefix=API, tags=["server"])
    app.include_router(server_routes.health, prefix=API, tags=["server"])
    app.include_router(server_routes.health, include_in_schema=False)
    app.include_router(pages.router(PageBackend(state)))


def _add_middleware(app: FastAPI, auth: Authenticator, limits: ServerSettings, host: str) -> None:
    own = frozenset(name.lower() for name in limits.allowed_hosts)
    # A request passes the last one first.
    app.add_middleware(ResponseCache, auth=auth)
    app.add_middleware(BodyLimit, most=_most_bytes)
    app.add_middleware(AnonymousLimit, auth=auth)
    app.add_middleware(HostAndOriginCheck, names=own | {*LOOPBACK, host.lower()}, own=own)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(RequestIds)


def _most_bytes(path: str) -> int | None:
    """How large the body of a request to this path may be. Most paths take none, or a specification, alone or in a
    form; the MLflow proxy has limits of its own."""
    if path.startswith(f"{MLFLOW_PATH}/"):
        return None
    return MOST_BUNDLE_BYTES if path == f"{API}/bundles" else MAX_FORM_BYTES


def _complete_description(app: FastAPI) -> None:
    """Add to the OpenAPI document what FastAPI does not know: the form of errors, the schema of a specification, and
    how a token is sent."""
    describe = app.openapi

    def openapi() -> dict[str, object]:
        if app.openapi_schema is not None:
            return app.openapi_schema  # it is made once, and is the same for every caller
        document = describe()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        problem = ProblemDocument.model_json_schema(ref_template="#/components/schemas/{model}")
        spec = json_schema("#/components/schemas")
        del spec["$schema"]  # the whole document is of one dialect
        schemas |= {**problem.pop("$defs", {}), **spec.pop("$defs", {}), "ProblemDocument": problem, "StudySpec": spec}
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
