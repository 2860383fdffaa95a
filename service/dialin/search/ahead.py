"""Proposals made beside the driver: while a model thinks, reports go on being stored and decided."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from dialin.lifecycle import TrialState
from dialin.search.encoding import Chosen
from dialin.search.records import Seen

FRESH_SECONDS = 1.0  # a proposal that is older, and does not know of what was reported since, is made anew

BUSY = 0.25  # the share of the time between two asks that making a proposal may take; more are made at a time beyond
MOST_AT_ONCE = 4

Propose = Callable[[int, Mapping[int, Seen], int], Sequence[Chosen | None]]


@dataclass(frozen=True)
class _Made:
    """Proposals that are, or will be, there: from which trial on, what they know of, and since when."""

    number: int
    reports: int
    at: float
    proposals: Future[Sequence[Chosen | None]]

    def has(self, number: int) -> bool:
        """Whether there is one for this trial, of those that are there."""
        there = len(self.proposals.result()) if self.proposals.exception() is None else 1
        return self.number <= number < self.number + there

    def of(self, number: int) -> Chosen | None:
        return self.proposals.result()[number - self.number]


class Ahead:
    """The next proposal, made in a thread of its own before it is asked for, and made anew when there is news. Where
    trials are so short that making proposals would take much of the time between them, several are made at a time, the
    first of them as it would be alone. Its methods are for one thread; `propose` is called in the other, never twice at
    a time: with a number, what was seen, and how many proposals are wanted at most."""

    def __init__(self, propose: Propose, clock: Callable[[], float] = time.monotonic) -> None:
        self._propose, self._clock = propose, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="proposals")
        self._ready: _Made | None = None
        self._making: _Made | None = None
        self._taken_at: float | None = None
        self._between = math.inf  # seconds between two asks, a running mean
        self._seconds = 0.0  # that making proposals took, the last time

    def close(self) -> None:
        """End the thread, once what it is making is made. Nothing is proposed any more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def prepare(self, number: int, seen: Mapping[int, Seen], reports: int) -> None:
        """Begin to propose trial `number` with what is known now, `reports` of it; unless that is being done, or was
        done a moment ago."""
        if self._making is not None and self._making.proposals.done():
            self._ready, self._making = self._making, None
        if self._making is None and not self._is_fresh(self._ready, number, reports):
            proposals = self._thread.submit(self._make, number, _as_of_now(seen), self._wanted())
            self._making = _Made(number, reports, self._clock(), proposals)

    def take(self, number: int, seen: Mapping[int, Seen], reports: int, newest: bool) -> Chosen | None:
        """The proposal for trial `number`: the one that is there, or, for the `newest` and where none is, the one that
        is being made, waited for. Raises what the proposing raised."""
        self.prepare(number, seen, reports)
        while (made := self._there(number, newest)) is None:
            # What is in the making is of a trial that was asked for meanwhile.
            wait([self._making.proposals] if self._making is not None else [])
            self.prepare(number, seen, reports)
        self._note_ask()
        return made.of(number)

    def _there(self, number: int, newest: bool) -> _Made | None:
        making = self._making if self._making is not None and self._making.number == number else None
        ready = self._ready if self._ready is not None and self._ready.has(number) else None
        return making or ready if newest else ready or making

    def _make(self, number: int, seen: Mapping[int, Seen], count: int) -> Sequence[Chosen | None]:
        began = self._clock()
        try:
            return self._propose(number, seen, count)
        finally:
            self._seconds = self._clock() - began

    def _wanted(self) -> int:
        """How many proposals at a time."""
        return max(1, min(MOST_AT_ONCE, math.ceil(self._seconds / (BUSY * self._between))))

    def _note_ask(self) -> None:
        now = self._clock()
        if self._taken_at is not None:
            passed = max(now - self._taken_at, 1e-6)
            self._between = passed if math.isinf(self._between) else 0.9 * self._between + 0.1 * passed
        self._taken_at = now

    def _is_fresh(self, made: _Made | None, number: int, reports: int) -> bool:
        if made is None or not made.has(number):
            return False
        return reports == made.reports or self._clock() - made.at <= FRESH_SECONDS


def _as_of_now(seen: Mapping[int, Seen]) -> dict[int, Seen]:
    """What has ended never changes again; of the others a copy."""
    living = (TrialState.RUNNING, TrialState.WAITING)
    return {
        number: replace(one, values=dict(one.values)) if one.state in living else one for number, one in seen.items()
    }
