"""A study's journal as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dialin.errors import NotFoundError, UsageError
from dialin.events.journal import read_journal
from dialin.lifecycle import ACTIVE
from dialin.server.rate_limit import ConcurrencyLimit
from dialin.server.services.studies import StudyService
from dialin.store.tokens import Identity

LOOK_SECONDS = 0.25  # at the journal
STATE_SECONDS = 1.0  # at the study's row, and at who listens
ALIVE_SECONDS = 15.0  # a comment, so that nobody on the way thinks the line is dead
_KINDS = ("trial_started", "epoch", "decision", "trial_ended", "note")


@dataclass(frozen=True)
class Listener:
    """Who listens, and how it is seen that they may no longer."""

    identity: Identity
    may_go_on: Callable[[], bool]


class _Stream(StreamingResponse):
    """Gives its place back once it has ended, however that was."""

    def __init__(self, content: AsyncIterator[str], end: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(content, media_type="text/event-stream", headers=headers)
        self._end = end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


async def event_stream(
    service: StudyService,
    request: Request,
    listener: Listener,
    places: ConcurrencyLimit,
    study_id: str,
    *,
    last: str | None,
    tail: bool,
) -> Response:
    """The answer; it ends when the study has and everything was sent, and when the listener may not ask any more.
    Raises RateLimitedError when they have too many."""
    if last is not None and not (last.isascii() and last.isdigit()):
        raise UsageError(f"Last-Event-ID {last!r} is none that this server gave")
    path = (await run_in_threadpool(service.folder, study_id)).journal
    begin = int(last or 0)
    if last is None and tail:
        begin = path.stat().st_size if path.exists() else 0
    # Last of all, and nothing is awaited until the answer has it.
    name = listener.identity.name
    places.acquire(name)
    return _Stream(_follow(service, request, listener, study_id, begin), lambda: places.release(name))


async def _follow(
    service: StudyService, request: Request, listener: Listener, study_id: str, offset: int
) -> AsyncIterator[str]:
    said, looked_at, state = time.monotonic(), -STATE_SECONDS, ("", "")
    path = (await run_in_threadpool(service.folder, study_id)).journal
    while not await request.is_disconnected():
        has_ended = False
        if time.monotonic() - looked_at >= STATE_SECONDS:
            looked_at = time.monotonic()
            if not await run_in_threadpool(listener.may_go_on):
                return
            try:
                row = (await run_in_threadpool(service.entry, study_id)).study
            except NotFoundError:
                return
            has_ended = row.state not in ACTIVE
            if (row.state.value, row.reason) != state:
                state = (row.state.value, row.reason)
                if not has_ended:
                    yield _event("study", await run_in_threadpool(_study_data, service, study_id), offset)
                    said = time.monotonic()
        events, offset = await run_in_threadpool(read_journal, path, offset)
        for at, event in events:
            if event["kind"] in _KINDS:
                yield _event(event["kind"], {name: value for name, value in event.items() if name != "kind"}, at)
                said = time.monotonic()
        if has_ended and not events:
            # Last, so that who listens knows that everything was said.
            yield _event("study", await run_in_threadpool(_study_data, service, study_id), offset)
            return
        if time.monotonic() - said > ALIVE_SECONDS:
            said = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(0 if events else LOOK_SECONDS)


def _study_data(service: StudyService, study_id: str) -> dict[str, Any]:
    return service.short(study_id).model_dump(mode="json")


def _event(kind: str, data: dict[str, Any], offset: int) -> str:
    return f"id: {offset}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
