"""The responses of the page: templates with their filters, headers, forms, and errors as pages."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from dialin.charts import charts, words
from dialin.errors import DialinError, TooLargeError, UnauthorizedError, UsageError
from dialin.lifecycle import TrialState
from dialin.schemas import TrialCounts
from dialin.search.decision import in_short
from dialin.texts import measure_text, metric_text, printable, scalar_text

STATIC = Path(__file__).parent / "static"
MAX_FORM_BYTES, MAX_FIELDS = 2_000_000, 20
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; form-action 'self'; "
    "base-uri 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-cache",
    "Vary": "Cookie, Authorization",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class PageRoute(APIRoute):
    """A route whose errors are shown as pages, and whose responses have the security headers of a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler of the route, wrapped."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await handle(request)
            except DialinError as error:
                response = error_page(request, error)
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer


def render(request: Request, template: str, status: int = 200, **context: Any) -> Response:
    """Render a template as a response; its status is 304 when the browser has the same page already."""
    mlflow = getattr(request.app.state, "mlflow_link", None)
    text = _TEMPLATES.get_template(template).render(path=request.url.path, now=time.time(), mlflow=mlflow, **context)
    etag = f'W/"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'
    if status == 200 and request.method == "GET" and request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return HTMLResponse(text, status, headers={"ETag": etag})


def static_file(request: Request, name: str) -> Response | None:
    """Return a script, style sheet or image of the page; None for an unknown name."""
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}
    if name not in known:
        return None
    content = known[name].read_bytes()
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(content, media_type=_TYPES[known[name].suffix], headers={"ETag": etag})


def error_page(request: Request, error: DialinError) -> Response:
    """Return a page with the error's message, or a redirect to the sign-in form for a browser that is not signed in."""
    if isinstance(error, UnauthorizedError) and request.method == "GET" and "text/html" in _accepts(request):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(wanted, safe='')}", 303)
    titles = {401: "Not signed in", 403: "Not allowed", 404: "Not found", 409: "Not possible now"}
    title = titles.get(error.status, "The request failed")
    return render(request, "error.html", error.status, caller=None, title=title, message=str(error))


def _accepts(request: Request) -> str:
    return request.headers.get("accept", "")


async def form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form. Raises UsageError for more than MAX_FIELDS, which no form of the page has."""
    text = await plain_text(request)
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise UsageError(f"the form has more than {MAX_FIELDS} fields") from None


async def plain_text(request: Request) -> str:
    """Return the body of a request. Raises TooLargeError above MAX_FORM_BYTES."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_FORM_BYTES:
            raise TooLargeError(f"the form has more than {MAX_FORM_BYTES:,} bytes")
    return content.decode("utf-8", "replace")


def local_path(wanted: str) -> str:
    """Return the path that a form names as the next page if it is one of this site, otherwise `/`.

    Otherwise a link could use the sign-in form to send people to another site (an open redirect).
    """
    printable = wanted.isprintable() and "\\" not in wanted
    return wanted if printable and wanted.startswith("/") and not wanted.startswith("//") else "/"


def web_link(url: str | None) -> str | None:
    """Return the link if it leads to the web or to a path of this site, else None: `javascript:` links are code."""
    if url and url.startswith("/"):
        return url if local_path(url) == url else None
    return url if url and urlsplit(url).scheme in ("http", "https") else None


def _progress(counts: TrialCounts) -> Markup:
    return charts.progress(counts.model_dump())


def _shown(value: Any) -> Any:
    """A value as a template prints it. Text from people may contain characters that cannot be encoded as UTF-8."""
    return type(value)(printable(value)) if isinstance(value, str) else value


_TEMPLATES = Environment(
    loader=PackageLoader("dialin.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_shown,
)
_TEMPLATES.globals["trial_states"] = [state.value for state in TrialState]
_TEMPLATES.filters |= {
    "ago": words.ago,
    "cut": words.cut,
    "in_short": in_short,
    "duration": words.duration,
    "moment": words.moment,
    "number": metric_text,
    "measure": measure_text,
    "scalar": scalar_text,
    "web_link": web_link,
    "progress": _progress,
}
