"""Errors as `application/problem+json` (RFC 9457), with the codes of `dialin.errors`."""

from __future__ import annotations

import http
import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dialin.errors import DialinError, RateLimitedError, SpecError, UnauthorizedError
from dialin.texts import printable

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger(__name__)


def problem(status: int, code: str, detail: str, errors: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The document of an error."""
    title = http.HTTPStatus(status).phrase
    return {
        "type": "about:blank",
        "title": title,
        "status": status,
        "code": code,
        "detail": printable(detail),  # it may quote what was sent, which may be any text
        "errors": errors or [],
    }


def answer(error: DialinError, **members: str) -> Response:
    """The response for an error of `dialin.errors`. `members`: more members of its document."""
    errors = []
    if isinstance(error, SpecError):
        errors = [{"path": each.path, "line": each.line, "message": printable(each.message)} for each in error.problems]
    headers: dict[str, str] = {}
    if isinstance(error, RateLimitedError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(error, UnauthorizedError):
        headers["WWW-Authenticate"] = "Bearer"
    document = problem(error.status, error.code, str(error), errors)
    return JSONResponse({**document, **members}, error.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every error of an application in this form."""

    @app.exception_handler(DialinError)
    def of_the_tree(_request: Request, error: DialinError) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: RequestValidationError) -> Response:
        errors = [
            {"path": ".".join(map(str, each["loc"][1:])), "line": None, "message": each["msg"]}
            for each in error.errors()
        ]
        return _response(422, "invalid_request", "; ".join(f"{e['path']}: {e['message']}" for e in errors), errors)

    @app.exception_handler(HTTPException)
    def by_status(_request: Request, error: HTTPException) -> Response:
        code = http.HTTPStatus(error.status_code).name.lower()
        return _response(error.status_code, code, str(error.detail), headers=error.headers)

    @app.exception_handler(OperationalError)
    def database_away(_request: Request, error: OperationalError) -> Response:
        _LOG.error("the database does not answer: %s", error)
        return _response(503, "storage", "the database does not answer; try again", headers={"Retry-After": "2"})

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> Response:
        ids: Mapping[str, str] = getattr(request.state, "log_ids", {})
        _LOG.error("a request failed", exc_info=error, extra=dict(ids))
        given = ids.get("request_id")
        detail = "the server failed to answer; its log has the error" + (f" of request {given}" if given else "")
        return _response(500, "error", detail, headers={"X-Request-ID": given} if given else None)


def _response(
    status: int,
    code: str,
    detail: str,
    errors: list[dict[str, Any]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    return JSONResponse(problem(status, code, detail, errors), status, headers, MEDIA_TYPE)
