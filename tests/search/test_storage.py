"""Opening a database, beside others that do the same."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext

import optuna
import pytest
import sqlalchemy

from dialin.errors import DatabaseError
from dialin.search import storage
from dialin.search.storage import open_storage
from tests.conftest import ROOT

OPEN = """
import sys
from dialin.search.storage import open_storage
print("ready", flush=True)
sys.stdin.readline()
open_storage(sys.argv[1])
"""


def test_a_new_database_is_opened_by_many_at_once(tmp_path):
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path / 'new.db'}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    opening = [subprocess.Popen(command, cwd=ROOT, text=True, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in opening] == ["ready\n"] * len(opening)
    for process in opening:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[1] for process in opening] == [""] * len(opening)


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (sqlalchemy.exc.IntegrityError("", {}, Exception("UNIQUE constraint failed: alembic_version")), 3),
        (sqlalchemy.exc.OperationalError("", {}, Exception("table studies already exists")), 3),
        (sqlalchemy.exc.OperationalError("", {}, Exception("unable to open database file")), 1),
    ],
)
def test_only_tables_that_others_make_are_waited_for(tmp_path, monkeypatch, error, tries):
    tried = []

    def make(url, **options):
        tried.append(url)
        if len(tried) < 3:
            raise error
        return optuna.storages.RDBStorage(url, **options)

    monkeypatch.setattr(storage, "RDBStorage", make)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    expected = pytest.raises(DatabaseError, match="unable to open") if tries == 1 else nullcontext()
    with expected:
        open_storage(f"sqlite:///{tmp_path / 'new.db'}")
    assert len(tried) == tries
