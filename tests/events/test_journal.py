from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from dialin.events.journal import Journal, read_journal
from dialin.lifecycle import TrialState
from dialin.search.decision import Decision
from dialin.search.records import Trial
from dialin.study_flow.progress import Progress


def quiet() -> Progress:
    return Progress(Console(quiet=True))


def test_what_happened_is_read_back_in_order_and_from_anywhere(tmp_path):
    path, trial = tmp_path / "study" / "journal.jsonl", Trial(3, {"lr": 0.1}, 7)
    with Journal(path, quiet()) as journal:
        journal.trial_started(trial)
        journal.epoch_done(trial, 1, math.nan)
        journal.decided(trial, 1, Decision("diverge", "not_finite", 1, "value", math.nan))
        journal.trial_ended(trial, Decision("diverge", "not_finite", 1, "value", math.nan))
    events, end = read_journal(path, 0)
    assert [event["kind"] for _, event in events] == ["trial_started", "epoch", "decision", "trial_ended"]
    assert events[1][1]["value"] is None
    assert events[2][1]["reason"] == "value was nan after epoch 1"
    assert end == path.stat().st_size == events[-1][0]
    assert read_journal(path, events[1][0])[0] == events[2:]
    assert read_journal(path, end) == ([], end)
    assert read_journal(tmp_path / "nothing", 5) == ([], 5)


def test_half_a_line_is_waited_for_and_spoils_nothing(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"kind": "note", "text": "a"}\n{"kind": "no')
    events, offset = read_journal(path, 0)
    assert [event["text"] for _, event in events] == ["a"]
    with Journal(path, quiet()) as journal:  # its writer was killed; another one goes on
        journal.note("b")
    assert [event["text"] for _, event in read_journal(path, offset)[0]] == ["b"]


def test_a_full_disk_is_the_studys_to_notice(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl", quiet())
    journal._file.close()
    with Path("/dev/full").open("ab", buffering=0) as full:
        journal._file = full
        journal.note("lost")
    assert read_journal(tmp_path / "journal.jsonl", 0) == ([], 0)


def test_a_long_line_is_cut_where_it_is_written(tmp_path):
    path, trial = tmp_path / "journal.jsonl", Trial(0, {"choice": "x" * 300_000, "lr": 0.1}, 7)
    with Journal(path, quiet()) as journal:
        journal.trial_started(trial)
        journal.trial_ended(trial, Decision.of_state(TrialState.FAILED, "y" * 3_000_000))
        journal.trial_started(Trial(1, {f"knob{n}": "z" * 100 for n in range(2000)}, 7))
        journal.note("after \udcff")
    assert max(map(len, path.read_bytes().splitlines())) < 2**17
    (started, ended, _), (last, _) = [[event for _, event in part] for part in _parts(path)]
    assert started["params"]["lr"] == 0.1
    assert "characters cut" in started["params"]["choice"]
    assert "characters cut" in ended["reason"]
    assert last["text"] == "after \udcff"


def _parts(path):
    events, offset = read_journal(path, 0)
    assert offset == path.stat().st_size
    return events[:3], [*events[-1:], (0, {})]


@pytest.mark.parametrize("size", [2**20 - 1, 2**20, 2**20 + 1, 9_000_000])
def test_a_line_longer_than_any_writers_is_passed_over_with_a_note(tmp_path, size):
    path = tmp_path / "journal.jsonl"
    after = json.dumps({"kind": "note", "text": "after", "time": 1.0})
    path.write_bytes(b"x" * size + b"\n" + after.encode() + b"\n")
    told, offset = [], 0
    while True:
        events, end = read_journal(path, offset)
        if end == offset:
            break
        told, offset = [*told, *(event["text"] for _, event in events)], end
    assert offset == path.stat().st_size
    assert told[-1] == "after"
    if size >= 2**20:
        assert told[0] == f"[a line of {size + 1:,} bytes in the study's journal is left out]"


def test_an_overlong_line_under_way_is_waited_for(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"x" * 3_000_000)
    assert read_journal(path, 0) == ([], 0)


@pytest.mark.parametrize(
    "line",
    [
        b"noise \r and more",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[1]",
        b'{"kind": 5}',
        b'{"kind": "epoch", "trial": 1}',
        b'{"kind": "epoch", "trial": "x", "epoch": 1, "time": 1, "value": 1}',
        b'{"kind": "epoch", "trial": 1, "epoch": 1, "time": null, "value": 1}',
        b'{"kind": "epoch", "trial": 1, "epoch": 1, "time": 1, "value": NaN}',
        b'{"kind": "trial_ended", "trial": 1, "time": 1, "state": "gone", "reason": ""}',
    ],
)
def test_a_line_that_is_no_event_spoils_none_behind_it(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(line + b'\n{"kind": "note", "text": "after", "time": 1}\n')
    events, offset = read_journal(path, 0)
    assert [event["text"] for _, event in events] == ["after"]
    assert offset == path.stat().st_size
