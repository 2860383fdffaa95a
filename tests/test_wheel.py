"""What is installed from a wheel works without the repository beside it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, timeout=120)
    (built,) = folder.glob("dialin-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """An environment with the wheel in it: what dialin depends on is the test's own, dialin itself is not."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True, timeout=120)
    # A path in a .pth file is searched after the environment's own packages, and its own .pth files (which name the
    # repository) are not read.
    places = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "dependencies.pth").write_text("\n".join(places))
    return folder


def run(installed: Path, folder: Path, *command: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(installed / "bin" / command[0]), *command[1:]],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_it_has_the_search_spaces_with_their_manual_and_what_the_page_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    spaces = {f"dialin/{path.relative_to(ROOT)}" for path in (ROOT / "search_spaces").rglob("*.*")}
    package = ROOT / "service" / "dialin"
    data = {path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".md")}
    assert spaces <= names
    assert {f"dialin/{path.relative_to(package)}" for path in data} <= names
    assert not any(name.startswith(("tests/", "search_spaces/")) for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_is_the_installed_package_that_is_found(installed, tmp_path):
    found = run(installed, tmp_path, "python", "-c", "import dialin; print(dialin.__file__)")
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith(str(installed))


def test_it_plans_a_shipped_space(installed, tmp_path):
    planned = run(installed, tmp_path, "dialin", "plan", "digits")
    assert planned.returncode == 0, planned.stderr
    assert "270 epochs at most" in planned.stdout


def test_it_runs_a_study(installed, tmp_path):
    ran = run(installed, tmp_path, "dialin", "run", "synthetic")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    assert "best configuration" in ran.stdout
    assert (tmp_path / "dialin-data" / "dialin.db").is_file()
