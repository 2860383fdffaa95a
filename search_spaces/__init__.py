"""The search spaces that come with dialin, one YAML file each; `README.md` beside them is the language's manual."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable


def names() -> list[str]:
    """The shipped spaces, sorted; one in a folder as `folder/name`."""
    return sorted(_find(resources.files(__name__), ""))


def read(name: str) -> str:
    """The YAML of a shipped space. Raises KeyError for a name that is not among `names()`."""
    return _find(resources.files(__name__), "")[name].read_text(encoding="utf-8")


def _find(folder: Traversable, prefix: str) -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.name.startswith(("_", ".")):
            found |= _find(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            found[f"{prefix}{entry.name.removesuffix('.yaml')}"] = entry
    return found
