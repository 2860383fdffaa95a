"""A study's events from a server, for as long as the study runs.

They come from the server's event stream. A stream that breaks is opened again after the last event that arrived; where
no stream can be had, as behind some proxies, the study is polled.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from dialin.client.answers import read_study, study_path
from dialin.client.http import Connection, Message
from dialin.errors import ClusterError, ProtocolError, RateLimitedError, ServerError
from dialin.schemas import Event, Study

POLL_SECONDS = 2.0  # between two requests for the study when there is no event stream
MAX_BREAKS = 3  # consecutive streams that broke before their first byte; then the study is polled
MAX_FAILURES = 10  # consecutive polls that failed, each after its own attempts; then the error is raised
_TEMPORARY = (ServerError, ClusterError, RateLimitedError)  # errors that may be over after a while


class EventReader:
    """Reads the events of one study until it has ended or `deadline` has passed (of `time.monotonic`; None: never)."""

    def __init__(
        self,
        connection: Connection,
        study: Study,
        deadline: float | None,
        heard: Callable[[Study], None],
        refresh: Callable[[], Study],
    ) -> None:
        self._connection = connection
        self._study = study
        self._deadline = deadline
        self._heard = heard
        self._refresh = refresh

    def read(self, last_id: str | None = None) -> Iterator[Event]:
        """The events after the one with the id `last_id`, the last of them the study's end.

        Raises TimeoutError at the deadline, and the server's error when it stays away.
        """
        breaks = 0

        def heartbeat() -> None:
            nonlocal breaks
            breaks = 0
            self._check_deadline()

        path = f"{study_path(self._study.id)}/events"
        # Proxies that cut or buffer event streams do so every time: after a few attempts, polling is what works.
        while breaks < MAX_BREAKS:
            breaks += 1
            try:
                # A stream may be silent no longer than the connection's timeout, and not beyond the deadline.
                with self._connection.stream(path, last_id, self._silence(), heartbeat) as messages:
                    for message in messages:
                        heartbeat()
                        event = self._event(message)
                        last_id = event.id
                        yield event
                        if event.kind == "study" and self._study.ended:
                            return
            except ProtocolError:
                break  # another attempt would read the same
            except _TEMPORARY:
                self._pause(self._connection.retries.seconds(breaks))
        yield from self._poll()

    def _event(self, message: Message) -> Event:
        try:
            data = json.loads(message.data)
        except ValueError as error:
            raise ProtocolError(f"the server sends an event {message.kind} that is no JSON: {error}") from error
        if message.kind == "study":
            self._take(read_study(Study, data))
        return Event(id=message.id, kind=message.kind, data=data if isinstance(data, dict) else {})

    def _take(self, study: Study) -> None:
        self._study = study
        self._heard(study)

    def _poll(self) -> Iterator[Event]:
        """A `study` event now and whenever the study has changed, until it has ended."""
        before: Study | None = None
        while True:
            study = self.look()
            if study != before:  # a study that trains for hours between two reports says nothing meanwhile
                before = study
                yield Event(id="", kind="study", data=study.model_dump(mode="json"))
            if study.ended:
                return
            self._pause(POLL_SECONDS)

    def look(self) -> Study:
        """The study as it is now, in spite of a server that is away for a while."""
        for failures in range(MAX_FAILURES):
            self._check_deadline()
            try:
                self._study = self._refresh()
                break
            except _TEMPORARY as error:
                if failures == MAX_FAILURES - 1 or isinstance(error, ProtocolError):
                    raise
                self._pause(self._connection.retries.seconds(failures + 2))
        return self._study

    def _silence(self) -> float:
        """Seconds for which a stream may send nothing."""
        left = float("inf") if self._deadline is None else self._deadline - time.monotonic()
        return max(0.01, min(self._connection.timeout, left))

    def _pause(self, seconds: float) -> None:
        left = seconds if self._deadline is None else min(seconds, self._deadline - time.monotonic())
        if left > 0:
            self._connection.retries.sleep(left)
        self._check_deadline()

    def _check_deadline(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TimeoutError(f"study {self._study.id} is still {self._study.state}")
