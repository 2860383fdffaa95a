"""Limits on what one caller may use: so much a second, and so many at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from cachetools import LRUCache

from dialin.errors import RateLimitedError

MOST_CALLERS = 10_000  # whose use is remembered; the ones that were not seen for longest are forgotten
BURST_SECONDS = 10.0  # of the rate, that may be used at once
LEAST_BURST = 10.0


class RateLimiter:
    """Token buckets, one for each caller: `rate` a second, and BURST_SECONDS of it at once. Thread safe.

    What is limited may be a number of requests, or seconds of processor time, which are known only afterwards.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._capacity, self._clock = rate, max(LEAST_BURST, BURST_SECONDS * rate), clock
        self._lock = threading.Lock()
        self._levels: LRUCache[str, tuple[float, float]] = LRUCache(MOST_CALLERS)

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, name: str, cost: float = 1.0) -> None:
        """Use up `cost`. Raises RateLimitedError, with the seconds until there is enough again."""
        with self._lock:
            level = self._level(name)
            self._check(level, cost)
            self._levels[name] = (level - cost, self._clock())

    def check(self, name: str) -> None:
        """Raise RateLimitedError as `take` would for one request, and use up nothing."""
        with self._lock:
            self._check(self._level(name), min(1.0, self._rate))

    def charge(self, name: str, cost: float) -> None:
        """Use up what was spent already, even if there is less; the caller has to wait the longer afterwards."""
        with self._lock:
            self._levels[name] = (self._level(name) - cost, self._clock())

    def _level(self, name: str) -> float:
        now = self._clock()
        level, at = self._levels.get(name, (self._capacity, now))
        return min(self._capacity, level + (now - at) * self._rate)

    def _check(self, level: float, cost: float) -> None:
        if level < cost:
            raise RateLimitedError("too many requests; slow down", (cost - level) / self._rate)


class ConcurrencyLimit:
    """At most `most` of something at a time, and `per_caller` of one caller. For one event loop; not thread safe.

    `what` names the things in messages, such as "event streams".
    """

    def __init__(self, most: int, per_caller: int, what: str) -> None:
        self._most, self._per_caller, self._what = most, per_caller, what
        self._used: Counter[str] = Counter()

    def acquire(self, name: str) -> None:
        """Take a place for a caller. Raises RateLimitedError where none is left."""
        if self._used[name] >= self._per_caller:
            raise RateLimitedError(f"you have {self._per_caller} {self._what} open, which is the limit; close one", 10)
        if self._used.total() >= self._most:
            raise RateLimitedError(f"the server has {self._most} {self._what} open, which is its limit; try later", 10)
        self._used[name] += 1

    def release(self, name: str) -> None:
        """Give a caller's place back."""
        self._used[name] -= 1
        if self._used[name] <= 0:
            del self._used[name]
