"""One study that cannot be read as it is stored: the others are served as ever, and it says what is wrong with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import sqlalchemy as sa
from rich.console import Console

from dialin.lifecycle import StudyState
from dialin.paths import OutputFolder
from dialin.settings import Settings
from dialin.specification import parse_spec, to_yaml
from dialin.store.submissions import Submissions
from dialin.study_flow.progress import Progress
from dialin.study_flow.run import resume_study
from tests.server.conftest import SPEC, submit

SPECS = {
    "an unknown knob": "replace(spec, 'lr:', 'x_lr:')",
    "a key of a newer version": "spec || char(10) || 'pareto: {}' || char(10)",
    "garbage": "'{[' || char(7)",
    "no YAML": "'a: b: c'",
    "nothing": "''",
}


def change(settings, what: str, study: str, table: str = "dialin_studies", key: str = "id") -> None:
    """Change a row behind everybody's back."""
    engine = sa.create_engine(settings.database)
    with engine.begin() as connection:
        done = connection.execute(sa.text(f"update {table} set {what} where {key} = :id"), {"id": study})
    engine.dispose()
    assert done.rowcount >= 1


@pytest.fixture(scope="module")
def once_trained(tmp_path_factory):
    """A folder with a study that has been driven; and its id."""
    settings = Settings(tmp_path_factory.mktemp("trained") / "out", Path("data"))
    settings.out.mkdir()
    with Submissions(settings.database) as submissions:
        entry, _ = submissions.submit("small", to_yaml(parse_spec(SPEC)), owner="local", digest="d")
    resume_study(entry.study.id, settings, Progress(Console(quiet=True)), "inline")
    return settings.out, entry.study.id


@pytest.fixture
def settings(request, tmp_path):
    """Of an empty folder; of a copy of the one with the study, where a test asks for that."""
    if "trained" in request.fixturenames:
        shutil.copytree(request.getfixturevalue("once_trained")[0], tmp_path / "out")
    return Settings(tmp_path / "out", tmp_path / "data")


@pytest.fixture
def trained(once_trained):
    return once_trained[1]


@pytest.fixture
def reconciler(app, jobs):
    jobs.cpus = 4.0
    return app.state.dialin.reconciler


@pytest.mark.parametrize("sql", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("state", ["queued", "running"])
def test_an_unreadable_specification_harms_only_its_own_study(client, settings, jobs, reconciler, sql, state):
    broken = submit(client).json()["id"]
    if state == "running":
        reconciler.step()
        change(settings, "state = 'running'", broken)
    change(settings, f"spec = {sql}", broken)
    other = submit(client).json()["id"]
    reconciler.step()
    assert f"{other}-a1" in jobs.submitted
    assert (f"{broken}-a1" in jobs.submitted) is (state == "running")
    listed = {study["id"]: study for study in client.get("/api/v1/studies").json()["studies"]}
    assert listed[other]["unreadable"] == ""
    assert "the specification" in listed[broken]["unreadable"]
    assert client.get(f"/api/v1/studies/{broken}").json()["unreadable"] == listed[broken]["unreadable"]
    answer = client.get(f"/api/v1/studies/{broken}/trials")
    assert (answer.status_code, answer.json()["code"]) == (409, "unreadable")
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["warnings"]) == (200, [f"study {broken} cannot be read as it is stored"])
    assert client.get("/metrics").status_code == 200


@pytest.mark.parametrize("path", ["/", "/studies/{}", "/studies/{}/live"])
def test_the_page_shows_what_is_unreadable(client, settings, path):
    broken = submit(client).json()["id"]
    change(settings, f"spec = {SPECS['an unknown knob']}", broken)
    answer = client.get(path.format(broken), headers={"Accept": "text/html"})
    assert answer.status_code == 200
    assert "space.x_lr" in answer.text


def test_what_is_unreadable_can_be_stopped_and_archived_and_not_resumed(client, settings):
    broken = submit(client).json()["id"]
    change(settings, f"spec = {SPECS['garbage']}", broken)
    assert client.post(f"/api/v1/studies/{broken}/stop").json()["state"] == "interrupted"
    assert client.post(f"/api/v1/studies/{broken}/resume").status_code == 409
    assert client.post(f"/api/v1/studies/{broken}/extend", json={"trials": "+1"}).status_code == 409
    assert client.delete(f"/api/v1/studies/{broken}").status_code == 204
    assert client.get("/api/v1/studies").json()["studies"] == []


def test_it_is_said_once_in_the_log(client, settings, reconciler, caplog):
    broken = submit(client).json()["id"]
    change(settings, f"spec = {SPECS['no YAML']}", broken)
    for _ in range(3):
        reconciler.step()
    assert [record.getMessage().startswith(f"study {broken} cannot") for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("state = 'runing'", "state 'runing'"),
        ("summary = '{['", "summary is not JSON"),
        ("summary = '[1]'", "is not an object"),
        ("""summary = '{"best": 5, "trials": "x", "seconds": []}'""", "best in its summary"),
        ("created_at = 'yesterday'", "created_at 'yesterday'"),
        ("reason = cast(x'fffe41' as text)", ""),
    ],
)
def test_an_unreadable_row_harms_only_its_own_study(client, settings, jobs, reconciler, sql, said):
    broken, other = submit(client).json()["id"], submit(client).json()["id"]
    change(settings, sql, broken)
    reconciler.step()
    assert f"{other}-a1" in jobs.submitted
    listed = {study["id"]: study for study in client.get("/api/v1/studies").json()["studies"]}
    assert said in listed[broken]["unreadable"]
    for path in (f"/api/v1/studies/{broken}", f"/studies/{broken}", "/", "/metrics"):
        assert client.get(path).status_code == 200


def test_unreadable_numbers_of_a_submission_are_read_as_none(client, settings, jobs, reconciler):
    broken, other = submit(client).json()["id"], submit(client).json()["id"]
    change(settings, "priority = 'high', not_before = 'soon'", broken, "dialin_submissions", "study_id")
    reconciler.step()
    assert f"{other}-a1" in jobs.submitted
    assert "priority 'high'" in client.get(f"/api/v1/studies/{broken}").json()["unreadable"]


def damage_trials(settings, trained, table: str, sql: str) -> None:
    engine = sa.create_engine(settings.database)
    with engine.begin() as connection:
        connection.execute(sa.text(f"update {table} set {sql}"))
        # What a driver says at its end is shown without looking at the trials.
        connection.execute(sa.text("update dialin_studies set summary = '{}' where id = :id"), {"id": trained})
    engine.dispose()


def test_unreadable_trials_harm_only_their_own_study(client, settings, trained):
    other = submit(client).json()["id"]
    damage_trials(settings, trained, "trials", "state = 'DREAMING'")
    listed = {study["id"]: study for study in client.get("/api/v1/studies").json()["studies"]}
    assert "the trials of study" in listed[trained]["unreadable"]
    assert listed[other]["unreadable"] == ""
    assert client.get(f"/api/v1/studies/{trained}/trials").json()["code"] == "unreadable"
    for path in (f"/api/v1/studies/{trained}", f"/studies/{trained}", "/metrics"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("sql", ["value_json = '{['", "value_json = '\"x\"'", "value_json = '[[[[1]]]]'"])
def test_a_trial_that_cannot_be_read_says_so(client, settings, trained, sql):
    damage_trials(settings, trained, "trial_user_attributes", sql)
    assert len(client.get("/api/v1/studies").json()["studies"]) == 1
    trials = client.get(f"/api/v1/studies/{trained}/trials").json()["trials"]
    assert all("cannot be read" in trial["reason"] for trial in trials)
    for path in (f"/api/v1/studies/{trained}", f"/studies/{trained}", "/metrics"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize("content", [b"{[", b"\xff\xfe\x00", b"[]", b'{"bounds": 3}', b"[" * 100_000])
def test_a_damaged_range_test_is_named_and_harms_nothing(client, settings, trained, content):
    file = OutputFolder(settings.out).study(trained).calibration
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    said = client.get(f"/api/v1/studies/{trained}").json()["calibration"]
    assert len(said) == 1
    assert "calibration.json cannot be read" in said[0]
    assert client.get(f"/api/v1/studies/{trained}/best").status_code == 200


@pytest.mark.parametrize("content", ['{"runs": null}', "[]", "\0", '{"offset": "far"}', '{"experiment": {}}'])
def test_a_damaged_position_harms_nothing(client, settings, trained, content):
    folder = OutputFolder(settings.out).study(trained).events
    (folder / "position.json").write_text(content)
    assert len(client.get("/api/v1/studies").json()["studies"]) == 1
    for path in (f"/api/v1/studies/{trained}", f"/api/v1/studies/{trained}/trials", f"/studies/{trained}", "/metrics"):
        assert client.get(path).status_code == 200


def test_a_summary_that_is_stored_is_read_whole(client, settings, trained):
    summary = client.get(f"/api/v1/studies/{trained}").json()
    assert (summary["state"], summary["unreadable"]) == (StudyState.COMPLETE, "")
    assert json.dumps(summary)  # whatever a driver says at its end fits what may be read back
