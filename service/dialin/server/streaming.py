"""A study's event log as server-sent events.

The id of an event is the byte offset behind it in the log, so that a client that reconnects with `Last-Event-ID` misses
nothing. The event `study`, which says how the study is, is not in the log: it has the offset at which it was sent.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from dialin.errors import NotFoundError, UsageError
from dialin.events.log import FILE, Part, is_line_start, metric_of, read_events
from dialin.events.served import served_data
from dialin.lifecycle import ACTIVE
from dialin.server.rate_limit import ConcurrencyLimit
from dialin.server.services.studies import StudyService
from dialin.store.studies import StudyRow
from dialin.store.tokens import Identity

LOOK_SECONDS = 0.25  # between two reads of the event log
STATE_SECONDS = 1.0  # between two reads of the study's row and of the listener's rights
ALIVE_SECONDS = 15.0  # without an event, until a comment is sent so that no proxy closes the connection
READ_BYTES = 1 << 20  # of the log, at a time


@dataclass(frozen=True)
class Listener:
    """Who receives a stream.

    identity: the caller.
    may_go_on: whether the caller still has the right to it: a token may have been revoked.
    """

    identity: Identity
    may_go_on: Callable[[], bool]


class _Stream(StreamingResponse):
    """A response that calls `end` once it has ended, for whatever reason."""

    def __init__(self, content: AsyncIterator[bytes], end: Callable[[], None]) -> None:
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
    """A study's events as a response, which ends when the study has ended and everything was sent, or when the listener
    loses the right to it.

    last: the id of the last event that the client has; None: from the first event on, or with `tail` from now on.
    Raises UsageError for a malformed id, and RateLimitedError when the listener has too many streams."""
    if last is not None and not (last.isascii() and last.isdigit()):
        raise UsageError(f"Last-Event-ID {last!r} is not an id of this server: ids are whole numbers")
    folder = (await run_in_threadpool(service.folder, study_id)).events
    offset = await run_in_threadpool(_first_offset, folder, last, tail)
    metric = await run_in_threadpool(metric_of, folder)
    further = await run_in_threadpool(service.further, study_id)
    # The last step: nothing is awaited between this and the response that gives the place back.
    name = listener.identity.name
    places.acquire(name)
    feed = _Feed(service, study_id, folder, metric, further, offset, listener.may_go_on)
    return _Stream(feed.follow(request), lambda: places.release(name))


@dataclass
class _Feed:
    """One client's way through an event log.

    further: what counts beside the study's first metric.
    offset: how much of the log was sent.
    state: the study's state and reason that were sent last.
    """

    service: StudyService
    study_id: str
    folder: Path
    metric: str
    further: tuple[str, ...]
    offset: int
    may_go_on: Callable[[], bool]
    state: tuple[str, str] = ("", "")

    async def follow(self, request: Request) -> AsyncIterator[bytes]:
        said, looked_at = time.monotonic(), -STATE_SECONDS
        while not await request.is_disconnected():
            messages: list[bytes] = []
            has_ended = False
            if time.monotonic() - looked_at >= STATE_SECONDS:
                looked_at = time.monotonic()
                look = await run_in_threadpool(self._look)
                if look is None:
                    return
                has_ended, messages = look
            before = self.offset
            messages += _messages(await run_in_threadpool(self._read_on), self.further)
            for message in messages:
                yield message
            is_at_end = self.offset == before
            if has_ended and is_at_end:
                # Sent last, so that the client knows that nothing follows.
                yield await run_in_threadpool(self._study_message)
                return
            if messages:
                said = time.monotonic()
            elif time.monotonic() - said > ALIVE_SECONDS:
                said = time.monotonic()
                yield b": still here\n\n"
            await asyncio.sleep(LOOK_SECONDS if is_at_end else 0)

    def _look(self) -> tuple[bool, list[bytes]] | None:
        """Return whether the study has ended, and its state as a message if that is new.

        None when the stream must end: the listener has lost its right, or the study was deleted.
        """
        if not self.may_go_on():
            return None
        try:
            return self._state_of(self.service.entry(self.study_id).study)
        except NotFoundError:
            return None

    def _state_of(self, row: StudyRow) -> tuple[bool, list[bytes]]:
        before, self.state = self.state, (row.state.value, row.reason)
        if row.state not in ACTIVE:
            return True, []
        return False, [] if self.state == before else [self._study_message()]

    def _read_on(self) -> Part:
        part = read_events(self.folder, self.offset, most_bytes=READ_BYTES, metric=self.metric)
        self.offset = part.offset
        return part

    def _study_message(self) -> bytes:
        return _message("study", self.service.short(self.study_id).model_dump(mode="json"), self.offset)


def _first_offset(folder: Path, last: str | None, tail: bool) -> int:
    """Where a stream starts. An id that does not fit the log is one of a log that was replaced: start again."""
    if last is not None:
        return int(last) if is_line_start(folder, int(last)) else 0
    file = folder / FILE
    return file.stat().st_size if tail and file.exists() else 0


def _messages(part: Part, further: Sequence[str]) -> list[bytes]:
    served = ((entry, served_data(entry.event, further)) for entry in part.entries)
    return [_message(entry.event.kind, data, entry.end) for entry, data in served if data is not None]


def _message(kind: str, data: Mapping[str, Any], offset: int) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (offset, kind.encode(), json.dumps(data).encode())
