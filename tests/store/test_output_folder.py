"""The output folder, and who else on the machine can read what is in it."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from dialin.errors import UsageError
from dialin.settings import Settings
from dialin.store.output_folder import open_output
from dialin.store.tokens import Tokens
from tests.strangers import NEEDS_ROOT, as_nobody, reached_by_nobody


@pytest.fixture
def place():
    """A folder that everybody can enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="dialin-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def opened(out: Path) -> list[str]:
    said: list[str] = []
    open_output(Settings(out, out / "data"), said.append)
    return said


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def as_before(out: Path) -> None:
    """A folder as dialin made them when it did not look at modes: a database in its write-ahead log, a study."""
    out.mkdir(exist_ok=True)
    (out / "studies" / "a-1").mkdir(parents=True)
    (out / "studies" / "a-1" / "journal.jsonl").write_text("{}")
    (out / "data").mkdir()
    for name in ("dialin.db", "mlflow.db"):
        with closing(sqlite3.connect(out / name)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE t (x)")
        (out / f"{name}-wal").touch()
    for path in (out, *out.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_new_one_is_its_owners_with_its_database_and_what_sqlite_puts_beside_it(tmp_path):
    out = tmp_path / "new"
    assert opened(out) == []
    settings = Settings(out, out / "data")
    with Tokens(settings.database) as tokens:
        tokens.create("ann", "admin")
        with closing(sqlite3.connect(out / "dialin.db")) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE t (x)")
            connection.commit()
            assert {path.name: mode(path) for path in out.iterdir()} == dict.fromkeys(
                ("dialin.db", "dialin.db-wal", "dialin.db-shm"), 384
            )
    assert mode(out) == 0o700
    assert opened(out) == []


def test_one_that_was_open_is_closed_and_that_is_said(tmp_path):
    out = tmp_path / "old"
    as_before(out)
    (said,) = opened(out)
    assert said.startswith(f"{out} was open to other accounts (mode 0755), and is closed to them now")
    assert mode(out) == mode(out / "studies") == 0o700
    assert {mode(path) for path in out.glob("*.db*")} == {0o600}
    assert mode(out / "data") == 0o755
    assert opened(out) == []


def test_one_with_other_things_in_it_stays_and_what_is_dialins_is_closed(tmp_path):
    as_before(tmp_path)
    (tmp_path / "thesis.tex").write_text("")
    (tmp_path / "thesis.tex").chmod(0o644)
    before = mode(tmp_path)
    assert opened(tmp_path) == []
    assert mode(tmp_path) == before
    assert mode(tmp_path / "thesis.tex") == 0o644
    for name in ("studies", "bundles", "server", "mlflow-artifacts"):
        assert mode(tmp_path / name) == 0o700, name
    assert {mode(path) for path in tmp_path.glob("*.db*")} == {0o600}


def test_one_that_was_given_to_a_group_stays_the_groups(tmp_path):
    out = tmp_path / "shared"
    as_before(out)
    out.chmod(0o2775)
    (said,) = opened(out)
    assert "(mode 2775)" in said
    assert mode(out) == 0o2770
    assert mode(out / "dialin.db") == 0o640
    assert mode(out / "studies") & 0o777 == 0o750


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("file", "is a file; studies are kept in a folder"),
        ("file/below", "cannot be used as the folder for studies: Not a directory"),
        ("/proc/nope", "/proc/nope cannot be used as the folder for studies: No such file or directory"),
    ],
)
def test_what_cannot_be_one(tmp_path, out, says):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=says):
        opened(tmp_path / out)


@NEEDS_ROOT
def test_what_somebody_else_has_put_where_everybody_can_write_is_not_used(place):
    out = place / "everybodys"
    out.mkdir()
    out.chmod(0o1777)
    for command in (["mkdir", f"{out}/studies"], ["ln", "-s", "/etc/passwd", f"{out}/dialin.db"]):
        assert as_nobody(*command).returncode == 0
        with pytest.raises(UsageError, match=r"belongs to another account \(user id 65534\)"):
            opened(out)
        as_nobody("rm", "-r", command[-1])
    assert opened(out) == []
    assert mode(out) == 0o1777
    assert mode(out / "studies") == 0o700


@NEEDS_ROOT
@pytest.mark.parametrize("other", [False, True])
def test_another_user_reads_nothing_of_it(place, other):
    """Neither of a folder of its own, nor of one with other things in it."""
    out = place / "out"
    as_before(out)
    if other:
        (out / "notes").write_text("")
    assert any("dialin.db" in path for path in reached_by_nobody(out))
    opened(out)
    found = {Path(path).name for path in reached_by_nobody(out)} - {"out", "notes", "data"}
    assert found == set()
    assert os.access(out / "dialin.db", os.R_OK)
