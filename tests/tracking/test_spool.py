from __future__ import annotations

import json
import math
import threading

import pytest

from service.tracking.position import Position, read_position, write_position
from service.tracking.spool import FILE, Spool, count_events, read_events


def epoch(number, **metrics):
    return {"kind": "epoch", "trial": 0, "epoch": number, "time": 5, "metrics": metrics or {"val_accuracy": 0.5}}


def test_events_come_back_in_order_and_from_where_one_was(tmp_path):
    spool = Spool(tmp_path)
    for number in range(5):
        spool.append(epoch(number))
    events, offset = read_events(tmp_path, 0, 3)
    assert [event["epoch"] for event in events] == [0, 1, 2]
    assert count_events(tmp_path, offset) == 2
    rest, end = read_events(tmp_path, offset, 100)
    assert [event["epoch"] for event in rest] == [3, 4]
    assert read_events(tmp_path, end, 100) == ([], end)


def test_what_is_not_finite_survives_and_the_file_is_plain_json(tmp_path):
    Spool(tmp_path).append(epoch(1, a=math.nan, b=-math.inf, c=1.5))
    metrics = read_events(tmp_path, 0, 1)[0][0]["metrics"]
    assert math.isnan(metrics["a"])
    assert (metrics["b"], metrics["c"]) == (-math.inf, 1.5)
    json.loads((tmp_path / FILE).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_event_is_on_disk_when_append_returns(tmp_path):
    spool = Spool(tmp_path)
    spool.append(epoch(1))
    assert count_events(tmp_path, 0) == 1


def test_a_line_under_way_is_left_alone_and_a_torn_one_cut(tmp_path):
    Spool(tmp_path).append(epoch(1))
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"kind": "epo')
    events, offset = read_events(tmp_path, 0, 10)
    assert len(events) == 1
    again = Spool(tmp_path)
    again.append(epoch(2))
    assert [event["epoch"] for event in read_events(tmp_path, offset, 10)[0]] == [2]


def test_many_threads_write_whole_lines(tmp_path):
    spool = Spool(tmp_path)
    threads = [threading.Thread(target=lambda: [spool.append(epoch(n)) for n in range(200)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_events(tmp_path, 0, 10_000)[0]) == 1600


def test_nothing_there_is_nothing_to_read(tmp_path):
    assert read_events(tmp_path / "none", 0, 5) == ([], 0)
    assert count_events(tmp_path / "none", 0) == 0
    assert read_position(tmp_path) == Position()


def test_a_position_is_kept(tmp_path):
    position = Position(offset=7, study="s", runs={"0": "a"}, epochs={"0": 3})
    write_position(tmp_path, position)
    assert read_position(tmp_path) == position
    copy = position.copy()
    copy.runs["1"] = "b"
    assert position.runs == {"0": "a"}
