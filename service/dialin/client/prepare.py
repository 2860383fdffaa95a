"""What is sent to a server for a specification: its text, and the files of a function of one's own as a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dialin.errors import Problem, SpecError
from dialin.specification import load_spec, parse_spec, shipped, to_yaml
from dialin.specification.code_bundle import pack
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.specification.yaml_reader import MAX_BYTES, Document, read_yaml


@dataclass(frozen=True)
class Sent:
    """A specification as a server gets it. `source` and `document`: where it comes from, for errors about it."""

    text: str
    bundle: bytes | None = None
    source: str = ""
    document: Document | None = None

    def located(self, problem: Problem) -> Problem:
        """A server's problem with the line that it has here; the server may have read another text."""
        if self.document is None or not problem.path:
            return Problem(problem.path, problem.message)
        return Problem(problem.path, problem.message, self.document.line(problem.path))


def prepare(spec: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Sent:
    """Of a file, plain data, or the name of a shipped space. Text is sent as it is where it can be: the server is the
    one to check it. Raises SpecError, and BundleError for files that no bundle takes."""
    if isinstance(spec, Mapping):
        text, source, folder = _json(spec), "", Path.cwd()
    else:
        path, source = Path(spec), str(spec)
        folder = path.resolve().parent
        if not path.is_file() and source not in shipped.names():
            load_spec(source)  # raises what `dialin run` would
        text = _read(path, source) if path.is_file() else shipped.read(source)
    document = read_yaml(text, source)
    shown = None if isinstance(spec, Mapping) else document
    own = _is_own(document.data)
    if not own and not overrides:
        return Sent(text, None, source, shown)
    # Overrides and files of one's own are known here alone.
    parsed = parse_spec(text, source, overrides, folder if own else None)
    if not isinstance(parsed.objective, PythonSpec):
        return Sent(to_yaml(parsed), None, source, shown)
    return Sent(to_yaml(_in_bundle(parsed)), pack(parsed.objective.file.parent), source, shown)


def _in_bundle(spec: StudySpec) -> StudySpec:
    """The specification with its function's file named from the top of its bundle, which is the file's folder."""
    objective = spec.objective
    if not isinstance(objective, PythonSpec):
        return spec
    inside = objective.model_copy(update={"python": f"{objective.file.name}:{objective.function}"})
    return spec.model_copy(update={"objective": inside})


def _is_own(data: Any) -> bool:
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
    read_yaml(content, source)  # names what is too long and what is no text
    return content.decode("utf-8-sig")
