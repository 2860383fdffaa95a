"""Who asks, how often they may, and whether a request may come from where it comes from."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

from cachetools import LRUCache, TTLCache
from starlette.requests import Request

from dialin.errors import ForbiddenError, RateLimitedError, UnauthorizedError
from dialin.lifecycle import Role
from dialin.server.connections import network_of
from dialin.settings import ServerSettings
from dialin.store.tokens import Identity, Tokens

COOKIE = "dialin_session"
LOCAL = Identity("local", Role.ADMIN)
SAFE = ("GET", "HEAD", "OPTIONS")
_REMEMBERED_SECONDS = 2.0  # a token that was revoked works for no longer
_MOST_REMEMBERED = 10_000
_PLAN_SECONDS = 0.2  # of processor time a second, that one caller's plans may take
_NAME = r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?"
_HOST, _ORIGIN = re.compile(_NAME), re.compile(f"(?P<scheme>https?)://{_NAME}")
_PORTS = {"http": "80", "https": "443"}


class Gate:
    """Lets requests in, within the limits that the settings name. `is_open`: without a token as long as none was ever
    made, which only a server on loopback may be. Who is known is remembered for a moment, by a digest of what they
    showed; who is not, is not. `streams`: places for event streams."""

    def __init__(self, tokens: Tokens, limits: ServerSettings, *, is_open: bool) -> None:
        self._tokens, self._is_open = tokens, is_open
        self._reads, self._writes = Buckets(limits.reads), Buckets(limits.writes)
        self._anonymous, self._failed, self._plans = Buckets(limits.anonymous), Buckets(1.0), Buckets(_PLAN_SECONDS)
        self.streams = Places(limits.max_streams, limits.max_streams_per_caller, "event streams")
        self._lock = threading.Lock()
        self._remembered: TTLCache[bytes, Identity] = TTLCache(_MOST_REMEMBERED, _REMEMBERED_SECONDS)

    def admit(self, request: Request) -> Identity:
        """Who asks. Raises UnauthorizedError, RateLimitedError."""
        if (before := getattr(request.state, "identity", None)) is not None:
            known: Identity = before  # let in on the way here
            return known
        if (refused := getattr(request.state, "refused", None)) is not None:
            raise refused
        who = self._recall(request) or self._identify(request)
        (self._reads if request.method in SAFE else self._writes).take(who.name)
        request.state.identity = who
        return who

    def remembered(self, request: Request) -> Identity | None:
        """Who asks, of a safe request whose token was looked up a moment ago; None: it has to be looked up. Raises
        RateLimitedError."""
        who = self._recall(request)
        if who is not None:
            self._reads.take(who.name)
        return who

    def still_knows(self, request: Request, who: Identity) -> bool:
        """Whether what was shown is worth now what it was when `who` was let in. Looked up, not remembered."""
        try:
            return self._look_up(request) == who
        except UnauthorizedError:
            return False

    def check_anonymous(self, request: Request) -> None:
        """Raises RateLimitedError when callers from there who are not known have asked too often."""
        self._anonymous.check(address_of(request))

    def count_anonymous(self, request: Request) -> None:
        self._anonymous.charge(address_of(request), 1.0)

    @contextmanager
    def planning(self, name: str) -> Iterator[None]:
        """Around making a plan for a caller, in a thread: the processor time it takes counts. Raises RateLimitedError
        when theirs have taken too much."""
        self._plans.check(name)
        began = time.thread_time()
        try:
            yield
        finally:
            self._plans.charge(name, time.thread_time() - began)

    def sign_in(self, request: Request, token: str) -> str:
        """What the cookie of a session shall hold. Raises UnauthorizedError."""
        who = self._tokens.identify(token)
        if who is None:
            self._refuse(request, "this token is not known")
        return self._tokens.open_session(who)

    def sign_out(self, request: Request) -> None:
        secret = request.cookies.get(COOKIE)
        if secret is not None:
            self._tokens.close_session(secret)
            with self._lock:
                self._remembered.pop(_key_of(request), None)

    def _recall(self, request: Request) -> Identity | None:
        with self._lock:
            return self._remembered.get(_key_of(request))

    def _identify(self, request: Request) -> Identity:
        try:
            who = self._look_up(request)
        except UnauthorizedError as error:
            self._refuse(request, str(error))
        if who is None:
            raise UnauthorizedError("a token is needed: the Authorization header must read: Bearer TOKEN")
        with self._lock:
            self._remembered[_key_of(request)] = who
        return who

    def _look_up(self, request: Request) -> Identity | None:
        """Who it is; None: nobody says. Raises UnauthorizedError for what is worth nothing."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme:
            if scheme.lower() != "bearer" or not token.strip():
                raise UnauthorizedError("the Authorization header must read: Bearer TOKEN")
            who = self._tokens.identify(token.strip())
        elif (secret := request.cookies.get(COOKIE)) is not None:
            who = self._tokens.of_session(secret)
        else:
            return LOCAL if self._is_open and not self._tokens.any() else None
        if who is None:
            raise UnauthorizedError("this token is not known, or no longer")
        return who

    def _refuse(self, request: Request, why: str) -> NoReturn:
        """Raises: who tries many tokens has to wait."""
        self._failed.take(address_of(request))
        raise UnauthorizedError(why)


def _key_of(request: Request) -> bytes:
    """Under what a caller is remembered: a digest of what they show."""
    shown = request.headers.get("authorization")
    if shown is None:
        secret = request.cookies.get(COOKIE)
        shown = f"cookie {secret}" if secret is not None else ""
    return hashlib.sha256(shown.encode(errors="replace")).digest()


def address_of(request: Request) -> str:
    """Whom an unknown caller is counted as."""
    return network_of(request.client.host if request.client is not None else "")


def host_name(shown: str) -> str | None:
    """The name in a Host header, in lower case; None: there is none."""
    found = _HOST.fullmatch(shown.lower())
    return found["name"].strip("[]") if found is not None else None


def check_origin(request: Request, names: Collection[str]) -> None:
    """Raises ForbiddenError for a request that a browser sent on behalf of another site's page. `names`: those that the
    server is called by, where a proxy before it may have put another into Host.

    What the browser says of the site is believed first, as no page can forge it. Where it says nothing (older ones, and
    pages without TLS beyond loopback), the origin must be the host asked for, or one of the names.
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


class Buckets:
    """So much a second of each caller, and ten seconds' worth, ten at least, at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._most, self._clock = rate, max(10.0, 10 * rate), clock
        self._lock = threading.Lock()
        self._levels: LRUCache[str, tuple[float, float]] = LRUCache(_MOST_REMEMBERED)

    def take(self, name: str, cost: float = 1.0) -> None:
        """Raises RateLimitedError, with the seconds until there is enough again."""
        with self._lock:
            level = self._level(name)
            self._check(level, cost)
            self._levels[name] = (level - cost, self._clock())

    def check(self, name: str) -> None:
        """Raises RateLimitedError as `take` would for one, and takes nothing."""
        with self._lock:
            self._check(self._level(name), min(1.0, self._rate))

    def charge(self, name: str, cost: float) -> None:
        """Take what was used already, though there may not be as much."""
        with self._lock:
            self._levels[name] = (self._level(name) - cost, self._clock())

    def _level(self, name: str) -> float:
        now = self._clock()
        level, at = self._levels.get(name, (self._most, now))
        return min(self._most, level + (now - at) * self._rate)

    def _check(self, level: float, cost: float) -> None:
        if level < cost:
            raise RateLimitedError("too many requests; slow down", (cost - level) / self._rate)


class Places:
    """So many at a time, `most` in all and `each` of one caller. Used by one event loop only."""

    def __init__(self, most: int, each: int, what: str) -> None:
        self._most, self._each, self._what = most, each, what
        self._taken: Counter[str] = Counter()

    def take(self, name: str) -> None:
        """Raises RateLimitedError where there is none left."""
        if self._taken[name] >= self._each:
            raise RateLimitedError(f"{self._each} {self._what} of yours are open; no more are taken", 10)
        if self._taken.total() >= self._most:
            raise RateLimitedError(f"{self._most} {self._what} are open; no more are taken", 10)
        self._taken[name] += 1

    def give_back(self, name: str) -> None:
        self._taken[name] -= 1
        if self._taken[name] <= 0:
            del self._taken[name]
