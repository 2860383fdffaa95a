"""Errors of a full disk and of a locked database are told by their codes, however deep they lie."""

from __future__ import annotations

import errno
import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa

from dialin.errors import DatabaseError, StorageError
from dialin.store.storage_errors import StorageErrors, is_disk_full


def hidden(error):
    """The error behind two others, one of them in whose handling it arose."""
    try:
        try:
            raise error
        except type(error):
            raise ValueError("in the way")  # noqa: B904
    except ValueError as found:
        outer = RuntimeError("outermost")
        outer.__cause__ = found
        return outer


def full_database(path):
    """What SQLite itself raises when its file cannot grow, as SQLAlchemy passes it on."""
    engine = sa.create_engine(f"sqlite:///{path}")
    with pytest.raises(sa.exc.OperationalError) as raised, engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        connection.exec_driver_sql("CREATE TABLE filled AS SELECT hex(randomblob(100000)) AS text")
    engine.dispose()
    return raised.value


def locked_database(path):
    with closing(sqlite3.connect(path)) as first, closing(sqlite3.connect(path, timeout=0)) as second:
        first.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError) as raised:
            second.execute("BEGIN IMMEDIATE")
    return raised.value


class DiskFull(Exception):
    sqlstate = "53100"  # as psycopg has it


def test_a_full_disk_is_known_by_its_code(tmp_path):
    assert is_disk_full(hidden(OSError(errno.ENOSPC, "in whatever language")))
    assert is_disk_full(OSError(errno.EDQUOT, "the account's quota"))
    assert is_disk_full(hidden(full_database(tmp_path / "small.db")))
    assert is_disk_full(hidden(DiskFull()))
    assert not is_disk_full(OSError(errno.EACCES, "No space left on device"))
    assert not is_disk_full(hidden(locked_database(tmp_path / "locked.db")))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda path: hidden(full_database(path)),
            "no space left on the disk; free some space, then continue with: dialin go",
        ),
        (lambda path: hidden(locked_database(path)), "another process keeps the database locked"),
    ],
)
def test_the_error_of_a_study_says_how_to_go_on(tmp_path, make, text):
    with pytest.raises(StorageError, match=text) as raised, StorageErrors("dialin go"):
        raise make(tmp_path / "small.db")
    assert str(raised.value).endswith("then continue with: dialin go")


def test_a_database_error_comes_out_from_behind_another_one():
    with pytest.raises(DatabaseError, match="is damaged"), StorageErrors("dialin go"):
        raise hidden(DatabaseError("dialin.db is damaged"))


def test_other_errors_pass_as_they_are():
    with pytest.raises(ZeroDivisionError), StorageErrors("dialin go"):
        raise ZeroDivisionError
