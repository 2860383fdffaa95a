"""Where a request comes from: the host that it was sent to, and the site whose page sent it."""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.requests import Request

from dialin.errors import ForbiddenError

_NAME = r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
_HOST, _ORIGIN = re.compile(_NAME), re.compile(f"(?P<scheme>https?)://{_NAME}")
_PORTS = {"http": "80", "https": "443"}


def host_name(header: str) -> str | None:
    """The name in a Host header, in lower case; None for a header without a valid name."""
    found = _HOST.fullmatch(header.lower())
    return found["name"].strip("[]") if found is not None else None


def check_origin(request: Request, names: Collection[str]) -> None:
    """Raise ForbiddenError for a request that a browser sent on behalf of another site's page.

    `names`: those that the server is called by, where a proxy before it may have put another name into Host.

    Sec-Fetch-Site decides where the browser sends it, since no page can forge it. Where it does not (older browsers,
    and pages without TLS beyond loopback), the origin must be the host that was asked for, or one of the names.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if site is not None:
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and not _is_own(origin, request.headers.get("host", ""), names)
    if foreign:
        raise ForbiddenError(f"a page of {(origin or 'another site')[:200]} may not change anything here")


def _is_own(origin: str, host: str, names: Collection[str]) -> bool:
    from_, to = _ORIGIN.fullmatch(origin.lower()), _HOST.fullmatch(host.lower())
    if from_ is None or to is None:
        return False
    usual = _PORTS[from_["scheme"]]
    port = from_["port"] or usual
    same = (from_["name"], port) == (to["name"], to["port"] or usual)
    return same or (from_["name"].strip("[]") in names and port == usual)
