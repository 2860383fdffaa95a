"""A folder that commit 9fc48be wrote opens with today's commands and server, and its studies go on."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from dialin.server.app import create_app
from dialin.settings import ServerSettings, Settings
from dialin.store.migrate import copy_of
from tests.server.conftest import FakeJobs
from tests.server.test_damage import change

ARCHIVE = Path(__file__).with_name("folder-9fc48be.tar.gz")
STATES = {"curves": "complete", "broken": "failed", "digits": "interrupted", "own": "complete"}


@pytest.fixture
def out(tmp_path):
    """The folder, at another place than where it was made."""
    with tarfile.open(ARCHIVE) as packed:
        packed.extractall(tmp_path, filter="data")
    return tmp_path / "out"


@pytest.fixture
def ids(out):
    """The studies' names and their ids."""
    return {folder.name.partition("-")[0]: folder.name for folder in (out / "studies").iterdir()}


@dataclass
class StoredTrial:
    """A trial's rows in Optuna's tables."""

    state: str
    parameters: list[tuple[str, float]]
    values: list[tuple[int, float]]


def trials(out: Path, name: str) -> list[StoredTrial]:
    """The trials of a study as they are stored, whatever today's commands make of them."""
    with closing(sqlite3.connect(out / "dialin.db")) as database:

        def rows(query: str, *arguments: object) -> list:
            return database.execute(query, arguments).fetchall()

        return [
            StoredTrial(
                state,
                rows("select param_name, param_value from trial_params where trial_id = ? order by 1", trial),
                rows(
                    "select step, intermediate_value from trial_intermediate_values where trial_id = ? order by 1",
                    trial,
                ),
            )
            for trial, state in rows(
                "select trial_id, state from trials join studies using (study_id) where study_name like ? "
                "order by number",
                f"{name}-%",
            )
        ]


@pytest.fixture
def ask(dialin, out):
    """Runs a command on the folder; its output."""

    def run(*words: str) -> str:
        return dialin(*words, "--out", str(out), check=True).stdout

    return run


def test_the_first_command_upgrades_it_and_says_where_the_copy_is(dialin, out):
    done = dialin("list", "--json", "--out", str(out), check=True)
    assert {study["name"]: study["state"] for study in json.loads(done.stdout)} == STATES
    assert all(study["unreadable"] == "" for study in json.loads(done.stdout))
    (line,) = done.stderr.splitlines()
    assert str(copy_of(out / "dialin.db", "none")) in line
    assert dialin("list", "--out", str(out), check=True).stderr == ""


@pytest.mark.parametrize("name", STATES)
def test_a_study_is_shown_with_its_trials(ask, name):
    lines = ask("show", name).splitlines()
    states = {
        "curves": ["diverged", "stopped", "stopped", "stopped", "diverged", "stopped", "complete", "complete"],
        "broken": ["failed"] * 4,
        "digits": ["waiting"] * 4,
        "own": ["stopped", "stopped", "complete", "stopped", "stopped"],
    }[name]
    rows = [line.split() for line in lines if line[:1].isdigit()]  # a wrapped line begins with spaces
    assert [row[1] for row in rows] == states
    assert json.loads(ask("show", name, "--json"))
    for number in range(len(states)):
        assert ask("show", name, str(number))


@pytest.mark.parametrize(("name", "value"), [("curves", "0.9621"), ("digits", "0.5944"), ("own", "0.6832")])
def test_its_best_is_exported_and_planned_again(ask, dialin, tmp_path, name, value):
    assert value in ask("best", name)
    text = ask("best", name, "--yaml")
    if name != "own":  # its function is not where it was
        (tmp_path / "again.yaml").write_text(text)
        assert dialin("plan", "again.yaml", check=True).stdout


@pytest.mark.parametrize("name", STATES)
def test_its_events_are_watched_and_its_logs_read(ask, dialin, out, name):
    done = dialin("watch", name, "--out", str(out))
    assert done.returncode in (0, 1, 130)
    assert "Traceback" not in done.stderr
    assert STATES[name] in done.stdout + done.stderr
    said = ask("logs", name)
    if name == "broken":
        assert "ValueError: no file for x=" in said


def test_an_interrupted_study_is_resumed_from_its_checkpoints(ask, out):
    before = trials(out, "digits")
    assert [trial.state for trial in before] == ["WAITING"] * 4
    said = ask("resume", "digits", "--runner", "inline")
    assert "complete" in said
    after = trials(out, "digits")
    assert len(after) == 12
    assert {trial.state for trial in after} == {"COMPLETE", "PRUNED"}
    for old, new in zip(before, after, strict=False):
        assert new.parameters == old.parameters
        assert new.values[: len(old.values)] == old.values  # what was trained is not trained again


def test_a_complete_study_is_extended(ask, out):
    before = trials(out, "curves")
    assert "complete" in ask("extend", "curves", "--trials", "+3", "--runner", "inline")
    after = trials(out, "curves")
    assert len(after) == 11
    assert after[:8] == before
    assert {trial.state for trial in after} == {"COMPLETE", "PRUNED"}


def test_a_study_of_a_function_goes_on_where_its_function_is(ask, out, ids):
    """The specification names the bundle by its whole path, from where the server had it."""
    move = "replace(spec, substr(spec, instr(spec, '/tmp/'), instr(spec, '/bundles/') - instr(spec, '/tmp/')), '{}')"
    change(Settings(out, out / "data"), f"spec = {move.format(out)}", ids["own"])
    before = trials(out, "own")
    assert "complete" in ask("extend", "own", "--trials", "+2", "--runner", "inline")
    after = trials(out, "own")
    assert (len(after), after[:5]) == (7, before)


def test_what_mlflow_has_is_completed_and_not_written_twice(ask, out):
    def runs() -> int:
        with closing(sqlite3.connect(out / "mlflow.db")) as mlflow:
            return mlflow.execute("select count(*) from runs").fetchone()[0]

    before = runs()
    ask("sync", "curves")
    assert runs() == before


@pytest.fixture
def client(out):
    app = create_app(Settings(out, out / "data", allow_code=True), ServerSettings(poll_seconds=3600), FakeJobs(4.0))
    client = TestClient(app, base_url="http://127.0.0.1:8080", raise_server_exceptions=False)
    yield client
    client.close()
    app.state.dialin.close()


def test_a_server_lists_it_and_goes_on_with_its_own_studies(client, ids):
    listed = client.get("/api/v1/studies").json()["studies"]
    assert {study["name"]: study["state"] for study in listed} == STATES
    for study in listed:
        for path in ("", "/trials", "/trials/0", "/best", "/curve", "/logs"):
            answer = client.get(f"/api/v1/studies/{study['id']}{path}")
            expected = (404, 409) if study["name"] == "broken" and "best" in path else (200,)
            assert answer.status_code in expected, (path, answer.text)
        page = client.get(f"/studies/{study['id']}", headers={"Accept": "text/html"})
        assert (page.status_code, study["id"] in page.text) == (200, True)
    assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
    assert client.post(f"/api/v1/studies/{ids['own']}/extend", json={"trials": "+2"}).status_code == 202
    assert client.get(f"/api/v1/studies/{ids['own']}").json()["state"] == "queued"


def test_a_specification_of_a_newer_version_harms_only_its_own_study(client, dialin, out, ids):
    """The others are listed, here and on a server."""
    change(
        Settings(out, out / "data"),
        "spec = replace('version: 99' || char(10) || spec, 'version: 1' || char(10), '')",
        ids["curves"],
    )
    local = {
        study["name"]: study for study in json.loads(dialin("list", "--json", "--out", str(out), check=True).stdout)
    }
    served = {study["name"]: study for study in client.get("/api/v1/studies").json()["studies"]}
    for listed in (local, served):
        assert {name: study["state"] for name, study in listed.items()} == STATES
        assert "99" in listed["curves"]["unreadable"]
        assert {study["unreadable"] for name, study in listed.items() if name != "curves"} == {""}
    assert client.get(f"/api/v1/studies/{ids['curves']}/trials").json()["code"] == "unreadable"
    done = dialin("show", "curves", "--out", str(out))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) or "version" in done.stdout
