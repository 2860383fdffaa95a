"""What is imported is declared, what is declared is used, and both are among the versions that were tested."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = {asked.name.lower(): asked for asked in map(Requirement, PROJECT["dependencies"])}
BY_NAME_ONLY = {"uvloop"}  # loaded by uvicorn, which is asked for it by name
BOUNDED = ("ray", "torch", "torchvision", "fastapi", "optuna", "mlflow", "pydantic", "sqlalchemy", "starlette")


def imported() -> dict[str, set[str]]:
    """The distributions that the code's imports come from, and where."""
    found: dict[str, set[str]] = {}
    distributions = packages_distributions()
    for folder in ("service",):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [str(node.module)]
                for top in {name.partition(".")[0] for name in names}:
                    if top in sys.stdlib_module_names or top == "dialin":
                        continue
                    assert top in distributions, f"{top}, imported in {file}, belongs to no installed distribution"
                    names_of = [_canonical(name) for name in distributions[top]]  # mlflow is of mlflow-skinny too
                    name = next((name for name in names_of if name in DECLARED), names_of[0])
                    found.setdefault(name, set()).add(str(file.relative_to(ROOT)))
    return found


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_imported_package_is_declared():
    missing = {name: sorted(files) for name, files in imported().items() if name not in DECLARED}
    assert not missing


def test_every_declared_package_is_imported():
    assert {_canonical(name) for name in DECLARED} - BY_NAME_ONLY <= set(imported())


def test_the_tested_versions_are_pinned_and_allowed():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    pinned = {_canonical(name): pin for name, pin in pins.items()}
    for name, requirement in DECLARED.items():
        assert requirement.specifier.contains(pinned[_canonical(name)]), name
        assert requirement.specifier.contains(version(name)), name


@pytest.mark.parametrize("name", BOUNDED)
def test_what_changes_without_warning_has_an_upper_bound(name):
    assert any(part.operator == "<" for part in DECLARED[name].specifier)
