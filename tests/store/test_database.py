"""Databases that are damaged, gone or of another version: one error that says which, what is wrong and what to do."""

from __future__ import annotations

import random
import sqlite3
import tarfile
from contextlib import closing

import pytest

from dialin.errors import DatabaseError
from dialin.lifecycle import StudyState
from dialin.search.storage import open_storage
from dialin.store.database_errors import check_mlflow_file
from dialin.store.studies import Studies
from dialin.store.submissions import Submissions
from tests.store.test_migrate import FOLDER


@pytest.fixture
def database(tmp_path):
    """A database with a hundred studies, its write-ahead log empty."""
    path = tmp_path / "dialin.db"
    (tmp_path / "studies").mkdir()
    with Studies(f"sqlite:///{path}") as studies:
        for _ in range(100):
            studies.create("small", "x" * 500)
    storage = open_storage(f"sqlite:///{path}")
    storage.create_new_study([1], "small")
    storage.engine.dispose()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)")
    return path


def noise(size: int) -> bytes:
    return random.Random(1).randbytes(size)


@pytest.mark.parametrize("damage", ["noise", "noise behind the first page", "truncated"])
def test_a_damaged_database_is_named_with_what_to_do(database, damage):
    whole = database.read_bytes()
    content = {
        "noise": noise(len(whole)),
        "noise behind the first page": whole[:4096] + noise(len(whole) - 4096),
        "truncated": whole[: len(whole) // 3],
    }[damage]
    database.write_bytes(content)
    url = f"sqlite:///{database}"
    for use in (_list, _page, lambda url: open_storage(url).get_all_studies()):
        with pytest.raises(DatabaseError, match=r"dialin\.db is damaged .*restore a copy") as raised:
            use(url)
        assert "\n" not in str(raised.value)
        assert str(database.parent / "studies") in str(raised.value)


@pytest.mark.parametrize(
    "sql",
    [
        "alter table dialin_studies drop column summary",
        "alter table dialin_studies rename column reason to why",
        "alter table dialin_submissions drop column concurrency",
    ],
)
def test_a_missing_column_is_another_version_and_is_not_tried_again_for_ever(database, sql):
    with Submissions(f"sqlite:///{database}"):
        pass  # its table is made
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(sql)
    with pytest.raises(DatabaseError, match="made by another version of dialin"):
        _page(f"sqlite:///{database}")


def test_a_column_that_a_newer_version_wants_filled_is_another_version(database):
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("drop table dialin_studies")
        connection.execute(
            "create table dialin_studies (id text primary key, name text, state text, reason text, spec text, "
            "summary text, created_at real, ended_at real, team text not null)"
        )
    with Studies(f"sqlite:///{database}") as studies, pytest.raises(DatabaseError, match=r"another version.*team"):
        studies.create("small", "x")


def test_a_column_more_is_no_matter(database):
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("alter table dialin_studies add column color text default 'red'")
    with Studies(f"sqlite:///{database}") as studies:
        studies.end(studies.create("small", "x").id, StudyState.FAILED, "", {})
        assert len(studies.list()) == 101


OLDER = r"{} has {}'s tables in version {}, which is older than .* run: {}$"
NEWER = r"{} has {}'s tables in version {}, which a newer .* Nothing was changed; install that version of {}"


@pytest.mark.parametrize(("version", "said"), [("v3.0.0.a", OLDER), ("v99.9", NEWER)])
def test_optunas_tables_of_another_version_are_named_with_what_to_do(database, version, said):
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update alembic_version set version_num = ?", [version])
        connection.commit()
    what = f"optuna storage upgrade --storage sqlite:///{database}" if said is OLDER else "Optuna"
    with pytest.raises(DatabaseError, match=said.format(database, "Optuna", version, what)):
        open_storage(f"sqlite:///{database}")


@pytest.mark.parametrize("version", ["181f10493468", "ffffffffffff"])
def test_mlflows_tables_of_another_version_are_named_with_what_to_do(tmp_path, version):
    database = tmp_path / "mlflow.db"
    with tarfile.open(FOLDER) as packed:
        packed.extract("out/mlflow.db", tmp_path, filter="data")
    (tmp_path / "out" / "mlflow.db").rename(database)
    check_mlflow_file(database)  # the installed MLflow's own
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("update alembic_version set version_num = ?", [version])
        connection.commit()
    what = f"mlflow db upgrade sqlite:///{database}" if version[0] == "1" else "MLflow"
    said = OLDER if version[0] == "1" else NEWER
    with pytest.raises(DatabaseError, match=said.format(database, "MLflow", version, what)):
        check_mlflow_file(database)


def test_a_database_that_is_replaced_while_it_is_open_is_refused(database):
    with Studies(f"sqlite:///{database}") as studies:
        database.unlink()
        sqlite3.connect(database).close()
        studies._engine.dispose()  # as a pool does that opens one more
        with pytest.raises(DatabaseError, match="has lost its tables"):
            studies.list()


def test_a_lock_is_no_damage(database, monkeypatch):
    monkeypatch.setattr("dialin.store.engine.BUSY_SECONDS", 0.01)
    with closing(sqlite3.connect(database)) as connection, Studies(f"sqlite:///{database}") as studies:
        connection.execute("begin immediate")
        with pytest.raises(Exception, match="locked") as raised:
            studies.create("small", "x")
        assert not isinstance(raised.value, DatabaseError)


def _list(url: str) -> None:
    with Studies(url) as studies:
        studies.list()


def _page(url: str) -> None:
    with Submissions(url) as submissions:
        submissions.page(limit=200)
