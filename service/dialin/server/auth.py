"""Who sent a request, by its token or session, and whether that caller has asked too often."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from cachetools import TTLCache
from starlette.requests import Request

from dialin.errors import UnauthorizedError
from dialin.lifecycle import Role
from dialin.server.connections import network_of
from dialin.server.rate_limit import MOST_CALLERS, ConcurrencyLimit, RateLimiter
from dialin.settings import ServerSettings
from dialin.store.tokens import Identity, Tokens

COOKIE = "dialin_session"
LOCAL = Identity("local", Role.ADMIN)  # the caller of a server on loopback for which no token was ever made
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
REMEMBERED_SECONDS = 2.0  # a token that was revoked works for no longer
_FAILED_PER_SECOND = 1.0  # tokens that are not known, from one address
_PLAN_SECONDS = 0.2  # of processor time a second, for the plans of one caller


class Authenticator:
    """Identifies callers and limits how often they ask, as the settings say. Thread safe.

    Known callers are remembered for REMEMBERED_SECONDS, by a digest of what they sent, so that not every request reads
    the database; unknown callers are not remembered.
    """

    def __init__(self, tokens: Tokens, limits: ServerSettings, *, is_open: bool) -> None:
        """`is_open`: callers without a token are LOCAL while no token exists, as only a server on loopback may be."""
        self._tokens, self._is_open = tokens, is_open
        self._reads, self._writes = RateLimiter(limits.reads), RateLimiter(limits.writes)
        self._anonymous, self._failed = RateLimiter(limits.anonymous), RateLimiter(_FAILED_PER_SECOND)
        self._plans = RateLimiter(_PLAN_SECONDS)
        self.streams = ConcurrencyLimit(limits.max_streams, limits.max_streams_per_caller, "event streams")
        self._lock = threading.Lock()
        self._remembered: TTLCache[bytes, Identity] = TTLCache(MOST_CALLERS, REMEMBERED_SECONDS)

    def admit(self, request: Request) -> Identity:
        """The caller, whose request is counted once. Raises UnauthorizedError, RateLimitedError."""
        if (known := getattr(request.state, "identity", None)) is not None:
            admitted: Identity = known  # by the middleware
            return admitted
        if (refused := getattr(request.state, "refused", None)) is not None:
            raise refused
        caller = self._recall(request) or self._identify(request)
        (self._reads if request.method in SAFE_METHODS else self._writes).take(caller.name)
        request.state.identity = caller
        return caller

    def admit_remembered(self, request: Request) -> Identity | None:
        """As `admit` for a safe request, without reading the database; None for a caller who is not remembered."""
        caller = self._recall(request)
        if caller is not None:
            self._reads.take(caller.name)
        return caller

    def is_still_valid(self, request: Request, caller: Identity) -> bool:
        """Whether the request's token still is that caller's. Reads the database."""
        try:
            return self._look_up(request) == caller
        except UnauthorizedError:
            return False

    def check_anonymous(self, request: Request) -> None:
        """Raise RateLimitedError when unknown callers of the request's address have asked too often."""
        self._anonymous.check(address_of(request))

    def count_anonymous(self, request: Request) -> None:
        """Count a request of an unknown caller."""
        self._anonymous.charge(address_of(request), 1.0)

    @contextmanager
    def limit_planning(self, name: str) -> Iterator[None]:
        """Charge the processor time of the block, in this thread, to a caller.

        Raises RateLimitedError when the caller's plans have taken too much.
        """
        self._plans.check(name)
        began = time.thread_time()
        try:
            yield
        finally:
            self._plans.charge(name, time.thread_time() - began)

    def sign_in(self, request: Request, token: str) -> str:
        """Open a session; returns the content of its cookie. Raises UnauthorizedError for an unknown token."""
        caller = self._tokens.identify(token)
        if caller is None:
            self._refuse(request, "this token is not known")
        return self._tokens.open_session(caller)

    def sign_out(self, request: Request) -> None:
        """Close the session of the request's cookie."""
        secret = request.cookies.get(COOKIE)
        if secret is not None:
            self._tokens.close_session(secret)
            with self._lock:
                self._remembered.pop(_digest(request), None)

    @property
    def remembered(self) -> list[bytes]:
        """The digests of the callers that are remembered."""
        with self._lock:
            return list(self._remembered)

    def forget(self) -> None:
        """Look up every caller anew from now on."""
        with self._lock:
            self._remembered.clear()

    def _recall(self, request: Request) -> Identity | None:
        with self._lock:
            return self._remembered.get(_digest(request))

    def _identify(self, request: Request) -> Identity:
        try:
            caller = self._look_up(request)
        except UnauthorizedError as error:
            self._refuse(request, str(error))
        if caller is None:
            raise UnauthorizedError("a token is needed: the Authorization header must read: Bearer TOKEN")
        with self._lock:
            self._remembered[_digest(request)] = caller
        return caller

    def _look_up(self, request: Request) -> Identity | None:
        """The caller; None for a request without a token. Raises UnauthorizedError for a token that is not known."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer" or not token.strip():
                raise UnauthorizedError("the Authorization header must read: Bearer TOKEN")
            caller = self._tokens.identify(token.strip())
        elif (secret := request.cookies.get(COOKIE)) is not None:
            caller = self._tokens.identify_session(secret)
        else:
            return LOCAL if self._is_open and not self._tokens.exist() else None
        if caller is None:
            raise UnauthorizedError("this token is not known, or no longer")
        return caller

    def _refuse(self, request: Request, why: str) -> NoReturn:
        """Raise UnauthorizedError, or RateLimitedError for an address that has tried too many tokens."""
        self._failed.take(address_of(request))
        raise UnauthorizedError(why)


def _digest(request: Request) -> bytes:
    """A digest of the token or session in a request."""
    shown = request.headers.get("authorization")
    if shown is None:
        secret = request.cookies.get(COOKIE)
        shown = f"cookie {secret}" if secret is not None else ""
    return hashlib.sha256(shown.encode(errors="replace")).digest()


def address_of(request: Request) -> str:
    """The network that unknown callers are counted by."""
    return network_of(request.client.host if request.client is not None else "")
