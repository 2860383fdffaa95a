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


def error_of(*statements, url="sqlite://"):
    """What SQLAlchemy raises for the last of these statements."""
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    except sqlalchemy.exc.DBAPIError as error:
        return error
    finally:
        engine.dispose()


class PostgresqlError(Exception):
    """As psycopg raises for a table that exists already."""

    sqlstate = "42P07"


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (error_of("CREATE TABLE a (b INTEGER PRIMARY KEY)", "INSERT INTO a VALUES (1)", "INSERT INTO a VALUES (1)"), 3),
        (error_of("CREATE TABLE studies (id INTEGER)", "CREATE TABLE studies (id INTEGER)"), 3),
        (sqlalchemy.exc.ProgrammingError("CREATE TABLE studies", {}, PostgresqlError()), 3),
        (error_of("SELECT 1", url="sqlite:////nowhere/at/all.db"), 1),
    ],
    ids=["row", "table", "table on PostgreSQL", "no such folder"],
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
