"""`dialin db` and `dialin schema`."""

from __future__ import annotations

import json
import tarfile

import pytest

from dialin.cli import main as cli
from dialin.settings import Settings
from dialin.specification import to_yaml
from dialin.store.schema import HEAD
from dialin.store.studies import Studies
from tests.conftest import ROOT
from tests.factories import make_spec


@pytest.fixture
def dialin(tmp_path, monkeypatch, capsys):
    """Runs a command in this process and in an empty folder: its exit code, what it printed, what it complained of."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main(list(arguments))
        return code, *capsys.readouterr()

    return run


def test_where_there_is_no_database_none_is_made(dialin, tmp_path):
    none = f"there is no database yet; the first study creates one of version {HEAD}\n"
    for action in ("current", "upgrade"):
        assert dialin("db", action) == (0, none, "")
    assert json.loads(dialin("db", "current", "--json")[1]) == {"current": None, "needed": HEAD}
    assert list(tmp_path.iterdir()) == []


def test_a_database_of_this_version(dialin, tmp_path):
    settings = Settings.read({}, out=str(tmp_path / "here"))
    settings.out.mkdir()
    with Studies(settings.database) as studies:
        studies.create("small", to_yaml(make_spec()))
    assert dialin("db", "current", "--out", "here")[:2] == (
        0,
        f"the database has version {HEAD}, which this dialin needs\n",
    )
    again = f"the database has version {HEAD} already; nothing was changed\n"
    assert dialin("db", "upgrade", "--out", "here")[:2] == (0, again)
    assert json.loads(dialin("db", "upgrade", "--out", "here", "--json")[1]) == {"before": HEAD, "current": HEAD}


def test_a_database_of_the_first_version_is_upgraded(dialin, tmp_path):
    with tarfile.open(ROOT / "tests" / "upgrades" / "folder-9fc48be.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    (database,) = tmp_path.rglob("dialin.db")
    out = str(database.parent)
    code, shown, _ = dialin("db", "current", "--out", out)
    assert code == 1
    assert f"and this dialin needs version {HEAD}; upgrade it: dialin db upgrade" in shown
    code, shown, _ = dialin("db", "upgrade", "--out", out)
    assert code == 0
    assert shown.startswith("the database was upgraded from version ")
    assert shown.endswith(f" to version {HEAD}\n")
    assert dialin("db", "current", "--out", out)[0] == 0
    assert "complete" in dialin("list", "--out", out)[1]


def test_the_schema_is_one_json_document_with_every_knob(dialin):
    code, out, err = dialin("schema")
    assert (code, err) == (0, "")
    schema = json.loads(out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"name", "objective", "space", "budget"} <= set(schema["properties"])
    assert "label_smoothing" in out
