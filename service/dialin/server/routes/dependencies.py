"""What the routes share: the caller, the services, common parameters, bodies, and the description of errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Path, Query
from starlette.requests import Request

from dialin.errors import TooLargeError, UsageError
from dialin.server.app_state import AppState
from dialin.server.auth import Authenticator
from dialin.server.services.bundles import BundleService
from dialin.server.services.studies import StudyService
from dialin.server.services.submission import SubmissionService
from dialin.server.services.trials import TrialService
from dialin.specification.yaml_reader import MAX_BYTES
from dialin.store.tokens import Identity

YAML = "application/yaml"
_SPEC_TYPES = (YAML, "text/yaml", "application/json", "text/plain")
_EXAMPLE_SPEC = """\
name: digits-small
objective: {dataset: digits}
space:
  optimizer: sgd
  lr: {min: 1e-3, max: 1.0, log: true}
  batch_size: {min: 16, max: 256, log: true}
budget: {trials: 30, epochs: 9}
"""


def state_of(request: Request) -> AppState:
    """The parts of the application that answers a request."""
    state: AppState = request.app.state.dialin
    return state


def caller_of(request: Request) -> Identity:
    """The caller; every route depends on it. Raises UnauthorizedError, RateLimitedError."""
    return state_of(request).auth.admit(request)


def _auth_of(request: Request) -> Authenticator:
    return state_of(request).auth


def _studies_of(request: Request) -> StudyService:
    return state_of(request).studies


def _trials_of(request: Request) -> TrialService:
    return state_of(request).trials


def _submission_of(request: Request) -> SubmissionService:
    return state_of(request).submission


def _bundles_of(request: Request) -> BundleService:
    return state_of(request).bundles


async def read_body(request: Request, most: int) -> bytes:
    """The body of a request. Raises TooLargeError before more than `most` bytes are read."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise TooLargeError(f"{int(declared)} bytes were sent; at most {most} are taken")
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most:
            raise TooLargeError(f"more than {most} bytes were sent; at most so many are taken")
    return bytes(data)


async def _spec_of(request: Request) -> bytes:
    """The specification in the body. Raises UsageError for a content type that cannot hold one, TooLargeError."""
    kind = request.headers.get("content-type", YAML).partition(";")[0].strip().lower()
    if kind and kind not in _SPEC_TYPES:
        raise UsageError(f"content type {kind[:80]!r}; allowed: {', '.join(_SPEC_TYPES)}")
    return await read_body(request, MAX_BYTES)


def spec_body() -> dict[str, Any]:
    """The description of a body that holds a specification."""
    schema = {"$ref": "#/components/schemas/StudySpec"}  # `app` adds it to the document
    example = {
        "name": "digits-small",
        "objective": {"dataset": "digits"},
        "space": {"lr": {"min": 0.001, "max": 1.0, "log": True}},
    }
    content = {
        YAML: {"schema": schema, "example": _EXAMPLE_SPEC},
        "application/json": {"schema": schema, "example": example},
    }
    return {"requestBody": {"required": True, "description": "A specification, as YAML or JSON.", "content": content}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of the errors of a route: these, and those that every route has."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDocument"}}}
    return {status: {"description": "A problem", "content": content} for status in sorted({*statuses, 401, 403, 429})}


Caller = Annotated[Identity, Depends(caller_of)]
Auth = Annotated[Authenticator, Depends(_auth_of)]
Studies = Annotated[StudyService, Depends(_studies_of)]
Trials = Annotated[TrialService, Depends(_trials_of)]
Submission = Annotated[SubmissionService, Depends(_submission_of)]
Bundles = Annotated[BundleService, Depends(_bundles_of)]
Spec = Annotated[bytes, Depends(_spec_of)]
BundleDigest = Annotated[str | None, Query(max_length=64, description="Files that were sent before, by their digest.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=128,
        description="Requests with the same key make one study, so a request may be repeated.",
    ),
]
StudyId = Annotated[str, Path(max_length=96, examples=["digits-small-4f7k2m"])]
TrialNumber = Annotated[int, Path(ge=0, lt=2**31)]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before.")]


@dataclass(frozen=True)
class SubmissionOptions:
    """What a caller may say about a study beside its specification.

    priority: studies of a higher one start first.
    bundle: the digest of files that were sent before; None without files.
    key: requests of one caller with the same key make one study; None for a new study in any case.
    """

    priority: int
    bundle: str | None
    key: str | None


def _options_of(
    priority: Annotated[int, Query(ge=-100, le=100, description="Studies of a higher one start first.")] = 0,
    bundle: BundleDigest = None,
    key: Key = None,
) -> SubmissionOptions:
    if key is not None and not key.isprintable():
        raise UsageError("Idempotency-Key: printable characters only")
    return SubmissionOptions(priority, bundle, key)


Options = Annotated[SubmissionOptions, Depends(_options_of)]
