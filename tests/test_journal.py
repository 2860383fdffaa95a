from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console

from service.journal import Journal, read_journal
from service.progress import Progress
from service.search.records import Decision, Outcome, State, Trial


def quiet() -> Progress:
    return Progress(Console(quiet=True))


def test_what_happened_is_read_back_in_order_and_from_anywhere(tmp_path):
    path, trial = tmp_path / "study" / "journal.jsonl", Trial(3, {"lr": 0.1}, 7)
    with Journal(path, quiet()) as journal:
        journal.trial_started(trial)
        journal.epoch_done(trial, 1, math.nan)
        journal.decided(trial, 1, Decision(True, "value was nan", State.DIVERGED))
        journal.trial_ended(trial, Outcome(State.DIVERGED, "value was nan"))
    events, end = read_journal(path, 0)
    assert [event["kind"] for _, event in events] == ["trial_started", "epoch", "decision", "trial_ended"]
    assert events[1][1]["value"] is None
    assert events[2][1]["reason"] == "value was nan"
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
