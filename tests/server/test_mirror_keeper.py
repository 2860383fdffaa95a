"""MLflow catches up with studies that nobody drives. Recorders are played by small scripts here."""

from __future__ import annotations

import sys
import time

import pytest

from dialin.events.log import read_events
from dialin.events.rebuild import append
from dialin.events.types import StudyEnded, StudyStarted
from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
from dialin.server import mirror_keeper
from dialin.server.mirror_keeper import MirrorKeeper
from dialin.specification import to_yaml
from dialin.store.leases import acquire
from dialin.store.studies import Studies
from dialin.tracking.cursor import Cursor, write_cursor
from dialin.tracking.lag import note_trouble, recorder_lock
from tests.factories import make_spec
from tests.study_flow.test_run import lag_line

WRITES = """
import sys
from pathlib import Path
from dialin.tracking.cursor import Cursor, write_cursor
folder = Path(sys.argv[1])
write_cursor(folder, Cursor(offset=(folder / "events.jsonl").stat().st_size, study="s", ended=True))
"""


@pytest.fixture
def commands(monkeypatch):
    """Every recorder that was started, by its spool folder; which code it runs is for a test to say."""
    started, code = [], {"": WRITES}

    def command(folder, uri, artifacts, patience):
        started.append(folder.parent.name)
        return [sys.executable, "-c", code.get(folder.parent.name, code[""]), str(folder)]

    monkeypatch.setattr(mirror_keeper, "recorder_command", command)
    monkeypatch.setattr(mirror_keeper, "FIRST_PAUSE", 0.2)
    return started, code


@pytest.fixture
def keep(settings):
    kept = []

    settings.out.mkdir(parents=True, exist_ok=True)

    def make():
        kept.append(MirrorKeeper(settings, poll_seconds=0.02))
        return kept[-1]

    yield make
    for one in kept:
        one.close()
        one.run()  # as it ends


def study(settings, name, state=StudyState.COMPLETE, ends=True):
    """A study that MLflow has nothing of."""
    with Studies(settings.database) as studies:
        row = studies.create(name, to_yaml(make_spec(f"name={name}")))
        if state is not StudyState.RUNNING:
            studies.end(row.id, state, "so it was", {})
    folder = OutputFolder(settings.out).study(row.id).events
    append(folder, [StudyStarted(row.id, name, {}, {}, time=5)])
    append(folder, [StudyEnded(state.value, "", time=6)] if ends else [])
    return row.id, folder


def steps(keeper, until, seconds=20):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline
        keeper.step()
        time.sleep(0.02)


def test_every_study_that_has_ended_is_written_a_few_at_a_time_and_once(settings, commands, keep):
    started, _ = commands
    ids = {study(settings, f"s{number}")[0] for number in range(5)}
    one = keep()
    one.step()
    assert len(started) == mirror_keeper.MOST_RECORDERS
    steps(one, lambda: len(started) == 5 and not one.at_work)
    assert set(started) == ids
    for _ in range(10):
        one.step()
    assert len(started) == 5


def test_a_study_that_goes_on_and_ends_again_is_looked_at_again(settings, commands, keep):
    started, _ = commands
    study_id, folder = study(settings, "s")
    one = keep()
    steps(one, lambda: one.complete)
    with Studies(settings.database) as studies:
        studies.end(study_id, StudyState.COMPLETE, "", {})
    (folder / "position.json").unlink()
    steps(one, lambda: len(started) == 2)


def test_a_study_that_waits_for_its_next_driver_is_written_too(settings, commands, keep):
    started, _ = commands
    waiting, _ = study(settings, "waiting", StudyState.QUEUED, ends=False)
    steps(keep(), lambda: started == [waiting])


def test_a_study_that_is_driven_or_recorded_is_left_alone(settings, commands, keep):
    started, _ = commands
    driven, _ = study(settings, "driven", StudyState.RUNNING, ends=False)
    _, recorded = study(settings, "recorded")
    one = keep()
    with acquire(settings.database, driven), recorder_lock(recorded, 0.0):
        for _ in range(5):
            one.step()
        assert started == []
    steps(one, lambda: sorted(name.partition("-")[0] for name in started) == ["driven", "recorded"])


def test_recorders_that_fail_come_ever_more_rarely_one_at_a_time_and_hold_up_no_other(settings, commands, keep):
    started, code = commands
    bad, _ = study(settings, "bad")
    code[bad] = "raise SystemExit(3)"
    one = keep()
    steps(one, lambda: started.count(bad) == 3)
    assert one.failures_of(bad).count >= 2
    pause = one.failures_of(bad).not_before - time.monotonic()
    assert pause <= 0.2 * 2 ** one.failures_of(bad).count
    good, _ = study(settings, "good")
    steps(one, lambda: good in started and not one.at_work)
    assert one.all_failures.count == 0 or started[-1] == bad


def test_of_two_servers_over_one_folder_one_keeps_up(settings, commands, keep):
    started, _ = commands
    first, second = keep(), keep()
    first.step()
    study(settings, "s")
    for _ in range(5):
        second.step()
    assert started == []
    steps(first, lambda: len(started) == 1)


def test_how_a_study_ended_is_told_when_its_driver_could_not(settings, commands, keep):
    started, _ = commands
    _, folder = study(settings, "s", StudyState.FAILED, ends=False)
    write_cursor(folder, Cursor(offset=(folder / "events.jsonl").stat().st_size, study="s"))  # all that was said
    one = keep()
    steps(one, lambda: started)
    last = read_events(folder, 0, 10).events[-1]
    assert (last.kind, last.state, last.reason) == ("study_ended", "failed", "so it was")


def test_a_study_whose_specification_cannot_be_read_ends_in_mlflow_too(settings, commands, keep):
    started, _ = commands
    broken, folder = study(settings, "broken", StudyState.FAILED, ends=False)
    with Studies(settings.database) as studies:
        studies.mark_running(broken, "space: [")
        studies.end(broken, StudyState.FAILED, "so it was", {})
    good, _ = study(settings, "good")
    one = keep()
    steps(one, lambda: {good, broken} <= set(started))
    last = read_events(folder, 0, 10).events[-1]
    assert (last.kind, last.state, last.reason) == ("study_ended", "failed", "so it was")


def test_the_lag_of_a_study_that_has_ended_and_its_cause_are_in_the_api_and_on_its_page(client, settings):
    settings.out.mkdir(parents=True, exist_ok=True)
    study_id, folder = study(settings, "s")
    note_trouble(folder, "ConnectionRefusedError: [Errno 111] <b>Connection</b> refused")
    told = client.get(f"/api/v1/studies/{study_id}").json()
    words = "MLflow lags by 2 events (ConnectionRefusedError: [Errno 111] <b>Connection</b> refused)"
    assert (told["mirror_lag"], told["mirror_note"]) == (2, words)
    page = client.get(f"/studies/{study_id}").text
    assert words.replace("<", "&lt;").replace(">", "&gt;") in page
    with Studies(settings.database) as studies:
        studies.end(study_id, StudyState.COMPLETE, "", {"trials": {"complete": 1}})
    (folder / "events.jsonl").unlink()
    assert "the study's event log is gone" in lag_line(settings, study_id)
