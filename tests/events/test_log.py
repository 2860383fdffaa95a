from __future__ import annotations

import json
import math
import os
import shutil
import threading

import pytest

from dialin.events.log import FILE, MOST_LINE_BYTES, EventLog, count_events, is_line_start, read_events
from dialin.events.types import EpochReported, TrialEnded, TrialStarted
from dialin.tracking.cursor import Cursor, read_cursor, write_cursor
from dialin.tracking.lag import cause_of, clear_trouble, has_trouble, moved_at, note_progress, note_trouble, read_lag


def epoch(number, **metrics):
    return EpochReported(0, number, metrics or {"val_accuracy": 0.5}, time=5)


def epochs(part):
    return [event.epoch for event in part.events if isinstance(event, EpochReported)]


def test_events_come_back_in_order_and_from_where_one_was(tmp_path):
    log = EventLog(tmp_path)
    for number in range(5):
        log.append(epoch(number))
    part = read_events(tmp_path, 0, 3)
    assert epochs(part) == [0, 1, 2]
    assert count_events(tmp_path, part.offset) == 2
    rest = read_events(tmp_path, part.offset, 100)
    assert epochs(rest) == [3, 4]
    assert read_events(tmp_path, rest.offset, 100) == ([], rest.offset, 0)
    assert epochs(read_events(tmp_path, part.entries[0].end)) == [1, 2, 3, 4]


def test_what_is_not_finite_survives_and_the_file_is_plain_json(tmp_path):
    EventLog(tmp_path).append(epoch(1, a=math.nan, b=-math.inf, c=1.5))
    metrics = read_events(tmp_path, 0, 1).events[0].metrics
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (-math.inf, 1.5)
    json.loads((tmp_path / FILE).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_event_is_on_disk_when_append_returns(tmp_path):
    log = EventLog(tmp_path)
    log.append(epoch(1))
    assert count_events(tmp_path, 0) == 1


def test_a_line_under_way_is_left_alone_and_a_torn_one_cut(tmp_path):
    EventLog(tmp_path).append(epoch(1))
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"kind": "epo')
    part = read_events(tmp_path, 0, 10)
    assert len(part.events) == 1
    again = EventLog(tmp_path)
    again.append(epoch(2))
    assert epochs(read_events(tmp_path, part.offset, 10)) == [2]


def test_many_threads_write_whole_lines(tmp_path):
    log = EventLog(tmp_path)
    threads = [threading.Thread(target=lambda: [log.append(epoch(n)) for n in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_events(tmp_path, 0, 10_000).events) == 1600


def test_nothing_there_is_nothing_to_read(tmp_path):
    assert read_events(tmp_path / "none", 0, 5) == ([], 0, 0)
    assert count_events(tmp_path / "none", 0) == 0
    assert read_cursor(tmp_path) == Cursor()


def test_a_position_is_kept(tmp_path):
    cursor = Cursor(offset=7, study="s", runs={"0": "a"}, epochs={"0": 3})
    write_cursor(tmp_path, cursor)
    assert read_cursor(tmp_path) == cursor
    copy = cursor.copy()
    copy.runs["1"] = "b"
    assert cursor.runs == {"0": "a"}


DAMAGED = {
    "no time": b'{"kind": "trial_started", "trial": 1, "params": {}}',
    "trial null": b'{"kind": "epoch", "trial": null, "epoch": 1, "time": 5, "metrics": {"loss": 1}}',
    "trial true": b'{"kind": "epoch", "trial": true, "epoch": 1, "time": 5, "metrics": {"loss": 1}}',
    "time beyond any": b'{"kind": "epoch", "trial": 1, "epoch": 1, "time": 1e300, "metrics": {"loss": 1}}',
    "metric no number": b'{"kind": "epoch", "trial": 1, "epoch": 1, "time": 5, "metrics": {"loss": []}}',
    "metric beyond any": b'{"kind": "epoch", "trial": 1, "epoch": 1, "time": 5, "metrics": {"loss": %s}}'
    % (b"9" * 400),
    "params a list": b'{"kind": "trial_started", "trial": 1, "time": 5, "params": []}',
    "another kind": b'{"kind": "lunch", "time": 5}',
    "kind a list": b'{"kind": [], "time": 5}',
    "nested 3,000 deep": b'{"kind": "study_ended", "tags": ' + b"[" * 3000 + b"]" * 3000 + b"}",
    "nested 300,000 deep": b"[" * 300_000,
    "3 MB": b'{"kind": "trial_ended", "trial": 1, "time": 5, "state": "failed", "reason": "%s"}' % (b"x" * 3_000_000),
    "no UTF-8": b'{"kind": "lunch\xff\xfe"}',
    "no JSON": b"\0\0\0",
    "empty": b"",
}


@pytest.mark.parametrize("line", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_line_costs_itself_and_is_counted(tmp_path, line):
    EventLog(tmp_path).append(epoch(1))
    with (tmp_path / FILE).open("ab") as file:
        file.write(line + b"\n")
    EventLog(tmp_path).append(epoch(2))
    part = read_events(tmp_path, 0, 10)
    assert epochs(part) == [1, 2]
    assert (part.offset, part.damaged) == ((tmp_path / FILE).stat().st_size, 1)


def test_texts_of_any_length_and_any_characters_fit_into_a_line_and_into_a_database(tmp_path):
    log = EventLog(tmp_path)
    reason = "\udcff\0" + "x" * 3_000_000
    log.append(TrialEnded(1, "failed", reason))
    many = {f"knob_{number}": "y" * 9000 for number in range(1000)}
    log.append(TrialStarted(2, many))
    part = read_events(tmp_path, 0, 10)
    ended, started = part.events
    assert part.damaged == 0
    assert ended.reason.startswith("?\ufffdxxx")
    assert ended.reason.endswith("characters cut ...]")
    assert 7000 < len(ended.reason) <= 8000
    assert set(started.params) == set(many)
    assert max(map(len, (tmp_path / FILE).read_bytes().splitlines())) < MOST_LINE_BYTES
    ended.reason.encode()


def test_what_is_deleted_while_it_is_open_is_written_again_whole(tmp_path):
    log = EventLog(tmp_path / "studies" / "one")
    for number in range(3):
        log.append(epoch(number))
    shutil.rmtree(tmp_path / "studies")
    log.append(epoch(3))
    assert epochs(read_events(tmp_path / "studies" / "one", 0, 10)) == [0, 1, 2, 3]
    assert log.restore() is False
    (tmp_path / "studies" / "one" / FILE).unlink()
    assert log.restore() is True
    assert count_events(tmp_path / "studies" / "one", 0) == 4


POSITIONS = {
    "a list": b"[1, 2]",
    "a number": b"7",
    "binary": bytes(range(256)),
    "runs null": b'{"offset": 1, "study": "s", "runs": null}',
    "runs of numbers": b'{"offset": 1, "study": "s", "runs": {"0": 5}}',
    "epochs of texts": b'{"offset": 1, "study": "s", "epochs": {"0": "5"}}',
    "offset a text": b'{"offset": "1"}',
    "offset below 0": b'{"offset": -5}',
    "offset true": b'{"offset": true}',
    "nested": b"[" * 100_000,
}


@pytest.mark.parametrize("text", POSITIONS.values(), ids=POSITIONS)
def test_a_position_that_cannot_be_is_the_beginning(tmp_path, text):
    EventLog(tmp_path).append(epoch(1))
    (tmp_path / "position.json").write_bytes(text)
    assert read_cursor(tmp_path) == Cursor()
    assert read_lag(tmp_path).events == 1


@pytest.mark.parametrize("offset", [10**15, 7], ids=["behind its end", "within a line"])
def test_an_offset_of_another_spool_says_nothing_of_this_one(tmp_path, offset):
    EventLog(tmp_path).append(epoch(1))
    write_cursor(tmp_path, Cursor(offset=offset))
    assert read_lag(tmp_path).events == 1
    assert not is_line_start(tmp_path, offset)


def test_a_lag_in_words_with_its_cause_and_without_a_password(tmp_path):
    assert read_lag(tmp_path).text() == ""
    log = EventLog(tmp_path)
    log.append(epoch(1))
    assert read_lag(tmp_path).text() == "MLflow lags by 1 event"
    log.append(epoch(2))
    note_trouble(tmp_path, "ConnectionError: http://me:secret@mlflow:5000/api\x1b[2J is away\nand more")
    assert read_lag(tmp_path).text() == (
        "MLflow lags by 2 events (ConnectionError: http://***@mlflow:5000/api is away)"
    )
    write_cursor(tmp_path, Cursor(offset=(tmp_path / FILE).stat().st_size, damaged=3))
    assert read_lag(tmp_path).text() == "3 lines of the study's event log are damaged and left out of MLflow"
    clear_trouble(tmp_path)
    assert not (tmp_path / "recorder.trouble").exists()


def test_trouble_is_over_once_a_recorder_begins_or_gets_something_done(tmp_path):
    assert not has_trouble(tmp_path)
    note_trouble(tmp_path, "away")
    assert has_trouble(tmp_path)
    os.utime(tmp_path / "recorder.trouble", (5, 5))
    note_progress(tmp_path)
    assert not has_trouble(tmp_path)
    assert moved_at(tmp_path) > 5


def test_a_cause_begins_with_what_it_came_of():
    with pytest.raises(RuntimeError) as caught:
        try:
            try:
                raise ConnectionRefusedError(111, "Connection refused")
            except OSError as error:
                raise ValueError("x" * 1000) from error
        except ValueError:
            raise RuntimeError("API request to http://x failed with exception " + "y" * 1000)  # noqa: B904  as MLflow does
    text = cause_of(caught.value)
    assert text == "ConnectionRefusedError: [Errno 111] Connection refused; API request to http://x"
    assert cause_of(ValueError("alone")) == "ValueError: alone"
