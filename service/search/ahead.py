"""Proposals made beside the driver: while a model thinks, reports go on being stored and decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from service.search.encoding import Chosen
from service.search.records import Seen, State

FRESH_SECONDS = 1.0  # a proposal that is older, and does not know of what was reported since, is made anew

Propose = Callable[[int, Mapping[int, Seen]], Chosen | None]


@dataclass(frozen=True)
class _Made:
    """A proposal that is, or will be, there: of which trial, what it knows of, and since when."""

    number: int
    reports: int
    at: float
    proposal: Future[Chosen | None]


class Ahead:
    """The next proposal, made in a thread of its own before it is asked for, and made anew when there is news. Its
    methods are for one thread; `propose` is called in the other, never twice at a time."""

    def __init__(self, propose: Propose, clock: Callable[[], float] = time.monotonic) -> None:
        self._propose, self._clock = propose, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="proposals")
        self._ready: _Made | None = None
        self._making: _Made | None = None

    def prepare(self, number: int, seen: Mapping[int, Seen], reports: int) -> None:
        """Begin to propose trial `number` with what is known now, `reports` of it; unless that is being done, or was
        done a moment ago."""
        if self._making is not None and self._making.proposal.done():
            self._ready, self._making = self._making, None
        if self._making is None and not self._is_fresh(self._ready, number, reports):
            proposal = self._thread.submit(self._propose, number, _as_of_now(seen))
            self._making = _Made(number, reports, self._clock(), proposal)

    def take(self, number: int, seen: Mapping[int, Seen], reports: int, newest: bool) -> Chosen | None:
        """The proposal for trial `number`: the one that is there, or, for the `newest` and where none is, the one that
        is being made, waited for. Raises what the proposing raised."""
        self.prepare(number, seen, reports)
        ready = self._ready
        if self._making is not None and (newest or ready is None or ready.number != number):
            ready = self._making
        assert ready is not None  # what is not ready is in the making
        return ready.proposal.result()

    def _is_fresh(self, made: _Made | None, number: int, reports: int) -> bool:
        if made is None or made.number != number:
            return False
        return reports == made.reports or self._clock() - made.at <= FRESH_SECONDS


def _as_of_now(seen: Mapping[int, Seen]) -> dict[int, Seen]:
    """What has ended never changes again; of the others a copy."""
    living = (State.RUNNING, State.WAITING)
    return {
        number: replace(one, values=dict(one.values)) if one.state in living else one for number, one in seen.items()
    }
