"""The house's rules: which way imports go, one door a library, and nothing heavy behind the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "service" / "dialin"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each room may import itself and the rooms named; a file at the top of the package is a room of its own.
MAY_IMPORT = {
    "errors": set(),
    "lifecycle": {"errors"},
    "texts": set(),
    "paths": set(),
    "settings": {"errors", "paths"},
    "supervisor": {"errors"},
    "specification": {"errors", "texts"},
    "planning": {"errors", "specification"},
    "schemas": {"lifecycle"},
    "store": {"lifecycle", "errors", "paths", "settings", "texts"},
    "search": {"lifecycle", "errors", "specification", "planning", "store", "texts"},
    "training": {"errors", "specification", "planning"},
    "objectives": {"errors", "specification", "planning", "training", "texts", "supervisor"},
    "execution": {"lifecycle", "errors", "specification", "planning", "search", "objectives", "supervisor", "texts"},
    "events": {"lifecycle", "planning", "search", "specification", "texts"},
    "tracking": {"lifecycle", "errors", "events", "paths", "settings", "specification", "texts", "supervisor"},
    "results": {"lifecycle", "errors", "specification", "planning", "search", "texts"},
    "charts": {"lifecycle", "results", "specification", "texts", "search", "planning"},
    "study_flow": {"lifecycle", "schemas", "errors", "texts", "paths", "settings", "specification", "planning", "store", "search", "objectives", "execution", "events", "tracking",
                   "results", "charts"},
    "web": {"lifecycle", "schemas", "charts", "errors", "planning", "results", "search", "specification", "texts"},
    "server": {"lifecycle", "schemas", "errors", "texts", "paths", "settings", "specification", "planning", "store", "search", "execution", "events", "tracking", "results",
               "study_flow", "supervisor", "web"},
    "client": {"lifecycle", "errors", "schemas", "specification", "settings", "paths", "texts", "store", "search", "events", "results", "tracking", "study_flow", "supervisor"},
    "cli": {"lifecycle", "schemas", "supervisor", "events", "charts", "client", "errors", "texts", "paths", "settings", "specification", "planning", "store", "search", "objectives", "execution", "results",
            "study_flow", "server", "tracking"},
    "__main__": {"cli"},
}  # fmt: skip

DOORS = {
    "ray": {"execution"},
    "mlflow": {"tracking"},
    "optuna": {"search"},
    "torch": {"training", "objectives", "execution"},
    "torchvision": {"training", "objectives"},
    "sklearn": {"training", "objectives"},
    "sqlalchemy": {"server", "search", "store"},
    "alembic": {"store"},
    "rich": {"cli", "client", "server", "study_flow"},
    "scipy": {"search", "results"},
    "yaml": {"specification"},
    "pydantic": {"schemas", "specification", "client"},
    "fastapi": {"server", "web"},
    "starlette": {"server", "web"},
    "uvicorn": {"server"},
    "psutil": {"supervisor"},
    "httpx": {"server", "client"},
    "httpx_sse": {"client"},
    "pandas": {"client"},
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module imported anywhere in the file, under functions and type checks too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    own = room(path)
    if own == "__init__":
        return
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("dialin.")}
    assert rooms - {own} <= MAY_IMPORT[own]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_has_one_door(path):
    for library in {name.split(".")[0] for name in imports(path)} & set(DOORS):
        assert room(path) in DOORS[library], f"{library} is imported outside {DOORS[library]}"


def test_no_room_depends_on_itself_through_others():
    """The table above is itself a one-way street."""
    done: set[str] = set()
    while len(done) < len(MAY_IMPORT):
        ready = {name for name, needs in MAY_IMPORT.items() if name not in done and needs <= done}
        assert ready, f"a circle among {sorted(set(MAY_IMPORT) - done)}"
        done |= ready


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("dialin.cli.main", "torch ray mlflow optuna pydantic rich sqlalchemy"),
        ("dialin.client.client", "torch ray mlflow optuna sqlalchemy pandas"),
        ("dialin.specification", "torch ray mlflow optuna"),
        ("dialin.search.study", "torch ray mlflow"),
        ("dialin.objectives", "torch ray mlflow optuna sklearn"),
        ("dialin.tracking.mirror", "torch ray mlflow optuna"),
    ],
)
def test_loads_nothing_heavy(module, unwanted):
    code = f"import sys, {module}; print(*[name for name in {unwanted.split()!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""
