from __future__ import annotations

import httpx
import pytest

from dialin.client.http import Connection, Message, Retries

FIRST, SECOND = Message("1", "epoch", "a\nb"), Message("1", "message", "c")


class Chunks(httpx.SyncByteStream):
    """An answer whose bytes come in the chunks that were given."""

    def __init__(self, chunks):
        self.chunks = chunks

    def __iter__(self):
        return iter(self.chunks)


def heard(*chunks, heartbeat=lambda: None):
    def answer(_request):
        return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Chunks(chunks))

    connection = Connection("http://s", None, 5, httpx.MockTransport(answer), Retries())
    with connection.stream("/events", None, 5, heartbeat) as messages:
        return list(messages)


STREAM = "id: 1\nevent: epoch\ndata: a\ndata: b\n\n: still there\ndata: c\n\n"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CR LF", "CR"])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_each_end_of_line_of_the_standard_ends_a_line_however_it_is_cut(end, size):
    data = STREAM.replace("\n", end).encode()
    assert heard(*[data[start : start + size] for start in range(0, len(data), size)]) == [FIRST, SECOND]


def test_what_is_no_end_of_line_stays_in_the_line():
    text = "a\u2028b\x0bc\x85d"
    assert heard(f"data: {text}\n\n".encode()) == [Message("", "message", text)]


def test_comments_are_signs_of_life_and_no_messages():
    beats = []
    chunks = [b"id: 1\nevent: epoch\ndata: a\n", b"data: b\n\n", b": still there\n\n", b": and still\n\n"]
    assert heard(*chunks, heartbeat=lambda: beats.append(None)) == [FIRST]
    assert len(beats) == len(chunks)


def test_what_a_heartbeat_raises_ends_the_stream():
    def late():
        raise TimeoutError("late")

    with pytest.raises(TimeoutError, match="late"):
        heard(b": still there\n\n", heartbeat=late)
