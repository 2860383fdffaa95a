"""A study's journal as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.api.studies import StudyService
from service.errors import NotFoundError, RateLimitedError, UsageError
from service.journal import read_journal
from service.store.submissions import ACTIVE

LOOK_SECONDS = 0.25  # at the journal
STATE_SECONDS = 1.0  # at the study's row
ALIVE_SECONDS = 15.0  # a comment, so that nobody on the way thinks the line is dead
MOST_STREAMS = 200
_KINDS = ("trial_started", "epoch", "decision", "trial_ended", "note")
_streams = 0


async def event_stream(
    service: StudyService, request: Request, study_id: str, last: str | None, tail: bool
) -> Response:
    """The answer; it ends when the study has and everything was sent."""
    if last is not None and not (last.isascii() and last.isdigit()):
        raise UsageError(f"Last-Event-ID {last!r} is none that this server gave")
    if _streams >= MOST_STREAMS:
        raise RateLimitedError(f"{MOST_STREAMS} event streams are open; no more are taken", 10)
    path = (await run_in_threadpool(service.folder, study_id)).journal
    begin = int(last or 0)
    if last is None and tail:
        begin = path.stat().st_size if path.exists() else 0
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _events(service, request, study_id, begin), media_type="text/event-stream", headers=headers
    )


async def _events(service: StudyService, request: Request, study_id: str, offset: int) -> AsyncIterator[str]:
    global _streams
    _streams += 1
    try:
        async for text in _follow(service, request, study_id, offset):
            yield text
    finally:
        _streams -= 1


async def _follow(service: StudyService, request: Request, study_id: str, offset: int) -> AsyncIterator[str]:
    said, looked_at, state = time.monotonic(), -STATE_SECONDS, ("", "")
    path = (await run_in_threadpool(service.folder, study_id)).journal
    while not await request.is_disconnected():
        has_ended = False
        if time.monotonic() - looked_at >= STATE_SECONDS:
            looked_at = time.monotonic()
            try:
                row = (await run_in_threadpool(service.entry, study_id)).study
            except NotFoundError:
                return
            has_ended = row.state not in ACTIVE
            if (row.state.value, row.reason) != state:
                state = (row.state.value, row.reason)
                if not has_ended:
                    yield _event("study", await run_in_threadpool(service.data, study_id), offset)
                    said = time.monotonic()
        events, offset = await run_in_threadpool(read_journal, path, offset)
        for at, event in events:
            if event["kind"] in _KINDS:
                yield _event(event["kind"], {name: value for name, value in event.items() if name != "kind"}, at)
                said = time.monotonic()
        if has_ended and not events:
            # Last, so that who listens knows that everything was said.
            yield _event("study", await run_in_threadpool(service.data, study_id), offset)
            return
        if time.monotonic() - said > ALIVE_SECONDS:
            said = time.monotonic()
            yield ": still here\n\n"
        await asyncio.sleep(0 if events else LOOK_SECONDS)


def _event(kind: str, data: dict[str, Any], offset: int) -> str:
    return f"id: {offset}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
