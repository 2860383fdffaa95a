"""A database that is lost, before a command and while a study runs: one line that says which, and what to do."""

from __future__ import annotations

import os
import random
import sqlite3
from contextlib import closing

import pytest
from rich.console import Console

from dialin.errors import DatabaseError
from dialin.settings import Settings
from dialin.specification import parse_spec
from dialin.study_flow.progress import Progress
from dialin.study_flow.read_back import list_rows, load_study
from dialin.study_flow.run import run_study

TRAIN = """
import os, random
from pathlib import Path

def train(config, trial):
    database, how = Path(os.environ["LOST"]), os.environ["HOW"]
    if how == "removed":
        for file in database.parent.glob("dialin.db*"):
            file.unlink()
    elif how == "replaced":
        other = database.with_suffix(".other")
        other.write_bytes(database.read_bytes())
        other.rename(database)
    elif how == "cut off":
        os.truncate(database, 5000)
    else:
        database.write_bytes(random.Random(1).randbytes(200_000))
    for epoch in range(1, trial.epochs + 1):
        trial.report(epoch, 0.5)
"""
SPEC = """
name: losing
objective: {python: "%s:train", metric: score}
space: {lr: {min: 0.1, max: 1}}
budget: {trials: 50, epochs: 3}
resources: {concurrency: 1}
"""
SAID = {"removed": "was removed or replaced", "replaced": "was removed or replaced", "cut off": "is damaged"}


@pytest.mark.parametrize("how", ["removed", "replaced", "cut off", "noise"])
def test_a_driver_that_loses_its_database_says_so_and_trains_no_further(tmp_path, monkeypatch, how):
    (tmp_path / "own.py").write_text(TRAIN)
    settings = Settings(tmp_path / "out", tmp_path / "data")
    monkeypatch.setenv("LOST", str(settings.out / "dialin.db"))
    monkeypatch.setenv("HOW", how)
    spec = parse_spec(SPEC % (tmp_path / "own.py"), folder=tmp_path)
    with pytest.raises(DatabaseError, match=SAID.get(how, "is damaged")) as raised:
        run_study(spec, settings, Progress(Console(quiet=True)), "inline")
    text = str(raised.value)
    assert "\n" not in text
    assert text.startswith(str(settings.out / "dialin.db"))
    assert "restore a copy of it" in text
    assert str(settings.out / "studies") in text


def test_a_list_without_a_database_beside_studies_is_not_empty(tmp_path):
    settings = Settings(tmp_path / "out", tmp_path / "data")
    assert list_rows(settings) == []
    (settings.out / "studies" / "small-abcdef").mkdir(parents=True)
    for look in (list_rows, lambda settings: load_study(settings, "last")):
        with pytest.raises(
            DatabaseError, match=r"dialin\.db does not exist, but .*studies has folders of studies [(]1[)]"
        ):
            look(settings)


def test_a_damaged_database_of_mlflow_is_named_and_can_be_moved_away(dialin, tmp_path):
    out = tmp_path / "out"
    dialin("run", "synthetic", "--set", "budget.trials=2", "--runner", "inline", "--out", str(out), check=True)
    (out / "mlflow.db").write_bytes(random.Random(1).randbytes(50_000))
    for command in (["sync", "last", "--out"], ["up", "--port", "1", "--data"]):
        done = dialin(*command, str(out))
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {out / 'mlflow.db'} is damaged (")
    assert "complete" in dialin("list", "--out", str(out), check=True).stdout
    for file in out.glob("mlflow.db*"):
        file.unlink()
    dialin("sync", "last", "--out", str(out), check=True)
    with closing(sqlite3.connect(out / "mlflow.db")) as mlflow:
        assert mlflow.execute("select count(*) from runs").fetchone() == (3,)


def test_every_command_says_in_a_line_that_the_database_is_damaged(dialin, tmp_path):
    out = tmp_path / "out"
    out.mkdir(mode=0o700)
    (out / "dialin.db").write_bytes(random.Random(1).randbytes(50_000))
    for command in (["list"], ["token", "list"], ["run", "synthetic", "--runner", "inline"], ["up", "--port", "1"]):
        folder = "--data" if command[0] == "up" else "--out"
        done = dialin(*command, folder, str(out))
        assert done.returncode == 1
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error: {out / 'dialin.db'} is damaged (file is not a database); restore a copy")
    assert os.listdir(out) == ["dialin.db"]  # noqa: PTH208  no command has begun anything
