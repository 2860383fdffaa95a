"""Versions of dialin's tables: which one a database has, the way to the newest, and what refuses to open."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from dialin.errors import DatabaseError
from dialin.store import migrate
from dialin.store.database import connect
from dialin.store.migrate import copy_of, current, upgrade
from dialin.store.schema import HEAD, UNVERSIONED, VERSIONS
from dialin.store.studies import Studies
from dialin.store.tables import METADATA, POSTGRESQL_METADATA, SCHEMA_VERSION
from tests.postgresql import postgresql

FOLDER = Path(__file__).parents[1] / "upgrades" / "folder-9fc48be.tar.gz"


@pytest.fixture
def old(tmp_path):
    """The database of a folder that commit 9fc48be made."""
    with tarfile.open(FOLDER) as packed:
        packed.extract("out/dialin.db", tmp_path, filter="data")
    return tmp_path / "out" / "dialin.db"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with postgresql(tmp_path_factory.mktemp("database")) as url:
        yield url


@pytest.fixture
def empty(server):
    """The URL of an empty PostgreSQL database."""
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("DROP DATABASE IF EXISTS migrated"))
        connection.execute(sa.text("CREATE DATABASE migrated"))
    engine.dispose()
    return server.replace("/postgres", "/migrated")


def url_of(database: Path) -> str:
    return f"sqlite:///{database}"


def rows(database: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def set_version(url: str, version: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.update(SCHEMA_VERSION).values(version_num=version))
    engine.dispose()


def make_old(url: str) -> None:
    """The tables that dialin at 9fc48be made in a server's database, with a study."""
    engine = sa.create_engine(url)
    newer = ("dialin_bundles", SCHEMA_VERSION.name)
    with engine.begin() as connection:
        METADATA.create_all(connection, [table for table in METADATA.sorted_tables if table.name not in newer])
        connection.execute(
            sa.text("INSERT INTO dialin_studies VALUES ('a-bcdefg', 'a', 'running', '', 'name: a', '{}', 1.5, NULL)")
        )
    engine.dispose()


def differences(url: str) -> list:
    """Between a database's tables and those that this version works with."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        options = {
            "version_table": SCHEMA_VERSION.name,
            "compare_server_default": True,
            "include_name": lambda name, kind, _parents: kind != "table" or name.startswith("dialin_"),
        }
        wanted = [METADATA, POSTGRESQL_METADATA] if engine.dialect.name == "postgresql" else METADATA
        found = compare_metadata(MigrationContext.configure(connection, opts=options), wanted)
    engine.dispose()
    return found


def test_the_revisions_are_those_that_are_known():
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    script = ScriptDirectory.from_config(config)
    assert tuple(revision.revision for revision in script.walk_revisions())[::-1] == VERSIONS
    assert script.get_heads() == [HEAD]


def test_an_old_file_is_copied_and_upgraded_when_it_is_opened(old, caplog):
    studies = "select id, name, state, reason, spec, summary, created_at, ended_at from dialin_studies order by id"
    before = rows(old, studies)
    assert len(before) == 4
    old.chmod(0o640)
    with caplog.at_level(logging.WARNING), Studies(url_of(old)) as opened:
        assert {row.id for row in opened.list()} == {row[0] for row in before}
    copy = copy_of(old, UNVERSIONED)
    assert copy.name == "dialin.db.before-upgrade-from-none"
    assert copy.stat().st_mode & 0o777 == 0o640
    (record,) = caplog.records
    assert record.getMessage() == (
        f"{old} was upgraded from version none to {HEAD}; {copy} is a copy of it from before"
    )
    assert rows(old, studies) == rows(copy, studies) == before
    assert current(url_of(copy)) == UNVERSIONED
    assert current(url_of(old)) == HEAD
    assert differences(url_of(old)) == []
    assert sorted(path.name for path in old.parent.iterdir() if "-" not in path.name[:12]) == [
        "dialin.db",
        "dialin.db.before-upgrade-from-none",
    ]


def test_a_copy_holds_what_is_still_in_the_write_ahead_log(old):
    with closing(sqlite3.connect(old)) as writer:
        writer.execute("pragma wal_autocheckpoint = 0")
        writer.execute("update dialin_studies set reason = 'late' where name = 'curves'")
        writer.commit()
        assert upgrade(url_of(old)) == UNVERSIONED
    assert rows(copy_of(old, UNVERSIONED), "select name from dialin_studies where reason = 'late'") == [("curves",)]


def test_a_second_opening_has_nothing_to_do(old):
    upgrade(url_of(old))
    copy_of(old, UNVERSIONED).unlink()
    assert upgrade(url_of(old)) == HEAD
    connect(url_of(old)).dispose()
    assert not copy_of(old, UNVERSIONED).exists()


def test_new_tables_have_the_newest_version(tmp_path):
    database = tmp_path / "dialin.db"
    assert current(url_of(database)) is None
    assert not database.exists()
    assert upgrade(url_of(database)) is None
    assert current(url_of(database)) == HEAD
    assert differences(url_of(database)) == []


def test_every_table_is_there_whichever_part_opens_first(tmp_path):
    """9fc48be created the tables of the modules that a process had imported."""
    url = url_of(tmp_path / "dialin.db")
    code = "import sys; from dialin.store.tokens import Tokens; Tokens(sys.argv[1]).close()"
    subprocess.run([sys.executable, "-c", code, url], check=True)
    assert differences(url) == []


@pytest.mark.parametrize("missing", ["dialin_submissions", "dialin_tokens", "dialin_sessions", "dialin_leases"])
def test_an_old_file_with_some_of_the_tables_gets_the_others(old, missing):
    with closing(sqlite3.connect(old)) as connection:
        connection.execute(f"drop table {missing}")
    upgrade(url_of(old))
    assert differences(url_of(old)) == []


@pytest.mark.parametrize("version", VERSIONS[:-1])
def test_each_version_leads_to_the_newest(tmp_path, version):
    url = url_of(tmp_path / "dialin.db")
    upgrade(url)
    with closing(sqlite3.connect(tmp_path / "dialin.db")) as connection:
        if version < "0002":
            connection.execute("drop table dialin_bundles")
    set_version(url, version)
    assert upgrade(url) == version
    assert differences(url) == []


def test_a_newer_version_is_refused_in_a_line_and_nothing_is_changed(old):
    upgrade(url_of(old))
    set_version(url_of(old), "0099")
    before = old.read_bytes(), sorted(old.parent.iterdir())
    for use in (connect, upgrade, lambda url: Studies(url).list()):
        with pytest.raises(
            DatabaseError, match=rf"{old} has dialin's tables in version 0099, and .* up to {HEAD}"
        ) as e:
            use(url_of(old))
        assert "\n" not in str(e.value)
    assert (old.read_bytes(), sorted(old.parent.iterdir())) == before
    assert current(url_of(old)) == "0099"


def broken_revisions(tmp_path, monkeypatch) -> None:
    """Revisions of which the last one fails after its first statement."""
    folder = tmp_path / "migrations"
    (folder / "versions").mkdir(parents=True)
    source = Path(migrate.__file__).parent / "migrations"
    for file in [source / "env.py", *(source / "versions").glob("*.py")]:
        (folder / file.relative_to(source)).write_text(file.read_text())
    last = next((folder / "versions").glob(f"v{HEAD}_*.py"))
    last.write_text(
        f"from alembic import op\nrevision, down_revision = '{HEAD}', '{VERSIONS[-2]}'\n\n\ndef upgrade():\n"
        "    op.execute('ALTER TABLE dialin_studies ADD COLUMN color TEXT')\n"
        "    op.execute('UPDATE dialin_studies SET colour = 1')\n"
    )
    monkeypatch.setattr(migrate, "_MIGRATIONS", folder)


def test_a_migration_that_fails_changes_nothing_and_names_the_copy(old, tmp_path, monkeypatch):
    dump = "select type, name, sql from sqlite_master where name like 'dialin%' order by name"
    before = rows(old, dump)
    broken_revisions(tmp_path, monkeypatch)
    copy = copy_of(old, UNVERSIONED)
    for _ in range(2):  # the copy from the first attempt is replaced
        with pytest.raises(DatabaseError, match="could not be upgraded") as raised:
            connect(url_of(old))
        said = str(raised.value)
        assert said.startswith(
            f"{old} could not be upgraded to version {HEAD} of dialin's tables (no such column: colour)"
        )
        assert said.endswith(f"nothing in it was changed; {copy} is a copy of it")
        assert rows(old, dump) == rows(copy, dump) == before
    monkeypatch.undo()
    assert upgrade(url_of(old)) == UNVERSIONED


@contextmanager
def another_account(folder: Path) -> Iterator[None]:
    """Within it, this process may read the folder's files and write none; root may write what it likes."""
    files = list(folder.iterdir())
    for file in files:
        file.chmod(0o444)
    for above in [folder, *folder.parents]:
        if above != Path("/tmp") and above.is_relative_to("/tmp"):
            above.chmod(0o777)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for file in files:
            file.chmod(0o600)


def test_a_file_that_cannot_be_written_is_named_and_not_changed(old):
    before = old.read_bytes()
    with another_account(old.parent), pytest.raises(DatabaseError, match="could not be upgraded") as raised:
        connect(url_of(old))
    assert str(raised.value) == (
        f"{old} could not be upgraded to version {HEAD} of dialin's tables (attempt to write a readonly database); "
        "nothing in it was changed"
    )
    assert old.read_bytes() == before
    upgrade(url_of(old))
    with another_account(old.parent), Studies(url_of(old)) as studies:  # of this version, it can be read
        assert len(studies.list()) == 4


def test_a_file_that_cannot_be_copied_is_not_changed(old, monkeypatch):
    monkeypatch.setattr(migrate, "copy_of", lambda database, _version: database / "nowhere" / "copy")
    with pytest.raises(DatabaseError, match="could not be upgraded") as raised:
        connect(url_of(old))
    assert str(raised.value).endswith("nothing in it was changed")
    assert current(url_of(old)) == UNVERSIONED


def test_many_processes_that_open_an_old_file_upgrade_it_once(old):
    code = "import logging, sys; logging.basicConfig(); from dialin.store.database import connect; connect(sys.argv[1])"
    started = [
        subprocess.Popen([sys.executable, "-c", code, url_of(old)], stderr=subprocess.PIPE, text=True) for _ in range(5)
    ]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 5, said
    assert sum("was upgraded from" in text for text in said) == 1
    assert current(url_of(copy_of(old, UNVERSIONED))) == UNVERSIONED
    assert differences(url_of(old)) == []


def test_a_database_of_this_version_is_opened_without_alembic(tmp_path):
    url = url_of(tmp_path / "dialin.db")
    code = (
        "import sys; from dialin.store.database import connect; connect(sys.argv[1]); connect(sys.argv[1]);"
        "print([name for name in sys.modules if name.partition('.')[0] == 'alembic'])"
    )
    for _ in range(2):  # a new one, and one that is there
        done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_a_new_database_on_a_server_has_the_newest_version(empty):
    assert current(empty) is None
    connect(empty).dispose()
    assert current(empty) == HEAD
    assert differences(empty) == []


def test_an_old_database_on_a_server_is_refused_with_the_command(empty):
    make_old(empty)
    with pytest.raises(DatabaseError, match=r"in an older version, and .* run: dialin db upgrade") as raised:
        connect(empty)
    assert "\n" not in str(raised.value)
    assert current(empty) == UNVERSIONED
    assert upgrade(empty) == UNVERSIONED
    assert differences(empty) == []
    with Studies(empty) as studies:
        assert studies.get("a-bcdefg").created_at == 1.5
    set_version(empty, VERSIONS[0])
    with pytest.raises(DatabaseError, match=rf"in version {VERSIONS[0]}, and this dialin works with {HEAD}"):
        connect(empty)


def test_a_migration_that_fails_on_a_server_changes_nothing(empty, tmp_path, monkeypatch):
    make_old(empty)
    before = repr(differences(empty))
    broken_revisions(tmp_path, monkeypatch)
    with pytest.raises(DatabaseError, match=r"could not be upgraded .*colour.*; nothing in it was changed$"):
        upgrade(empty)
    assert (current(empty), repr(differences(empty))) == (UNVERSIONED, before)


def _upgrade(url: str) -> str | None:
    return upgrade(url)


def test_many_processes_upgrade_a_database_on_a_server_once(empty):
    make_old(empty)
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(_upgrade, [empty] * 4)
    assert set(found) <= {UNVERSIONED, HEAD}
    assert differences(empty) == []


def test_the_environment_is_not_asked_for_a_database(old, monkeypatch):
    """Alembic's own settings play no part."""
    monkeypatch.setenv("ALEMBIC_CONFIG", os.devnull)
    assert upgrade(url_of(old)) == UNVERSIONED
