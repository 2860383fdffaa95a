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
    """A proposal that is, or will be, there: of which trial, and what it knows of."""

    number: int
    reports: int
    at: float
    proposal: Future[Chosen | None]


class Ahead:
    """One proposal ahead, in a thread of its own. Its methods are for one thread; `propose` is called in the other,
    never twice at a time."""

    def __init__(self, propose: Propose, clock: Callable[[], float] = time.monotonic) -> None:
        self._propose, self._clock = propose, clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="proposals")
        self._made: _Made | None = None

    def prepare(self, number: int, seen: Mapping[int, Seen], reports: int) -> None:
        """Begin to propose trial `number` with what is known now, `reports` of it; unless that is being done, or was
        done a moment ago."""
        made = self._made
        if made is not None and made.number == number and not self._is_stale(made, reports):
            return
        proposal = self._thread.submit(self._propose, number, _as_of_now(seen))
        self._made = _Made(number, reports, self._clock(), proposal)

    def take(self, number: int, seen: Mapping[int, Seen], reports: int, wait: bool) -> Future[Chosen | None] | None:
        """The proposal for trial `number`, done; None while it is being made, unless the caller waits for it. What the
        proposing raised comes with its result."""
        self.prepare(number, seen, reports)
        proposal = self._made.proposal if self._made is not None else None
        return proposal if proposal is not None and (wait or proposal.done()) else None

    def _is_stale(self, made: _Made, reports: int) -> bool:
        old = reports != made.reports and self._clock() - made.at > FRESH_SECONDS
        return old and made.proposal.done()


def _as_of_now(seen: Mapping[int, Seen]) -> dict[int, Seen]:
    """What has ended never changes again; of the others a copy."""
    living = (State.RUNNING, State.WAITING)
    return {
        number: replace(one, values=dict(one.values)) if one.state in living else one for number, one in seen.items()
    }
