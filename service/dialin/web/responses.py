"""How the page answers: templates with their helpers, headers, forms, errors as pages."""

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
from dialin.schemas import TrialCounts
from dialin.texts import metric_text, printable, scalar_text

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
    """A route whose errors are pages, and whose answers carry the headers of one."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
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
    """A template as a page. One that has not changed since the browser asked last is not sent again."""
    mlflow = getattr(request.app.state, "mlflow_link", None)
    text = _TEMPLATES.get_template(template).render(path=request.url.path, now=time.time(), mlflow=mlflow, **context)
    etag = f'W/"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'
    if status == 200 and request.method == "GET" and request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return HTMLResponse(text, status, headers={"ETag": etag})


def static_file(request: Request, name: str) -> Response | None:
    """A file of the page; None where there is none of that name."""
    known = {path.name: path for path in STATIC.iterdir() if path.suffix in _TYPES}
    if name not in known:
        return None
    content = known[name].read_bytes()
    etag = f'"{hashlib.blake2b(content, digest_size=12).hexdigest()}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"ETag": etag})
    return Response(content, media_type=_TYPES[known[name].suffix], headers={"ETag": etag})


def error_page(request: Request, error: DialinError) -> Response:
    """What went wrong, for a person; to sign in where that is what is missing."""
    if isinstance(error, UnauthorizedError) and request.method == "GET" and "text/html" in _accepts(request):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(wanted, safe='')}", 303)
    titles = {401: "Not signed in", 403: "Not allowed", 404: "Not found", 409: "Not possible now"}
    title = titles.get(error.status, "That did not work")
    return render(request, "error.html", error.status, caller=None, title=title, message=str(error))


def _accepts(request: Request) -> str:
    return request.headers.get("accept", "")


async def form(request: Request) -> Mapping[str, str]:
    """The fields of a form. Raises UsageError for what is none of this page's."""
    text = await plain_text(request)
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise UsageError(f"a form of more than {MAX_FIELDS} fields") from None


async def plain_text(request: Request) -> str:
    """The body of a request. Raises TooLargeError."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_FORM_BYTES:
            raise TooLargeError(f"a form of more than {MAX_FORM_BYTES:,} bytes")
    return content.decode("utf-8", "replace")


def local_path(wanted: str) -> str:
    """A path of this site to go on to; `/` for whatever would lead elsewhere."""
    printable = wanted.isprintable() and "\\" not in wanted
    return wanted if printable and wanted.startswith("/") and not wanted.startswith("//") else "/"


def web_link(url: str | None) -> str | None:
    """A link that may be shown: to the web or a path of this site, and nothing that a browser would run."""
    if url and url.startswith("/"):
        return url if local_path(url) == url else None
    return url if url and urlsplit(url).scheme in ("http", "https") else None


def _progress(counts: TrialCounts) -> Markup:
    return charts.progress(counts.model_dump())


def _shown(value: Any) -> Any:
    """What a template writes: whatever text comes from people can be shown, and be sent as UTF-8."""
    return type(value)(printable(value)) if isinstance(value, str) else value


_TEMPLATES = Environment(
    loader=PackageLoader("dialin.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=_shown,
)
_TEMPLATES.filters |= {
    "ago": words.ago,
    "cut": words.cut,
    "duration": words.duration,
    "moment": words.moment,
    "number": metric_text,
    "scalar": scalar_text,
    "web_link": web_link,
    "progress": _progress,
}
