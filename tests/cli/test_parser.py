"""The arguments of the command line: names that do not exist, and help for every command."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from dialin.cli import main as cli

COMMANDS = [
    "run",
    "plan",
    "lr-range-test",
    "sync",
    "submit",
    "list",
    "show",
    "best",
    "watch",
    "stop",
    "logs",
    "resume",
    "extend",
    "knobs",
    "schema",
    "up",
    "db",
    "token",
]
NESTED = ["token create", "token list", "token revoke", "db current", "db upgrade"]


def printed(capsys, *arguments):
    code = cli.main(list(arguments))
    return code, *capsys.readouterr()


@pytest.mark.parametrize("command", [*COMMANDS, *NESTED])
@pytest.mark.parametrize("columns", ["80", "120"])
def test_every_command_has_help_that_fits(command, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as ended:
        cli.main([*command.split(), "--help"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    assert out.startswith(f"usage: dialin {command}")
    assert max(map(len, out.splitlines())) <= int(columns)
    description = out.split("\n\n")[1]
    assert description[0].isupper()
    assert description.rstrip().endswith(".")


def test_every_command_is_in_the_help(capsys):
    code, out, err = printed(capsys)
    assert (code, err) == (0, "")
    listed = {line.split()[0] for line in out.splitlines() if line.startswith("    ") and line.split()}
    assert set(COMMANDS) <= listed


@pytest.mark.parametrize("command", [c for c in [*COMMANDS, *NESTED] if c not in ("token", "db")])
def test_every_command_takes_a_log_level(command, capsys):
    code, out, err = printed(capsys, *command.split(), "--log-level", "lots")
    assert (code, out) == (2, "")
    assert err == "error: --log-level 'lots': allowed: debug, error, info, warning\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "COMMAND 'rnu': did you mean 'run'?"),
        (["token", "creat", "ana"], "token 'creat': did you mean 'create'?"),
        (["db", "upgrad"], "db 'upgrad': did you mean 'upgrade'?"),
        (["run", "digits", "--runner", "rya"], "--runner 'rya': did you mean 'ray'?"),
        (["list", "--state", "runing"], "STATE 'runing': did you mean 'running'?"),
        (["token", "create", "ana", "--role", "root"], "--role 'root': allowed: admin, submitter, viewer"),
        (["lr-range-test", "digits", "--method", "knee"], "--method 'knee': did you mean 'knees'?"),
        (
            ["lr-range-test", "digits", "--steps", "1"],
            "--steps 1; allowed: 0 < --min < --max, --steps from 10 to 10000",
        ),
        (["logs", "mine", "--tail", "0"], "argument --tail: '0'; allowed: 1 to 100000"),
        (["run", "digits", "--trails", "3"], "unrecognized arguments: --trails 3"),
        (["show"], "the following arguments are required: STUDY"),
        (["show", "mine", "first"], "argument TRIAL: invalid int value: 'first'"),
        (["up", "--port", "70000"], "--port 70000; allowed: 1 to 65535"),
        (["knobs", "momentun"], "knob 'momentun': did you mean 'momentum'?"),
        (["list", "--server", "http://x", "--out", "y"], "--server http://x and --out y"),
    ],
)
def test_wrong_arguments_are_named_with_what_is_allowed(arguments, message, capsys):
    code, out, err = printed(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err


def test_the_log_level_is_that_of_the_package(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    printed(capsys, "list", "--log-level", "info")
    assert logging.getLogger("dialin").level == logging.INFO
    printed(capsys, "list")
    assert logging.getLogger("dialin").level == logging.WARNING
    monkeypatch.setenv("DIALIN_LOG_FORMAT", "xml")
    code, _, err = printed(capsys, "list")
    assert (code, err) == (2, "error: log format 'xml'; allowed: text, json\n")


def test_help_and_version_load_nothing_heavy():
    unwanted = "torch ray mlflow optuna pydantic rich sqlalchemy httpx yaml numpy"
    for arguments in (["--version"], []):
        code = (
            "import sys; from dialin.cli.main import main; main(sys.argv[1:]); "
            f"print(*[name for name in {unwanted.split()!r} if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == ""
