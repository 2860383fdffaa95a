"""Who asks, and whether a request may come from where it comes from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NoReturn
from urllib.parse import urlsplit

from starlette.requests import Request

from service.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from service.store.tokens import Identity, Role, Tokens

COOKIE = "dialin_session"
LOCAL = Identity("local", Role.ADMIN)
_SAFE = ("GET", "HEAD", "OPTIONS")
_REMEMBERED_SECONDS = 2.0  # a token that was revoked works for no longer


class Gate:
    """Lets requests in. `is_open`: without a token as long as none was ever made, which only a server on loopback may
    be. `reads`, `writes`: requests a second of one caller."""

    def __init__(self, tokens: Tokens, *, is_open: bool, reads: float, writes: float) -> None:
        self._tokens, self._is_open = tokens, is_open
        self._reads, self._writes, self._failed = Buckets(reads), Buckets(writes), Buckets(1.0)
        self._remembered: dict[str, tuple[float, Identity | None]] = {}

    def admit(self, request: Request) -> Identity:
        """Who asks. Raises UnauthorizedError, ForbiddenError for a request that another site made, RateLimitedError."""
        if (before := getattr(request.state, "identity", None)) is not None:
            known: Identity = before  # let in on the way here
            return known
        if (refused := getattr(request.state, "refused", None)) is not None:
            raise refused
        is_safe = request.method in _SAFE
        if not is_safe:
            check_origin(request)
        who = self._identify(request)
        (self._reads if is_safe else self._writes).take(who.name)
        return who

    def remembered(self, request: Request) -> Identity | None:
        """Who asks, of a safe request whose token was looked up a moment ago; None: it has to be looked up. Raises
        RateLimitedError."""
        found = self._remembered.get(_key_of(request))
        if found is None or found[1] is None or time.monotonic() - found[0] > _REMEMBERED_SECONDS:
            return None
        self._reads.take(found[1].name)
        return found[1]

    def sign_in(self, request: Request, token: str) -> str:
        """What the cookie of a session shall hold. Raises UnauthorizedError."""
        check_origin(request)
        who = self._tokens.identify(token)
        if who is None:
            self._refuse(request, "this token is not known")
        return self._tokens.open_session(who)

    def sign_out(self, request: Request) -> None:
        check_origin(request)
        secret = request.cookies.get(COOKIE)
        if secret is not None:
            self._tokens.close_session(secret)
            self._remembered.clear()

    def _identify(self, request: Request) -> Identity:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer" or not token.strip():
                self._refuse(request, "the Authorization header must read: Bearer TOKEN")
            who = self._remember(_key_of(request), lambda: self._tokens.identify(token.strip()))
        elif (secret := request.cookies.get(COOKIE)) is not None:
            who = self._remember(_key_of(request), lambda: self._tokens.of_session(secret))
        elif self._is_open and self._remember("", lambda: None if self._tokens.any() else LOCAL) is not None:
            who = LOCAL
        else:
            raise UnauthorizedError("a token is needed: the Authorization header must read: Bearer TOKEN")
        if who is None:
            self._refuse(request, "this token is not known, or no longer")
        return who

    def _remember(self, key: str, look: Callable[[], Identity | None]) -> Identity | None:
        now = time.monotonic()
        found = self._remembered.get(key)
        if found is None or now - found[0] > _REMEMBERED_SECONDS:
            if len(self._remembered) > 10_000:
                self._remembered.clear()
            found = self._remembered[key] = (now, look())
        return found[1]

    def _refuse(self, request: Request, why: str) -> NoReturn:
        """Raises: who tries many tokens has to wait."""
        self._failed.take(request.client.host if request.client is not None else "")
        raise UnauthorizedError(why)


def _key_of(request: Request) -> str:
    """Under what a caller is remembered: what they show."""
    shown = request.headers.get("authorization")
    if shown is not None:
        return f"t{shown}"
    secret = request.cookies.get(COOKIE)
    return f"c{secret}" if secret is not None else ""


def check_origin(request: Request) -> None:
    """Raises ForbiddenError for a request that a browser sent on behalf of another site's page."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")
    if foreign or site in ("cross-site", "same-site"):
        raise ForbiddenError(f"a page of {origin or 'another site'} may not change anything here")


class Buckets:
    """So many requests a second of each caller, and ten seconds' worth at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, max(10.0, 10 * rate), clock
        self._lock = threading.Lock()
        self._levels: dict[str, tuple[float, float]] = {}

    def take(self, name: str) -> None:
        """Raises RateLimitedError, with the seconds until there is one again."""
        with self._lock:
            now = self._clock()
            level, at = self._levels.get(name, (self._most, now))
            level = min(self._most, level + (now - at) * self._rate)
            if level < 1.0:
                raise RateLimitedError("too many requests; slow down", (1.0 - level) / self._rate)
            if len(self._levels) > 10_000:
                self._levels.clear()
            self._levels[name] = (level - 1.0, now)
