"""The house's rules: which way imports go, one door a library, and nothing heavy behind the command line."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "service").rglob("*.py"))

# Each room may import itself and the rooms named; a file at the top of service/ is a room of its own.
MAY_IMPORT = {
    "errors": set(),
    "texts": set(),
    "bundles": {"errors"},
    "scratch": {"errors"},
    "settings": {"errors"},
    "interrupts": set(),
    "spec": {"bundles", "errors", "texts"},
    "planning": {"errors", "spec"},
    "store": {"errors", "settings", "texts"},
    "search": {"errors", "spec", "planning", "store", "texts"},
    "objectives": {"scratch", "errors", "spec", "planning", "search", "training", "texts"},
    "training": {"errors", "spec", "planning"},
    "tracking": {"errors", "search", "settings", "spec", "texts"},
    "cluster": {"scratch", "errors", "spec", "planning", "search", "objectives"},
    "results": {"errors", "spec", "planning", "search"},
    "journal": {"planning", "search", "texts"},
    "driver": {"interrupts", "journal", "spec", "planning", "search", "tracking", "texts"},
    "estimate": {"planning"},
    "progress": {"estimate", "spec", "planning", "search", "results", "texts"},
    "calibration": {"errors", "planning", "spec", "texts"},
    "continuing": {"errors", "planning", "settings", "spec", "store"},
    "runs": {"calibration", "cluster", "continuing", "history", "driver", "errors", "interrupts", "journal", "objectives", "planning", "results", "search", "settings",
             "spec", "store", "tracking"},
    "history": {"calibration", "errors", "results", "search", "settings", "spec", "store", "tracking"},
    "views": {"errors", "history", "planning", "search", "spec", "texts"},
    "showing": {"history", "planning", "results", "search", "spec", "tracking", "views", "texts"},
    "guard": {"supervisor"},
    "job": {"supervisor", "cluster", "errors", "progress", "runs", "settings", "store"},
    "reconciler": {"cluster", "errors", "planning", "spec", "store"},
    "web": {"errors", "planning", "results", "search", "spec", "texts"},
    "api": {"bundles", "calibration", "cluster", "continuing", "errors", "estimate", "history", "journal", "planning", "reconciler", "results", "search",
            "settings", "spec", "store", "texts", "tracking", "views", "web"},
    "supervisor": {"errors"},
    "embedded": {"api", "cluster", "errors", "interrupts", "scratch", "settings", "store", "supervisor"},
    "transport": {"errors"},
    "submitting": {"bundles", "errors", "spec"},
    "client": {"errors", "submitting", "transport"},
    "output": {"texts"},
    "watching": {"cluster", "errors", "history", "planning", "progress", "results", "search", "settings", "store", "texts", "views"},
    "remote": {"client", "errors", "history", "output", "planning", "progress", "results", "search", "settings", "showing", "spec", "store",
               "views"},
    "cli": {"cluster", "embedded", "errors", "history", "objectives", "output", "planning", "progress", "remote", "results", "runs", "settings", "showing",
            "spec", "store", "views", "watching", "texts"},
}  # fmt: skip

DOORS = {
    "ray": {"cluster"},
    "mlflow": {"tracking"},
    "optuna": {"search", "results"},
    "torch": {"training", "objectives"},
    "torchvision": {"training", "objectives"},
    "sklearn": {"training", "objectives"},
    "sqlalchemy": {"api", "job", "reconciler", "search", "store"},
    "rich": {"job", "output", "progress", "showing", "watching"},
    "matplotlib": {"results"},
    "scipy": {"search", "results"},
    "yaml": {"spec"},
    "pydantic": {"api", "spec"},
    "fastapi": {"api", "web"},
    "starlette": {"api", "web"},
    "uvicorn": {"api"},
    "psutil": {"guard", "supervisor"},
    "httpx": {"api", "transport"},
    "pandas": {"client"},
}


def room(path: Path) -> str:
    return path.relative_to(ROOT / "service").parts[0].removesuffix(".py")


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
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("service.")}
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
        ("service.cli", "torch ray mlflow optuna pydantic rich sqlalchemy"),
        ("service.client", "torch ray mlflow optuna pydantic sqlalchemy pandas"),
        ("service.spec", "torch ray mlflow optuna"),
        ("service.search.study", "torch ray mlflow"),
        ("service.objectives", "torch ray mlflow optuna sklearn"),
        ("service.tracking.mirror", "torch ray mlflow optuna"),
    ],
)
def test_loads_nothing_heavy(module, unwanted):
    code = f"import sys, {module}; print(*[name for name in {unwanted.split()!r} if name in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.strip() == ""
