"""Suggestions made in a thread of their own: while a model computes, reports are still stored and decided."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from dialin.search.models.encoding import Chosen
from dialin.search.records import Observations

FRESH_SECONDS = 1.0
"""A suggestion that is older than this, and does not know of reports made since, is made again."""
BUSY_FRACTION = 0.25
"""Fraction of the time between two asks that a suggestion may take; where it takes more, several are made at a time."""
MOST_AT_ONCE = 4
"""Suggestions made at a time, at most."""

SuggestBatch = Callable[[int, Observations, int], Sequence[Chosen | None]]


@dataclass(frozen=True)
class _Batch:
    """Suggestions that are made, or being made: for the trials from `number` on, knowing the first `reports` reports of
    the study, since `at` (the clock's seconds)."""

    number: int
    reports: int
    at: float
    suggestions: Future[Sequence[Chosen | None]]

    def has(self, number: int) -> bool:
        """Whether there is a suggestion for this trial; call it when they are made."""
        count = len(self.suggestions.result()) if self.suggestions.exception() is None else 1
        return self.number <= number < self.number + count

    def suggestion(self, number: int) -> Chosen | None:
        """The suggestion for this trial. Raises what making it raised."""
        return self.suggestions.result()[number - self.number]


class Prefetcher:
    """Makes the next suggestion in a thread of its own before it is asked for, and again when there is news.

    Where trials are so short that making suggestions would take much of the time between them, several are made at a
    time; the first of them is the same as alone. The methods are for one thread. `suggest_batch` is called in the other
    thread, never twice at a time, with the number of a trial, the observations, and the number of suggestions wanted.
    `clock`: seconds.
    """

    def __init__(self, suggest_batch: SuggestBatch, clock: Callable[[], float] = time.monotonic) -> None:
        self._suggest_batch, self._clock = suggest_batch, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="suggestions")
        self._ready: _Batch | None = None
        self._making: _Batch | None = None
        self._taken_at: float | None = None
        self._between = math.inf  # seconds between two asks, a running mean
        self._seconds = 0.0  # that the last batch took

    def close(self) -> None:
        """End the thread, after the batch that it is making. Nothing is suggested any more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    @property
    def is_making(self) -> bool:
        """Whether a batch is being made, or was made and not looked at yet."""
        return self._making is not None

    def prepare(self, number: int, observations: Observations, reports: int) -> None:
        """Begin to make a suggestion for trial `number` from what is known now, which is `reports` reports; unless one
        is being made, or is fresh."""
        if self._making is not None and self._making.suggestions.done():
            self._ready, self._making = self._making, None
        if self._making is None and not self._is_fresh(self._ready, number, reports):
            suggestions = self._thread.submit(self._make, number, dict(observations), self._wanted())
            self._making = _Batch(number, reports, self._clock(), suggestions)

    def take(self, number: int, observations: Observations, reports: int, newest: bool) -> Chosen | None:
        """The suggestion for trial `number`: one that is ready, or, with `newest` and where none is ready, the one that
        is being made, which is waited for. Raises what making it raised."""
        self.prepare(number, observations, reports)
        while (batch := self._find(number, newest)) is None:
            # What is being made is for a trial that has been asked for meanwhile.
            wait([self._making.suggestions] if self._making is not None else [])
            self.prepare(number, observations, reports)
        self._note_ask()
        return batch.suggestion(number)

    def _find(self, number: int, newest: bool) -> _Batch | None:
        making = self._making if self._making is not None and self._making.number == number else None
        ready = self._ready if self._ready is not None and self._ready.has(number) else None
        return making or ready if newest else ready or making

    def _make(self, number: int, observations: Observations, count: int) -> Sequence[Chosen | None]:
        started = self._clock()
        try:
            return self._suggest_batch(number, observations, count)
        finally:
            self._seconds = self._clock() - started

    def _wanted(self) -> int:
        """The number of suggestions to make at a time."""
        return max(1, min(MOST_AT_ONCE, math.ceil(self._seconds / (BUSY_FRACTION * self._between))))

    def _note_ask(self) -> None:
        now = self._clock()
        if self._taken_at is not None:
            passed = max(now - self._taken_at, 1e-6)
            self._between = passed if math.isinf(self._between) else 0.9 * self._between + 0.1 * passed
        self._taken_at = now

    def _is_fresh(self, batch: _Batch | None, number: int, reports: int) -> bool:
        if batch is None or not batch.has(number):
            return False
        return reports == batch.reports or self._clock() - batch.at <= FRESH_SECONDS
