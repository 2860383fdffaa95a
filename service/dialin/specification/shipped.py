"""The search spaces that come with dialin, one YAML file each; the manual is `README.md` beside them."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_INSTALLED = _PACKAGE / "search_spaces"
# In an editable installation the files lie at the top of the repository.
_FOLDER = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parents[1] / "search_spaces"


def names() -> list[str]:
    """The names of the shipped search spaces, sorted; a space in a subfolder is named `folder/name`."""
    return sorted(_files())


def read(name: str) -> str:
    """The YAML text of a shipped search space. Raises KeyError for a name that is not among `names()`."""
    return _files()[name].read_text(encoding="utf-8")


def _files() -> dict[str, Path]:
    return {path.relative_to(_FOLDER).with_suffix("").as_posix(): path for path in _FOLDER.rglob("*.yaml")}
