"""What a client sends for a specification: its text, and as a bundle the files of a function of the user's own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialin import specification
from dialin.errors import Problem, SpecError
from dialin.specification import parse_spec, shipped, to_yaml
from dialin.specification.code_bundle import pack
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.specification.yaml_reader import MAX_BYTES, Document, read_yaml

SpecSource = str | Path | Mapping[str, Any]
"""A specification as people have it: a file, YAML text, the name of a shipped search space, or plain data."""


@dataclass(frozen=True)
class SpecText:
    """A specification as text."""

    text: str
    source: str
    """The file or the name that it comes from, for error messages; empty for data and for YAML text."""
    folder: Path
    """The folder that relative paths in it start from."""


@dataclass(frozen=True)
class Request:
    """What is sent to a server for a specification."""

    text: str
    bundle: bytes | None = None
    """The files of the user's own function, as a zip archive."""
    source: str = ""
    """Where the specification comes from, for errors about it."""
    document: Document | None = None
    """The text that the user wrote, to find lines in; None where it was plain data."""

    def located(self, problem: Problem) -> Problem:
        """A server's problem with its line in the user's text; the server may have been sent another text."""
        if self.document is None or not problem.path:
            return Problem(problem.path, problem.message)
        return Problem(problem.path, problem.message, self.document.line(problem.path))


def prepare(spec: SpecSource, overrides: Sequence[str] = ()) -> Request:
    """The request for a specification with these overrides.

    Text is sent unchanged where that is possible, since the server checks it. Raises SpecError, and BundleError for
    files that a bundle cannot hold.
    """
    found = read_source(spec)
    document = read_yaml(found.text, found.source)
    shown = None if isinstance(spec, Mapping) else document
    has_function = _names_function(document.data)
    if not has_function and not overrides:
        return Request(found.text, None, found.source, shown)
    # Only this side knows the overrides and the user's files.
    parsed = parse_spec(found.text, found.source, overrides, found.folder if has_function else None)
    if not isinstance(parsed.objective, PythonSpec):
        return Request(to_yaml(parsed), None, found.source, shown)
    return Request(to_yaml(_inside_bundle(parsed)), pack(parsed.objective.file.parent), found.source, shown)


def load_spec(spec: SpecSource, overrides: Sequence[str] = ()) -> StudySpec:
    """Read and check a specification.

    `spec`: a YAML file, YAML text of more than one line, the name of a shipped search space, or the same as a dict.
    `overrides`: changes as `--set` takes them, such as budget.epochs=3. Raises SpecError with every problem found:
    its path, its line, what is wrong and what is allowed.
    """
    found = read_source(spec)
    return parse_spec(found.text, found.source, overrides, found.folder)


def read_source(spec: SpecSource) -> SpecText:
    """The text of a specification. Raises SpecError for a name that is neither a file nor a shipped search space, for a
    file that cannot be read, and for data that JSON cannot express."""
    if isinstance(spec, Mapping):
        return SpecText(_json(spec), "", Path.cwd())
    if isinstance(spec, str) and "\n" in spec:  # no file and no shipped space has a line end in its name
        return SpecText(spec, "", Path.cwd())
    path, source = Path(spec), str(spec)
    folder = path.resolve().parent
    if path.is_file():
        return SpecText(_read(path, source), source, folder)
    if source not in shipped.names():
        specification.load_spec(source)  # raises the error that `dialin run` prints
    return SpecText(shipped.read(source), source, folder)


def _inside_bundle(spec: StudySpec) -> StudySpec:
    """The specification with its function's file named relative to the bundle, whose top is the file's folder."""
    objective = spec.objective
    if not isinstance(objective, PythonSpec):
        return spec
    inside = objective.model_copy(update={"python": f"{objective.file.name}:{objective.function}"})
    return spec.model_copy(update={"objective": inside})


def _names_function(data: Any) -> bool:
    objective = data.get("objective") if isinstance(data, dict) else None
    return isinstance(objective, dict) and "python" in objective


def _json(data: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(data), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError([Problem("", f"not plain data: {error}")]) from None


def _read(path: Path, source: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([Problem("", f"cannot be read: {error.strerror}")], source) from None
    read_yaml(content, source)  # raises for a file that is too long and for one that is not text
    return content.decode("utf-8-sig")
