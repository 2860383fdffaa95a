"""What readers of an event log may rely on, whatever is in the file; and what the publisher writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from dialin.events.log import FILE, MOST_LINE_BYTES, EventLog, metric_of, read_events
from dialin.events.publisher import Publisher
from dialin.events.served import MOST_DATA_BYTES, served_data
from dialin.events.types import EpochReported, Note, StudyStarted, TrialDecided, TrialEnded, TrialStarted
from dialin.search.decision import Decision
from dialin.study_flow.progress import Progress

DECISION = TrialDecided(3, 1, Decision("stop", "rung_rank", 1, "loss", 0.5, rung=1, rank=3, of=4, quota=1))


class Heard:
    """A listener that remembers."""

    def __init__(self):
        self.events, self.notes = [], []

    def receive(self, event):
        self.events.append(event)

    def note(self, text):
        self.notes.append(text)


def texts(folder, offset=0):
    return [event.text for event in read_events(folder, offset).events if isinstance(event, Note)]


def test_what_happened_is_read_back_in_order_and_from_anywhere(tmp_path):
    heard = Heard()
    with EventLog(tmp_path / "study") as log:
        publisher = Publisher(log, heard)
        publisher.publish(TrialStarted(3, {"lr": 0.1}))
        publisher.publish(EpochReported(3, 1, {"loss": 0.5}, None), DECISION)
        publisher.publish(TrialEnded(3, "diverged", "value was nan"))
    part = read_events(tmp_path / "study", 0)
    assert part.events == heard.events
    assert [event.kind for event in part.events] == ["trial_started", "epoch", "decision", "trial_ended"]
    assert part.events[1].value is None
    assert part.events[2].decision == DECISION.decision
    assert part.offset == (tmp_path / "study" / FILE).stat().st_size == part.entries[-1].end
    assert read_events(tmp_path / "study", part.entries[1].end).entries == part.entries[2:]
    assert read_events(tmp_path / "study", part.offset) == ([], part.offset, 0)
    assert read_events(tmp_path / "nothing", 5) == ([], 5, 0)


def test_an_incomplete_line_is_waited_for_and_spoils_nothing(tmp_path):
    (tmp_path / FILE).write_text('{"kind": "note", "text": "a", "time": 1}\n{"kind": "no')
    part = read_events(tmp_path, 0)
    assert [event.text for event in part.events] == ["a"]
    with EventLog(tmp_path) as log:  # its writer was killed; another one continues
        log.append(Note("b"))
    assert texts(tmp_path, part.offset) == ["b"]


def test_a_full_disk_costs_a_note_but_stops_an_event(tmp_path):
    heard = Heard()
    log = EventLog(tmp_path)
    log._file.close()
    with Path("/dev/full").open("ab", buffering=0) as full:
        log._file, log._path = full, Path("/dev/full")
        publisher = Publisher(log, heard)
        publisher.note("lost")
        with pytest.raises(OSError, match="[Nn]o space left"):
            publisher.publish(TrialStarted(0, {}))
    assert (heard.notes, heard.events) == (["lost"], [])
    assert read_events(tmp_path, 0) == ([], 0, 0)


def test_long_texts_are_cut_in_what_is_streamed(tmp_path):
    with EventLog(tmp_path) as log:
        log.append(TrialStarted(0, {"choice": "x" * 300_000, "lr": 0.1}))
        log.append(TrialEnded(0, "failed", "y" * 3_000_000))
        log.append(TrialStarted(1, {f"knob{n}": "z" * 100 for n in range(2000)}))
        log.append(Note("after \udcff"))
    assert max(map(len, (tmp_path / FILE).read_bytes().splitlines())) < MOST_LINE_BYTES
    started, ended, many, last = (served_data(event) for event in read_events(tmp_path, 0).events)
    assert max(len(json.dumps(data)) for data in (started, ended, many, last)) <= MOST_DATA_BYTES
    assert started["params"]["lr"] == 0.1
    assert "characters cut" in started["params"]["choice"]
    assert "characters cut" in ended["reason"]
    assert (many["trial"], many["params"]) == (1, {})
    assert last["text"] == "after ?"


@pytest.mark.parametrize("size", [2**20, 2**20 + 1, 9_000_000])
def test_a_line_longer_than_any_writers_is_passed_over_with_a_note(tmp_path, size):
    after = json.dumps({"kind": "note", "text": "after", "time": 1})
    (tmp_path / FILE).write_bytes(b"x" * size + b"\n" + after.encode() + b"\n")
    part = read_events(tmp_path, 0)
    assert part.offset == (tmp_path / FILE).stat().st_size
    assert part.damaged == 1
    assert texts(tmp_path) == [f"[a line of {size + 1:,} bytes in the study's event log is left out]", "after"]


def test_a_line_of_the_greatest_length_is_an_ordinary_one(tmp_path):
    (tmp_path / FILE).write_bytes(b"x" * (2**20 - 1) + b"\n" + b'{"kind": "note", "text": "after", "time": 1}\n')
    assert texts(tmp_path) == ["after"]


def test_an_overlong_line_that_is_incomplete_is_waited_for(tmp_path):
    (tmp_path / FILE).write_bytes(b"x" * 3_000_000)
    assert read_events(tmp_path, 0) == ([], 0, 0)


@pytest.mark.parametrize(
    "line",
    [
        b"noise \r and more",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1]",
        b'{"kind": 5}',
        b'{"kind": "epoch", "trial": 1}',
        b'{"kind": "epoch", "trial": "x", "epoch": 1, "time": 1, "metrics": {}, "value": 1}',
        b'{"kind": "epoch", "trial": 1, "epoch": 1, "time": null, "metrics": {}, "value": 1}',
        b'{"kind": "epoch", "trial": 1, "epoch": 1, "time": 1, "metrics": {}, "value": "x"}',
        b'{"kind": "trial_ended", "trial": 1, "time": 1, "state": 3, "reason": ""}',
        b'{"kind": "decision", "trial": 1, "epoch": 1, "time": 1, "action": "ponder", "cause": "unknown"}',
        b'{"kind": "decision", "trial": 1, "epoch": 1, "time": 1, "action": "stop", "cause": "unknown", "cutoff": []}',
    ],
)
def test_a_line_that_is_not_an_event_spoils_none_after_it(tmp_path, line):
    (tmp_path / FILE).write_bytes(line + b'\n{"kind": "note", "text": "after", "time": 1}\n')
    part = read_events(tmp_path, 0)
    assert [event.text for event in part.events] == ["after"]
    assert part.offset == (tmp_path / FILE).stat().st_size


OLD = (
    b'{"kind":"study_started","study":"s-1","name":"s","time":5,"params":{"metric":"val_accuracy"},"tags":{}}\n'
    b'{"kind":"trial_started","trial":0,"time":6,"params":{"lr":0.1}}\n'
    b'{"kind":"epoch","trial":0,"epoch":1,"time":7,"metrics":{"val_accuracy":0.5,"val_loss":1.5}}\n'
    b'{"kind":"epoch","trial":0,"epoch":2,"time":8,"metrics":{"val_accuracy":"nan"}}\n'
    b'{"kind":"trial_ended","trial":0,"time":9,"state":"complete","reason":""}\n'
)


def test_a_log_of_an_older_version_says_the_value_by_its_metric(tmp_path):
    """Before there was one log, epochs had no `value`, trials no `epochs` and no `tags`."""
    (tmp_path / FILE).write_bytes(OLD)
    assert metric_of(tmp_path) == "val_accuracy"
    part = read_events(tmp_path, 0, metric="val_accuracy")
    assert part.damaged == 0
    begun, started, first, second, ended = part.events
    assert (begun, started) == (
        StudyStarted("s-1", "s", {"metric": "val_accuracy"}, {}, time=5),
        TrialStarted(0, {"lr": 0.1}, 0, time=6),
    )
    assert [(event.epoch, event.value) for event in (first, second)] == [(1, 0.5), (2, None)]
    assert served_data(first) == {"trial": 0, "epoch": 1, "value": 0.5, "time": 0.007}
    assert served_data(ended) == {"trial": 0, "state": "complete", "reason": "", "time": 0.009}


def test_a_decision_is_served_as_fields_and_as_a_sentence():
    assert served_data(TrialDecided(3, 9, DECISION.decision, time=7000)) == {
        "trial": 3, "epoch": 9, "time": 7.0, "stop": True, "reason": DECISION.decision.text(),
        "action": "stop", "cause": "rung_rank", "metric": "loss", "value": 0.5, "rung": 1, "rank": 3, "of": 4, "quota": 1,
    }  # fmt: skip


def test_progress_shows_what_it_receives():
    console = Console(record=True, width=200, force_terminal=False)
    progress = Progress(console)
    progress.receive(TrialStarted(0, {"lr": 0.1}))
    progress.receive(EpochReported(0, 1, {"val_accuracy": 0.5}, 0.5))
    progress.receive(TrialEnded(0, "failed", "out of memory"))
    assert "trial 0 failed: out of memory" in console.export_text()
