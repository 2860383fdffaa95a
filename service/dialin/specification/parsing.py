"""From text to a StudySpec, with every problem named by path and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dialin.errors import Problem, SpecError, did_you_mean
from dialin.specification import shipped
from dialin.specification.catalogue import CATALOGUE
from dialin.specification.checks import check_sections
from dialin.specification.functions import check_function, resolve_function, split_function
from dialin.specification.prior_section import SpaceContext, read_prior
from dialin.specification.problems import MOST_PROBLEMS, spec_problems
from dialin.specification.space import knobs_of, read_space
from dialin.specification.study_spec import PythonSpec, StudySpec
from dialin.specification.versions import upgrade
from dialin.specification.yaml_reader import MAX_BYTES, Document, read_value, read_yaml
from dialin.texts import show_value

_TOP = tuple(StudySpec.model_fields)
_BEFORE_VERSIONS = 0


def load_spec(source: str | Path, overrides: Sequence[str] = ()) -> StudySpec:
    """The specification in a file, or the shipped one of that name; `overrides` as in `parse_spec`.

    A person's own function is looked for from the folder of the file. Raises SpecError with every problem; for a
    source that is neither a file nor a shipped space, with the nearest shipped name.
    """
    name = str(source)
    content = _content(Path(source), name)
    if content is not None:
        return parse_spec(content, name, overrides, Path(source).resolve().parent)
    if name not in shipped.names():
        near = did_you_mean(name, shipped.names())
        raise SpecError([Problem("", f"{name!r} is neither a file nor a shipped search space; {near}")])
    return parse_spec(shipped.read(name), name, overrides)


def parse_spec(
    text: str | bytes, source: str = "", overrides: Sequence[str] = (), folder: Path | None = None
) -> StudySpec:
    """The specification in `text` (YAML, or JSON as a part of it). An override is `path=value`, as `budget.epochs=3`.

    `folder`: where the file of a person's own function is looked for; it is read, and never run. Without a folder the
    specification must name its absolute path, and it is not looked for: its study may have ended long ago.

    Raises SpecError with every problem found: path, line, what is wrong, what is allowed.
    """
    document = _document(text, source)
    problems: list[Problem] = []
    # Overrides change the data before it is checked: one may mend what the file has wrong.
    overridden = [_override(document.data, override, problems) for override in overrides]
    spec = None if problems else _build(document.data, problems, folder)
    if problems or spec is None:
        raise SpecError(_told([_located(problem, document, overridden) for problem in problems]), source)
    return spec


def parse_stored(text: str) -> StudySpec:
    """The specification in a text that `to_yaml` made, perhaps an older version's. Raises SpecError."""
    document = _document(text, "")
    try:
        data = upgrade(document.data, missing=_BEFORE_VERSIONS)
    except ValueError as error:
        raise SpecError([Problem("version", str(error), document.line("version"))]) from None
    return spec_from_data(data)


def spec_from_data(data: Mapping[str, Any], source: str = "") -> StudySpec:
    """The specification in plain data. Raises SpecError with every problem found."""
    problems: list[Problem] = []
    spec = _build(dict(data), problems)
    if problems or spec is None:
        raise SpecError(_told(problems), source)
    return spec


def _content(path: Path, source: str) -> bytes | None:
    """The bytes of a file, at most one more than are ever parsed; None when there is no such file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([Problem("", f"cannot be read: {error.strerror}")], show_value(source)) from None


def _document(text: str | bytes, source: str) -> Document:
    document = read_yaml(text, source)
    if not isinstance(document.data, dict):
        message = "not a mapping; a specification has keys such as name, objective, space"
        raise SpecError([Problem("", message, 1)], source)
    return document


def _build(data: dict[str, Any], problems: list[Problem], folder: Path | None = None) -> StudySpec | None:
    """The specification; None when something is wrong, which is appended to `problems` then."""
    try:
        data = upgrade(data)
    except ValueError as error:
        problems.append(Problem("version", str(error)))  # and nothing else: another version has other keys
        return None
    if "space" in data:
        data = {**data, **_with_knobs(data, problems)}
    try:
        spec = StudySpec.model_validate(data)
    except ValidationError as error:
        problems.extend(spec_problems(error))
        return None
    spec = _with_function(spec, folder, problems)
    # Checks between sections read the whole specification, and would only repeat what is wrong in a part of it.
    if not problems:
        problems.extend(islice(check_sections(spec), MOST_PROBLEMS + 1))
    return spec


def _with_knobs(data: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The sections whose values depend on the knobs."""
    own, written = _is_own(data), data["space"] if isinstance(data["space"], dict) else {}
    space = read_space(data["space"], own, problems)
    if "prior" not in data:
        return {"space": space}
    context = SpaceContext(space, knobs_of(written, own), frozenset(written))
    return {"space": space, "prior": read_prior(data["prior"], context, problems)}


def _is_own(data: Mapping[str, Any]) -> bool:
    """Whether a specification is about a person's own function."""
    return isinstance(data.get("objective"), dict) and "python" in data["objective"]


def _with_function(spec: StudySpec, folder: Path | None, problems: list[Problem]) -> StudySpec:
    """The specification with the absolute path of its function's file, which must be there if there is a folder."""
    objective = spec.objective
    if not isinstance(objective, PythonSpec):
        return spec
    try:
        absolute = resolve_function(objective.python, folder)
        if folder is not None:
            file, function = split_function(absolute)
            check_function(Path(file), function)
    except ValueError as error:
        problems.append(Problem("objective.python", str(error)))
        return spec
    return spec.model_copy(update={"objective": objective.model_copy(update={"python": absolute})})


def _override(data: dict[str, Any], override: str, problems: list[Problem]) -> str:
    """Put one `path=value` into the data; the path that it changed."""
    written, equals, text = override.partition("=")
    keys = written.strip().split(".")
    # The knobs of a person's own function are known only from its space.
    knobs = data["space"] if _is_own(data) and isinstance(data.get("space"), dict) else CATALOGUE
    if keys[0] in knobs and keys[0] not in _TOP:
        keys = ["space", *keys]
    path = ".".join(keys)
    if not equals or not all(keys):
        problems.append(Problem("", f"--set {override!r}: not of the form KEY=VALUE, as in budget.epochs=3"))
    elif keys[0] not in _TOP:
        near = did_you_mean(keys[0], _TOP if len(keys) > 1 else (*_TOP, *knobs))
        problems.append(Problem("", f"--set {override!r}: unknown key {keys[0]!r}; {near}"))
    else:
        try:
            _put(data, keys, read_value(text, f"--set {override!r}"))
            _replace_metrics(data, path)
        except SpecError as error:
            problems.append(Problem("", str(error)))
    return path


def _put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set the value at a path, with mappings made on the way where there are none."""
    for key in keys[:-1]:
        # `asha: off` gives way to `--set early_stopping.asha.grace_epochs=2`.
        if not isinstance(data.get(key), dict):
            data[key] = {}
        data = data[key]
    data[keys[-1]] = value


def _replace_metrics(data: dict[str, Any], path: str) -> None:
    """Take away what a file says of the metric in the other form: an override of one form replaces both."""
    replaced = {"objective.metrics": ("metric", "mode"), "objective.metric": ("metrics",)}.get(path, ())
    for key in replaced:
        data["objective"].pop(key, None)


def _located(problem: Problem, document: Document, overridden: Sequence[str]) -> Problem:
    if problem.path and any(problem.path == path or problem.path.startswith(f"{path}.") for path in overridden):
        return Problem(problem.path, f"{problem.message} (from --set)")
    return Problem(problem.path, problem.message, document.line(problem.path)) if problem.path else problem


def _told(problems: Sequence[Problem]) -> list[Problem]:
    """The problems in the order of the lines, those without a line first; of very many, only the first."""
    told = sorted(problems[:MOST_PROBLEMS], key=lambda problem: problem.line or 0)
    if len(problems) > MOST_PROBLEMS:
        told.append(Problem("", f"that is not all: more than {MOST_PROBLEMS} things are wrong"))
    return told
