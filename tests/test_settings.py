from __future__ import annotations

from pathlib import Path

import pytest

from dialin.errors import UsageError
from dialin.paths import OutputFolder
from dialin.settings import RENAMED, ServerAddress, ServerSettings, Settings, table
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("environ", "given", "out", "data"),
    [
        ({}, {}, "dialin-data", "dialin-data/data"),
        ({"DIALIN_OUT": "a"}, {}, "a", "a/data"),
        ({"DIALIN_OUT": "a", "DIALIN_DATA_DIR": "b"}, {}, "a", "b"),
        ({"DIALIN_OUT": "a", "DIALIN_DATA_DIR": "b"}, {"out": "c", "data_dir": "d"}, "c", "d"),
        ({"DIALIN_OUT": ""}, {"out": None}, "dialin-data", "dialin-data/data"),
    ],
)
def test_where_things_lie(monkeypatch, tmp_path, environ, given, out, data):
    monkeypatch.chdir(tmp_path)
    settings = Settings.read(environ, **given)
    assert (settings.out, settings.data_dir) == (tmp_path / out, tmp_path / data)


def test_a_command_names_the_folder_where_it_has_to(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Settings.read().command("resume x") == "dialin resume x"
    assert Settings.read(out="a b").command("resume x") == "dialin resume x --out 'a b'"
    assert Settings.read(out="/o").command("resume x") == "dialin resume x --out /o"
    monkeypatch.setenv("DIALIN_OUT", "a b")
    assert Settings.read(out="a b").command("resume x") == "dialin resume x"


def test_one_folder_a_study():
    folder = OutputFolder(Path("/o")).study("digits-abc")
    assert folder.best_config == Path("/o/studies/digits-abc/best_config.yaml")
    assert len({folder.events, folder.checkpoints, folder.logs}) == 3


@pytest.mark.parametrize(
    ("value", "allowed"), [(None, False), ("", False), ("0", False), ("off", False), ("1", True), ("TRUE", True)]
)
def test_code_is_allowed_only_where_that_is_said(value, allowed):
    assert Settings.read({} if value is None else {"DIALIN_ALLOW_CODE": value}).allow_code is allowed


def test_a_switch_that_is_neither_on_nor_off_is_refused():
    with pytest.raises(UsageError, match="DIALIN_ALLOW_CODE='yes please'; allowed: 1, true, on, 0, false, off"):
        Settings.read({"DIALIN_ALLOW_CODE": "yes please"})


def test_the_address_of_a_server():
    environment = {"DIALIN_SERVER": "http://there", "DIALIN_TOKEN": "secret"}
    assert ServerAddress.read(environment) == ServerAddress("http://there", "secret")
    assert ServerAddress.read(environment, url="http://here") == ServerAddress("http://here", "secret")
    assert ServerAddress.read(environment, out="folder") is None
    assert ServerAddress.read({"DIALIN_SERVER": "", "DIALIN_TOKEN": ""}) is None
    assert "secret" not in repr(ServerAddress.read(environment))
    with pytest.raises(UsageError, match="name either"):
        ServerAddress.read({}, url="http://here", out="folder")


def test_hosts_are_names_in_lower_case_and_nothing_else():
    def read(text):
        return ServerSettings.read({"DIALIN_ALLOWED_HOSTS": text}).allowed_hosts

    assert read("Dialin.Example.org, 10.0.0.7,[::1]") == ("dialin.example.org", "10.0.0.7", "::1")
    for wrong in ("dialin.example.org:8080", "https://dialin.example.org", "a b"):
        with pytest.raises(UsageError, match="is not a host; allowed: names and addresses, without a scheme or a port"):
            read(wrong)


def test_a_setting_has_its_unit_and_its_type():
    read = ServerSettings.read({"DIALIN_LOG_MIB": "3", "DIALIN_BUNDLE_HOURS": "0.5", "DIALIN_MAX_TRIALS": ""})
    assert (read.log_bytes, read.bundle_hours, read.max_trials) == (3 * 2**20, 0.5, 10_000)
    assert Settings.read({"DIALIN_UPGRADE_DATABASE": "on"}).upgrade_database is True


@pytest.mark.parametrize(("earlier", "name"), RENAMED.items())
def test_an_earlier_name_of_a_variable_is_refused_with_the_present_one(earlier, name):
    with pytest.raises(UsageError, match=f"^{earlier} was renamed to {name}; set {name} and unset {earlier}$"):
        ServerSettings.read({earlier: "60"})
    assert ServerSettings.read({earlier: "", name: "60"}).health_timeout_seconds == 60
    Settings.read({earlier: "60"})  # commands that do not read the variable do not refuse it


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("DIALIN_MAX_TRIALS", "0", "a whole number from 1 to 9999999"),
        ("DIALIN_POLL_SECONDS", "nan", "a number above 0 and below 1000000"),
        ("DIALIN_RAY_ADDRESS", "ray://head:10001", "the address of Ray's dashboard, as http://127.0.0.1:8265"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(variable, value, allowed):
    with pytest.raises(UsageError) as raised:
        ServerSettings.read({variable: value})
    assert str(raised.value) == f"{variable}={value!r}; allowed: {allowed}"


@pytest.mark.parametrize("record", [Settings, ServerAddress, ServerSettings])
def test_the_readme_lists_every_setting(record):
    lines = (ROOT / "README.md").read_text().splitlines()
    missing = [
        row
        for row in (f"| `{name}` | {default} | {text} |" for name, default, text in table(record))
        if row not in lines
    ]
    assert missing == []


def test_the_readme_lists_no_setting_that_is_not_there():
    known = {name for record in (Settings, ServerAddress, ServerSettings) for name, _, _ in table(record)}
    found = {
        line.split("`")[1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `DIALIN_")
    }
    assert found == known


def test_what_is_secret_is_not_shown():
    environment = {"DIALIN_DATABASE_URL": "postgresql://me:secret@host/db", "DIALIN_MLFLOW_SECRET": "secret"}
    assert "secret@" not in repr(Settings.read(environment))
    assert "'secret'" not in repr(Settings.read(environment))
