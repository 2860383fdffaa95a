"""Children start whatever lies in the folder where a person is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dialin.errors import ServerError
from dialin.supervisor.commands import module_command, program_path

CHILDREN = (
    "dialin.supervisor.guard",
    "dialin.tracking.recorder",
    "dialin.server.serve",
    "dialin.server.mlflow_server",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current folder with files that are named as modules which the children import."""
    for name in ("random", "ray", "logging", "argparse", "dialin"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('imported {name}.py of the current folder')\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@pytest.mark.parametrize("module", CHILDREN)
def test_a_child_imports_nothing_of_the_current_folder(folder, module):
    assert output(module_command(module, "--help")).startswith("usage: ")


def test_python_alone_would(folder):
    assert "of the current folder" in output([sys.executable, "-m", CHILDREN[0], "--help"])


def test_the_command_line_imports_nothing_of_it_either(folder):
    assert output([program_path("dialin", "dialin"), "--version"]).startswith("dialin ")


def test_a_study_runs_there_in_rays_workers(tmp_path, monkeypatch):
    for name in ("random", "ray"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    said = output([program_path("dialin", "dialin"), "run", "synthetic", "--set", "budget.trials=2"])
    assert "best configuration" in said, said
    assert (tmp_path / "dialin-data" / "mlflow.db").is_file()


def test_a_program_of_another_environment_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(Path(sys.prefix) / "bin"))
    with pytest.raises(ServerError, match=rf"^{tmp_path}/bin/ray does not exist; install ray\[default\] into"):
        program_path("ray", "ray[default]")
