"""What a server does about studies of many trials: it reads what may have changed, makes what it shows, and keeps a
bounded part."""

from __future__ import annotations

import re
import time

import pytest

from dialin.events.log import EventLog
from dialin.events.types import EpochReported
from dialin.lifecycle import StudyState, TrialState
from dialin.paths import OutputFolder
from dialin.search.decision import Decision
from dialin.search.records import TrialRecord
from dialin.search.storage import open_storage
from dialin.search.study import Study
from dialin.server.services.time_left import seconds_left
from dialin.server.study_reader import SharedStudyReader
from dialin.specification import stored_spec, to_yaml
from dialin.store.studies import Studies
from tests.factories import make_plan

TRIALS = 60


@pytest.fixture
def made(settings):
    """Makes studies of many trials, two of each being trained."""
    settings.out.mkdir(parents=True, exist_ok=True)
    storage = open_storage(settings.database)

    def make(trials: int = TRIALS, ended: bool = False):
        plan = make_plan(f"budget.trials={trials + 10}", "search.sampler=random", "early_stopping=off")
        with Studies(settings.database) as studies:
            row = studies.create("large", to_yaml(plan.spec))
        study = Study.open(plan, storage, row.id)
        for number in range(trials):
            trial = study.ask()
            with study.batch():
                for epoch in (1, 2):
                    study.report(trial, epoch, (number * 37 % 101) / 101 + epoch / 1000)
                if ended or number < trials - 2:
                    study.tell(trial, Decision.of_state(TrialState.STOPPED, "enough"))
        if ended:
            with Studies(settings.database) as studies:
                studies.end(row.id, StudyState.INTERRUPTED, "made up", {})
                row = studies.find(row.id)
        return row, study

    yield make
    storage.engine.dispose()


@pytest.fixture
def counted(monkeypatch):
    """How many records of trials were made."""
    made, original = [], TrialRecord.__init__

    def init(self, *arguments, **keywords):
        original(self, *arguments, **keywords)
        made.append(self.number)

    monkeypatch.setattr(TrialRecord, "__init__", init)
    return made


def test_a_second_look_reads_only_the_trials_that_are_being_trained(client, made, counted):
    row, study = made()
    own = f"/api/v1/studies/{row.id}"
    assert client.get(own).json()["trials"]["running"] == 2
    counted.clear()
    study.report(study.ask(), 1, 0.99)
    time.sleep(1.1)  # answers are at most a second old
    for path in (own, f"{own}/trials?sort=-value", f"{own}/best", f"/studies/{row.id}"):
        assert client.get(path).status_code == 200
    assert client.get(own).json()["trials"]["running"] == 3
    assert set(counted) == {TRIALS - 2, TRIALS - 1, TRIALS}
    assert len(counted) < TRIALS  # in all looks together


def test_pages_of_sorted_trials_are_the_whole_in_its_order(client, made):
    row, _ = made()
    path, found, cursor = f"/api/v1/studies/{row.id}/trials?sort=-value&limit=7", [], ""
    while cursor is not None:
        page = client.get(path + cursor).json()
        found += [(trial["value"], trial["trial"]) for trial in page["trials"]]
        cursor = f"&cursor={page['next']}" if page["next"] else None
    assert [number for _, number in found] == [n for _, n in sorted(found, key=lambda one: (-one[0], one[1]))]
    assert sorted(number for _, number in found) == list(range(TRIALS))


def test_what_is_kept_is_bounded_in_bytes(settings, made):
    rows = [made(20, ended=True)[0] for _ in range(4)]
    everything = SharedStudyReader(settings)
    for row in rows:
        assert len(everything.records(row)) == 20
    size = everything.bytes
    some = SharedStudyReader(settings, most_bytes=size // 2)
    for row in (*rows, rows[0], rows[0]):
        assert len(some.records(row)) == 20
        assert some.bytes <= size // 2
    none = SharedStudyReader(settings, most_bytes=0)
    assert none.records(rows[1]) is none.records(rows[1])  # the last one stays, or it would be read each time
    for reader in (everything, some, none):
        reader.close()


def test_a_list_of_ended_studies_reads_their_trials_once(settings, made, counted):
    rows = [made(20, ended=True)[0] for _ in range(3)]
    counted.clear()
    reader = SharedStudyReader(settings, most_bytes=0)
    for _ in range(5):
        assert [reader.outcome(row, len) for row in rows] == [20, 20, 20]
    assert len(counted) == 3 * 20
    reader.close()


def test_a_curve_of_thousands_of_points_is_thinned_and_says_so(client, settings, made):
    row, study = made(1)
    trial = study.ask()
    with EventLog(OutputFolder(settings.out).study(row.id).events) as log:
        for epoch in range(1, 5001):
            log.append(EpochReported(trial.number, epoch, {"val_accuracy": epoch / 5000}, epoch / 5000))
    curve = client.get(f"/api/v1/studies/{row.id}/curve").json()
    assert len(curve["points"]) <= 2000
    assert len(curve["points"]) + curve["left_out"] == 5000
    assert (curve["points"][0]["epoch"], curve["points"][-1]["epoch"]) == (1, 5000)
    assert curve["points"][-1]["epochs_total"] == 5000


def test_all_trials_are_listed_sorted_and_filtered_without_scripts(client, made):
    row, study = made()
    failed = study.ask()
    study.tell(failed, Decision.of_state(TrialState.FAILED, "ValueError: <b>no</b>"))
    path = f"/studies/{row.id}/trials"
    assert f'href="{path}"' in client.get(f"/studies/{row.id}").text
    by_value = client.get(path).text
    best = max(study.trials(), key=lambda record: max(record.values.values(), default=0)).number
    assert re.findall(r'<th scope="row">(\d+)', by_value)[0] == str(best)
    (link,) = re.findall(r'href="([^"]+)">failed', by_value)
    only = client.get(link.replace("&amp;", "&")).text
    assert re.findall(r'<th scope="row">(\d+)', only) == [str(failed.number)]
    assert "ValueError: &lt;b&gt;no&lt;/b&gt;" in only
    (link,) = re.findall(r'href="([^"]+)">epochs', by_value)
    assert "sort=-epochs" in link
    assert client.get(f"{path}?sort=nothing").status_code == 400
    assert client.get(f"{path}?cursor=nothing").status_code == 400


def test_the_time_that_is_left_is_told_from_the_epochs_that_are_left(made, settings):
    row, _ = made()
    reader, spec = SharedStudyReader(settings), stored_spec(row.spec)
    view = reader.view(row)
    # Two of nine epochs of 60 of 70 trials are trained, 58 of these have been stopped.
    assert seconds_left(spec, view, 120.0, 2) == pytest.approx(10 * 9 + 2 * 7, rel=0.5)
    assert seconds_left(spec, view, 240.0, 2) == pytest.approx(2 * seconds_left(spec, view, 120.0, 2))
    assert seconds_left(spec, view, 0.5, 2) is None
    assert seconds_left(spec, view, 120.0, 100) is None
    hours = spec.model_copy(update={"budget": spec.budget.model_copy(update={"hours": 121 / 3600})})
    assert seconds_left(hours, view, 120.0, 2) == pytest.approx(1.0, abs=0.1)
    reader.close()


def test_what_was_worked_out_of_older_trials_is_not_kept_with_newer_ones(app, made):
    row, study = made()
    trials = app.state.dialin.trials
    older = trials.rows(row.id)
    study.report(study.ask(), 1, 0.5)
    time.sleep(1.1)
    newer = trials.rows(row.id)
    assert older.derived("count", lambda: len(older)) == TRIALS
    assert newer.derived("count", lambda: len(newer)) == TRIALS + 1
