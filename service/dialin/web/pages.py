"""The routes of the page. An application includes `router(backend)`."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from dialin.errors import DialinError, NotFoundError, Problem, SpecError, UnauthorizedError, UsageError
from dialin.lifecycle import Action, StudyState, TrialState
from dialin.specification import shipped
from dialin.web.backend import Backend, Caller
from dialin.web.responses import PageRoute, form, local_path, plain_text, render, static_file
from dialin.web.study_view import Chosen, study_context, trials_context

COOKIE = "dialin_session"
STATES = tuple(state.value for state in StudyState)
PAGE_SIZE = 50  # studies on a page of the list
Form = Annotated[Mapping[str, str], Depends(form)]
Text = Annotated[str, Depends(plain_text)]


def router(backend: Backend) -> APIRouter:
    """Return the routes of all pages over a backend. They are not part of the OpenAPI document."""
    pages = APIRouter(route_class=PageRoute, include_in_schema=False)
    _add_lists(pages, backend)
    _add_study(pages, backend)
    _add_submit(pages, backend)
    _add_sessions(pages, backend)

    @pages.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        found = static_file(request, name)
        if found is None:
            raise NotFoundError(f"there is no static file {name!r}")
        return found

    return pages


def _add_lists(pages: APIRouter, backend: Backend) -> None:
    def shown(request: Request, template: str) -> Response:
        caller, asked = backend.caller(request), request.query_params
        states = [state for state in asked.getlist("state") if state in STATES]
        archived, cursor = asked.get("archived") == "true", asked.get("cursor") or None
        found = backend.studies(states, archived, cursor, PAGE_SIZE)
        query = [("state", state) for state in states] + [("archived", "true")] * archived
        return render(
            request,
            template,
            caller=caller,
            studies=found.studies,
            older=urlencode([*query, ("cursor", found.next)]) if found.next else None,
            states=STATES,
            chosen=states,
            archived=archived,
            query=urlencode([*query, ("cursor", cursor)] if cursor else query),
        )

    @pages.get("/")
    def studies(request: Request) -> Response:
        return shown(request, "studies.html")

    @pages.get("/live")
    def studies_live(request: Request) -> Response:
        return shown(request, "studies_live.html")


def _add_study(pages: APIRouter, backend: Backend) -> None:
    def shown(request: Request, study_id: str, template: str) -> Response:
        caller = backend.caller(request)
        asked = request.query_params
        chosen = Chosen(asked.get("knob"), asked.get("zoom") == "best", _number(asked.get("point")))
        context = study_context(backend, caller, study_id, chosen)
        return render(request, template, caller=caller, **context)

    @pages.get("/studies/{study_id}")
    def study(request: Request, study_id: str) -> Response:
        return shown(request, study_id, "study.html")

    @pages.get("/studies/{study_id}/live")
    def study_live(request: Request, study_id: str) -> Response:
        return shown(request, study_id, "study_live.html")

    @pages.get("/studies/{study_id}/trials")
    def trials(request: Request, study_id: str) -> Response:
        caller, asked = backend.caller(request), request.query_params
        states = [state for state in asked.getlist("state") if state in list(TrialState)]
        context = trials_context(backend, study_id, asked.get("sort", "-value"), states, asked.get("cursor") or None)
        return render(request, "trials.html", caller=caller, **context)

    @pages.post("/studies/{study_id}/{action}")
    def act(request: Request, study_id: str, action: str, fields: Form) -> Response:
        caller = backend.caller(request)
        if action not in list(Action):
            raise NotFoundError(f"there is no action {action!r}; allowed: {', '.join(Action)}")
        change = {name: fields[name].strip() for name in ("trials", "epochs") if fields.get(name, "").strip()}
        backend.act(caller, study_id, Action(action), change)
        return RedirectResponse("/" if action == "archive" else f"/studies/{study_id}", 303)


def _number(text: str | None) -> int | None:
    """The number of a trial; None for a text that is none, so that an old link still shows the page."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else None


def _add_submit(pages: APIRouter, backend: Backend) -> None:
    def shown(request: Request, caller: Caller, text: str, status: int = 200, **more: Any) -> Response:
        chosen = request.query_params.get("space")
        defaults = {"problems": (), "key": secrets.token_urlsafe(16), "priority": "0", "chosen": chosen}
        return render(
            request, "submit.html", status, caller=caller, text=text, spaces=_spaces(), **{**defaults, **more}
        )

    @pages.get("/submit")
    def submit_form(request: Request) -> Response:
        caller = backend.caller(request)
        chosen = request.query_params.get("space") or "digits"
        if chosen not in shipped.names():
            raise NotFoundError(f"there is no shipped search space {chosen!r}; allowed: {', '.join(shipped.names())}")
        return shown(request, caller, shipped.read(chosen))

    @pages.post("/submit/check")
    def check(request: Request, text: Text) -> Response:
        # The status is 200 for an invalid specification too: after any other the browser logs an error in its console,
        # and specifications are checked at every pause in the typing.
        caller = backend.caller(request)
        try:
            return JSONResponse({"plan": backend.plan(caller, text).model_dump(mode="json")})
        except DialinError as error:
            problems = error.problems if isinstance(error, SpecError) else ()
            errors = [{"path": each.path, "line": each.line, "message": each.message} for each in problems]
            return JSONResponse({"plan": None, "detail": str(error), "errors": errors})

    @pages.post("/submit")
    def submit(request: Request, fields: Form) -> Response:
        caller = backend.caller(request)
        text = fields.get("spec", "").replace("\r\n", "\n")
        key, priority = fields.get("key") or secrets.token_urlsafe(16), fields.get("priority") or "0"
        try:
            study_id = backend.submit(caller, text, _key_of(key, text), _priority(priority))
        except DialinError as error:  # the answer is the form with its text, so that no work is lost
            problems = error.problems if isinstance(error, SpecError) else (Problem("", str(error)),)
            return shown(request, caller, text, error.status, problems=problems, key=key, priority=priority)
        return RedirectResponse(f"/studies/{study_id}", 303)


def _key_of(key: str, text: str) -> str:
    """The idempotency key of a submission: a form that is sent twice creates one study, unless its text has changed."""
    return f"{key[:64]}-{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"


def _priority(text: str) -> int:
    with suppress(ValueError):
        if -100 <= (value := int(text)) <= 100:
            return value
    raise UsageError(f"priority {text!r}; allowed: a whole number from -100 to 100")


def _spaces() -> list[dict[str, str]]:
    return [{"name": name, "yaml": shipped.read(name)} for name in shipped.names()]


def _add_sessions(pages: APIRouter, backend: Backend) -> None:
    @pages.get("/sign-in")
    def sign_in_form(request: Request) -> Response:
        wanted = local_path(request.query_params.get("next", "/"))
        return render(request, "sign_in.html", caller=None, wanted=wanted, problem=None)

    @pages.post("/sign-in")
    def sign_in(request: Request, fields: Form) -> Response:
        wanted = local_path(fields.get("next", "/"))
        try:
            value = backend.sign_in(request, fields.get("token", "").strip())
        except UnauthorizedError as error:
            return render(request, "sign_in.html", error.status, caller=None, wanted=wanted, problem=str(error))
        response = RedirectResponse(wanted, 303)
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, value, httponly=True, samesite="strict", secure=secure, path="/")
        return response

    @pages.post("/sign-out", dependencies=[Depends(form)])
    def sign_out(request: Request) -> Response:
        with suppress(UnauthorizedError):  # raised when the session has expired already
            backend.sign_out(request)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response
