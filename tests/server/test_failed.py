"""A study whose trials all failed, of texts that do harm where they are shown as they are."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from rich.console import Console

from dialin.client.local import LocalStudies
from dialin.settings import Settings
from dialin.specification import parse_spec
from dialin.study_flow.progress import Progress
from dialin.study_flow.run import run_study

TRAIN = """
def train(config, trial):
    print("printed \\x1b[31m by trial")
    raise ValueError("no such thing \\udcff \\x1b[2J\\0\\u202e[/red] <b>" + 3_000_000 * "x")
"""
SPEC = """
name: failing
objective: {python: "%s:train", metric: score}
space: {choice: ["%s", "[/red]"], lr: {min: 0.1, max: 1}}
budget: {trials: 12, epochs: 2}
resources: {concurrency: 1}
"""


@pytest.fixture(scope="module")
def once_failed(tmp_path_factory):
    """A folder with such a study, and its result."""
    folder = tmp_path_factory.mktemp("failed")
    (folder / "own.py").write_text(TRAIN)
    spec = parse_spec(SPEC % (folder / "own.py", "long " * 2000), folder=folder)
    settings = Settings(folder / "out", folder / "data")
    return settings, run_study(spec, settings, Progress(Console(quiet=True)), "inline").result


@pytest.fixture
def settings(once_failed):
    return once_failed[0]


@pytest.fixture
def failed(once_failed) -> str:
    return once_failed[1].study_id


def test_it_ends_early_and_says_of_what(client, failed):
    study = client.get(f"/api/v1/studies/{failed}").json()
    assert study["state"] == "failed"
    assert study["reason"].startswith(r"3 of 3 trials failed: ValueError: no such thing \udcff \x00\u202e[/red] <b>xxx")
    assert len(study["reason"]) <= 1000


def test_its_trials_are_small_and_can_be_sent(client, failed):
    answer = client.get(f"/api/v1/studies/{failed}/trials")
    assert answer.status_code == 200
    assert len(answer.content) < 100_000
    trials = answer.json()["trials"]
    assert [trial["state"] for trial in trials] == ["failed"] * 3
    assert all("characters cut" in trial["reason"] for trial in trials)


def test_its_events_are_told_to_the_end(client, failed):
    text = client.get(f"/api/v1/studies/{failed}/events").text
    kinds = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert kinds.count("trial_ended") == 3
    assert kinds[-1] == "study"


def test_a_trials_log_is_there_for_whoever_may_look(client, failed):
    answer = client.get(f"/api/v1/studies/{failed}/trials/1/log")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("printed  by trial\nTraceback")
    assert "in train" in answer.text
    assert "\x1b" not in answer.text
    assert "\0" not in answer.text
    assert len(answer.text) < 20_000
    short = client.get(f"/api/v1/studies/{failed}/trials/1/log", params={"tail": 1}).text
    assert short.count("\n") == 1
    assert client.get(f"/api/v1/studies/{failed}/trials/7/log").status_code == 404
    assert client.get("/api/v1/studies/none/trials/1/log").status_code == 404


def test_the_page_says_the_cause_first_and_lists_what_failed(client, failed):
    answer = client.get(f"/studies/{failed}", headers={"Accept": "text/html"})
    assert answer.status_code == 200
    page = answer.text
    assert len(answer.content) < 200_000
    assert page.index("3 of 3 trials failed: ValueError") < page.index("Failed trials") < page.index("h-best")
    assert f"/api/v1/studies/{failed}/trials/2/log" in page
    assert "Nothing unusual was found" not in page
    assert "\u202e" not in page
    assert "[/red] &lt;b&gt;" in page


def test_the_command_line_reads_one_log_or_all(settings, failed):
    studies = LocalStudies(settings)
    assert list(studies.logs(failed, 10)) == ["trial-0000.log", "trial-0001.log", "trial-0002.log"]
    (text,) = studies.logs(failed, 1000, 2).values()
    assert text.startswith("printed  by trial\nTraceback")
    assert "\x1b" not in text


def test_mlflow_has_the_runs_in_spite_of_their_texts(settings, failed):
    with closing(sqlite3.connect(settings.out / "mlflow.db")) as mlflow:
        ends = mlflow.execute("select status from runs where name like 'trial-%'").fetchall()
        reasons = mlflow.execute("select value from tags where key = 'dialin.reason'").fetchall()
        choices = mlflow.execute("select value from params where key = 'choice'").fetchall()
    assert ends == [("FAILED",)] * 3
    assert sum("characters cut" in reason for (reason,) in reasons) == 4
    assert len(choices) == 3
    assert all(len(choice) <= 6000 for (choice,) in choices)
