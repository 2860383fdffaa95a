"""From text to a StudySpec, with every problem named by path and line, and back to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dialin.errors import DialinError, Problem, SpecError, UnreadableError, did_you_mean, reading
from dialin.specification import shipped
from dialin.specification.catalogue.knobs import CATALOGUE
from dialin.specification.domains import Choice, Domain, Fixed, FloatRange, IntRange, RangeTested, allows
from dialin.specification.functions import check_function, resolve_function, split_function
from dialin.specification.space_parsing import MOST_PROBLEMS, parse_space
from dialin.specification.study_spec import LEAST_SHARE, SECTIONS, ObjectiveSpec, PythonSpec, Section, StudySpec
from dialin.specification.yaml_reader import MAX_BYTES, Document, read_value, read_yaml
from dialin.texts import one_line

DATASETS = ("digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "synthetic")
_NAME = "1 to 64 of a-z, 0-9, - and _, a letter or digit first"
_PREFIXES = ("npz:", "folder:")
_TOP = ("name", "objective", "space", "search", "early_stopping", "budget", "resources", "claim")


def load_spec(source: str | Path, overrides: Sequence[str] = ()) -> StudySpec:
    """The specification in a file, or the shipped one of that name; `overrides` as in `parse_spec`. A person's own
    function is looked for from the folder of the file.

    Raises SpecError with every problem; for a source that is neither, with the nearest shipped name.
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

    `folder`: where the file of a person's own function is looked for; it is read then, and never run. Without one the
    specification must name its whole path, and it is not looked for: its study may have ended long ago.

    Raises SpecError with every problem found: path, line, what is wrong, what is allowed.
    """
    document = read_yaml(text, source)
    if not isinstance(document.data, dict):
        raise SpecError(
            [Problem("", "not a mapping; a specification has keys such as name, objective, space", 1)], source
        )
    problems: list[Problem] = []
    overridden = [_override(document.data, override, problems) for override in overrides]
    spec = None if problems else _build(document.data, problems, folder)
    if problems or spec is None:
        found = [_located(problem, document, overridden) for problem in problems[:MOST_PROBLEMS]]
        if len(problems) > MOST_PROBLEMS:
            found.append(Problem("", f"that is not all: more than {MOST_PROBLEMS} things are wrong"))
        raise SpecError(found, source)
    return spec


@lru_cache(maxsize=512)
def stored_spec(text: str) -> StudySpec:
    """The specification in a text that `to_yaml` made, read once. Raises SpecError, as for one of another version."""
    with reading("the specification"):
        return parse_spec(text)


@lru_cache(maxsize=512)
def damage_of(text: str) -> str:
    """Why a stored specification cannot be read, in a line; empty for one that can."""
    try:
        stored_spec(text)
    except DialinError as error:
        return one_line(f"the specification: {error}")
    return ""


def spec_of_study(study_id: str, text: str) -> StudySpec:
    """The specification that is stored of a study. Raises UnreadableError, which names the study."""
    if damage := damage_of(text):
        raise UnreadableError(f"study {study_id} cannot be read as it is stored: {damage}")
    return stored_spec(text)


def spec_from_data(data: Mapping[str, Any], source: str = "") -> StudySpec:
    """The specification in plain data. Raises SpecError."""
    problems: list[Problem] = []
    spec = _build(dict(data), problems)
    if problems or spec is None:
        raise SpecError(problems, source)
    return spec


def to_data(spec: StudySpec) -> dict[str, Any]:
    """Plain data that reads back as the same specification."""
    data = spec.model_dump(exclude={"space"})
    data["space"] = {name: _domain_data(domain) for name, domain in spec.space.items()}
    if data["early_stopping"]["asha"] is None:
        data["early_stopping"]["asha"] = "off"
    for section in data.values():
        if isinstance(section, dict):
            for key in [key for key, value in section.items() if value is None]:
                del section[key]
    return {key: data[key] for key in _TOP if data[key] is not None}


def to_yaml(spec: StudySpec) -> str:
    """YAML that reads back as the same specification."""
    return _dump(to_data(spec), None)


def to_block_yaml(data: Mapping[str, Any]) -> str:
    """Plain data as YAML with one key a line."""
    return _dump(data, False)


def _dump(data: Mapping[str, Any], flow: bool | None) -> str:
    """Sections are in an order that is read from the top, and no letter is escaped. `flow` as PyYAML has it."""
    return yaml.dump(
        dict(data), Dumper=_Dumper, sort_keys=False, default_flow_style=flow, width=100, allow_unicode=True
    )


def _content(path: Path, source: str) -> bytes | None:
    """The bytes of a file, one more than are ever parsed at most; None when there is no such file."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError([Problem("", f"cannot be read: {error.strerror}")], _show(source)) from None


def _build(data: dict[str, Any], problems: list[Problem], folder: Path | None = None) -> StudySpec | None:
    unknown = [key for key in data if key not in _TOP][: MOST_PROBLEMS + 1]
    problems += [Problem(key, f"unknown key {key!r}; {did_you_mean(key, _TOP)}") for key in unknown]
    problems += [Problem("", f"{key!r} is missing") for key in ("name", "objective", "space") if key not in data]
    sections = {name: _section(name, data[name], problems) for name in SECTIONS if name in data}
    if isinstance(objective := sections.get("objective"), PythonSpec):
        sections["objective"] = _found(objective, folder, problems)
    space = parse_space(data["space"], problems, _is_own(data)) if "space" in data else {}
    if problems:
        return None
    try:
        spec = StudySpec.model_validate({"name": data["name"], "space": space, **sections})
    except ValidationError as error:
        problems.extend(_translate(error, "", StudySpec))
        return None
    _check_together(spec, problems)
    return spec


def _section(name: str, data: Any, problems: list[Problem]) -> Any:
    if name == "early_stopping":
        data = {"asha": None, "doctor": "off"} if _is_off(data) else data
        if isinstance(data, dict) and "asha" in data and _is_off(data["asha"]):
            data = {**data, "asha": None}
    if name == "budget" and isinstance(data, dict) and data.get("epoch_minutes") in ("off", "none", False):
        data = {**data, "epoch_minutes": 0}
    if name == "claim" and isinstance(data, dict):
        data = {**data, **{side: _listed(data[side]) for side in ("better", "than") if side in data}}
    model = PythonSpec if name == "objective" and _is_own({name: data}) else SECTIONS[name]
    if name == "objective" and isinstance(data, dict) and "mode" not in data:
        data = {**data, "mode": "min" if _is_loss(data.get("metric")) else "max"}
    if not isinstance(data, dict):
        problems.append(Problem(name, f"{_show(data)} is not a mapping; keys: {', '.join(_fields(model, []))}"))
        return None
    try:
        return model.model_validate(_whole(data))
    except ValidationError as error:
        problems.extend(_translate(error, name, model))
        return None


def _is_own(data: Mapping[str, Any]) -> bool:
    """Whether a specification is about a person's own function."""
    return isinstance(data.get("objective"), dict) and "python" in data["objective"]


def _is_loss(metric: object) -> bool:
    return isinstance(metric, str) and (metric == "loss" or metric.endswith("_loss"))


def _found(objective: PythonSpec, folder: Path | None, problems: list[Problem]) -> PythonSpec:
    """The objective with the whole path of its function's file; where that may be looked for, it is there."""
    try:
        whole = resolve_function(objective.python, folder)
        if folder is not None:
            file, function = split_function(whole)
            check_function(Path(file), function)
    except ValueError as error:
        problems.append(Problem("objective.python", str(error)))
        return objective
    return objective.model_copy(update={"python": whole})


def _listed(side: Any) -> Any:
    """One side of a claim, each knob with a list of values."""
    if not isinstance(side, dict):
        return side
    return {name: values if isinstance(values, list) else [values] for name, values in side.items()}


def _is_off(data: Any) -> bool:
    return data is None or data is False or (isinstance(data, str) and data in ("off", "none"))  # 0 is a mistake


def _whole(data: Any) -> Any:
    """1e3 as 1000, as in the space: a field for whole numbers takes it, one for any number does not mind."""
    if isinstance(data, dict):
        return {key: _whole(value) for key, value in data.items()}
    return int(data) if isinstance(data, float) and data.is_integer() and abs(data) < 2**53 else data


def _check_together(spec: StudySpec, problems: list[Problem]) -> None:
    """What no section can see alone."""
    asha = spec.early_stopping.asha
    if isinstance(spec.objective, ObjectiveSpec):
        _check_objective(spec.objective, problems)
    _check_grid(spec, problems)
    _check_claim(spec, problems)
    _check_enqueued(spec, problems)
    _check_rungs(spec, problems)
    gpus = spec.resources.gpus
    if gpus is not None and 0 < gpus < LEAST_SHARE:
        problems.append(Problem("resources.gpus", f"{gpus:g} is below {LEAST_SHARE:g}, the least share"))
    if gpus is not None and gpus > 1 and gpus != int(gpus):
        problems.append(Problem("resources.gpus", f"{gpus:g} is neither a share of one GPU nor a whole number of them"))
    if asha is not None and asha.grace_epochs is not None and asha.grace_epochs > spec.budget.epochs:
        problems.append(
            Problem(
                "early_stopping.asha.grace_epochs",
                f"{asha.grace_epochs} is more than the {spec.budget.epochs} epochs of a trial (budget.epochs)",
            )
        )


def _check_objective(objective: ObjectiveSpec, problems: list[Problem]) -> None:
    prefix = next((prefix for prefix in _PREFIXES if objective.dataset.startswith(prefix)), None)
    if prefix is not None and len(objective.dataset) == len(prefix):
        problems.append(Problem("objective.dataset", f"{objective.dataset!r} names no path after {prefix!r}"))
    if prefix is None and objective.dataset not in DATASETS:
        near = did_you_mean(objective.dataset, (*DATASETS, "npz:PATH", "folder:PATH"))
        problems.append(Problem("objective.dataset", f"unknown data set {objective.dataset!r}; {near}"))
    wanted = "min" if objective.metric == "val_loss" else "max"
    if objective.mode != wanted:
        problems.append(
            Problem("objective.mode", f"{objective.mode!r} of {objective.metric} finds the worst; use {wanted!r}")
        )


def _check_grid(spec: StudySpec, problems: list[Problem]) -> None:
    if spec.search.sampler != "grid":
        return
    wrong = [name for name, domain in spec.space.items() if not isinstance(domain, Fixed | Choice)]
    if wrong:
        problems.append(Problem(f"space.{wrong[0]}", "a grid takes values and lists; this is a range"))


def _check_enqueued(spec: StudySpec, problems: list[Problem]) -> None:
    for index, configuration in enumerate(spec.search.enqueue):
        if len(problems) > MOST_PROBLEMS:
            return
        for name, value in configuration.items():
            path = f"search.enqueue.{index}.{name}"
            if name not in spec.space:
                problems.append(Problem(path, f"no knob of this space; {did_you_mean(name, spec.space)}"))
            elif not allows(spec.space[name], value):
                values = _show(_domain_data(spec.space[name]))
                problems.append(Problem(path, f"{_show(value)} is not one of its values: {values}"))


def _check_rungs(spec: StudySpec, problems: list[Problem]) -> None:
    asha = spec.early_stopping.asha
    if asha is None or asha.rungs is None:
        return
    path, rungs = "early_stopping.asha.rungs", asha.rungs
    if asha.grace_epochs is not None:
        problems.append(Problem(path, "grace_epochs says where the rungs begin; name either"))
    if rungs != sorted(set(rungs)) or any(not 1 <= rung < spec.budget.epochs for rung in rungs):
        problems.append(Problem(path, f"{rungs} are not rising whole numbers from 1 to {spec.budget.epochs - 1}"))


def _check_claim(spec: StudySpec, problems: list[Problem]) -> None:
    for side in ("better", "than"):
        for name in getattr(spec.claim, side, {}):
            if name not in spec.space:
                message = f"{name!r} is no knob of this space; {did_you_mean(name, spec.space)}"
                problems.append(Problem(f"claim.{side}.{name}", message))


def _override(data: dict[str, Any], override: str, problems: list[Problem]) -> str:
    """Put one `path=value` into the data; the path that it changed."""
    path, equals, text = override.partition("=")
    path = path.strip()
    keys = path.split(".")
    knobs = data["space"] if _is_own(data) and isinstance(data.get("space"), dict) else CATALOGUE
    if keys[0] in knobs and keys[0] not in _TOP:
        keys = ["space", *keys]
    path = ".".join(keys)
    if not equals or not all(keys):
        problems.append(Problem("", f"--set {override!r}: not of the form KEY=VALUE, as in budget.epochs=3"))
        return path
    known = _TOP if len(keys) > 1 else (*_TOP, *knobs)
    if keys[0] not in _TOP:
        problems.append(Problem("", f"--set {override!r}: unknown key {keys[0]!r}; {did_you_mean(keys[0], known)}"))
        return path
    target = data
    for key in keys[:-1]:
        if not isinstance(target.get(key), dict):
            target[key] = {}
        target = target[key]
    try:
        target[keys[-1]] = read_value(text, f"--set {override!r}")
    except SpecError as error:
        problems.append(Problem("", str(error)))
    return path


def _located(problem: Problem, document: Document, overridden: Sequence[str]) -> Problem:
    if problem.path and any(problem.path == path or problem.path.startswith(f"{path}.") for path in overridden):
        return Problem(problem.path, f"{problem.message} (from --set)")
    return Problem(problem.path, problem.message, document.line(problem.path)) if problem.path else problem


def _translate(error: ValidationError, prefix: str, model: Any) -> list[Problem]:
    """Pydantic's findings in our words: the thing, the value, what is allowed."""
    problems = []
    for found in error.errors(include_url=False):
        keys = [str(key) for key in found["loc"]]
        path = ".".join([prefix, *keys] if prefix else keys)
        problems.append(Problem(path, _message(found, keys, model)))
    return problems


def _message(found: Any, keys: list[str], model: Any) -> str:
    kind, shown, context = found["type"], _show(found["input"]), found.get("ctx", {})
    if kind == "extra_forbidden" and model is PythonSpec and keys == ["dataset"]:
        return "a function of one's own brings its own data; name either dataset or python"
    if kind == "extra_forbidden":
        return f"unknown key {keys[-1]!r}; {did_you_mean(keys[-1], _fields(model, keys[:-1]))}"
    if kind == "literal_error":
        return f"{shown}; allowed: {context['expected'].replace(' or ', ', ')}"
    if kind == "string_pattern_mismatch":
        metric = "1 to 64 letters, digits and _, no digit first"
        return f"{shown}; allowed: {metric if keys[-1] == 'metric' else _NAME}"
    words = {
        "missing": f"{keys[-1]!r} is missing",
        "int_type": f"{shown} is not a whole number",
        "int_from_float": f"{shown} is not a whole number",
        "float_type": f"{shown} is not a number",
        "finite_number": f"{shown} is not a finite number",
        "string_type": f"{shown} is not text",
        "model_type": f"{shown} is not a mapping",
        "model_attributes_type": f"{shown} is not a mapping",
        "greater_than": f"{shown} is not above {_number(context.get('gt'))}",
        "greater_than_equal": f"{shown} is below {_number(context.get('ge'))}, the least",
        "less_than": f"{shown} is not below {_number(context.get('lt'))}",
        "less_than_equal": f"{shown} is above {_number(context.get('le'))}, the most",
    }
    return words.get(kind, f"{shown}: {found['msg']}")


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _fields(model: type[Section], keys: list[str]) -> list[str]:
    if model is ObjectiveSpec:
        return [*model.model_fields, "python"]
    for key in keys:
        inner: Any = model.model_fields[key].annotation
        model = next(
            (part for part in (inner, *getattr(inner, "__args__", ())) if hasattr(part, "model_fields")), model
        )
    return list(model.model_fields)


def _domain_data(domain: Domain) -> Any:
    when = {name: list(values) for name, values in domain.when.items()}
    condition = {"when": when} if when else {}
    match domain:
        case Fixed(value=value):
            return {"value": value, **condition} if when else value
        case Choice(values=values):
            return {"choices": list(values), **condition} if when else list(values)
        case RangeTested():
            options = {"method": domain.method, "per": list(domain.per), "min": domain.low, "max": domain.high}
            steps = {"steps": domain.steps} if domain.steps is not None else {}
            return {"range_test": {**options, **steps, "seeds": domain.seeds}, **condition}
        case FloatRange() | IntRange():
            step = (
                {}
                if domain.step is None or (isinstance(domain, IntRange) and domain.step == 1)
                else {"step": domain.step}
            )
            log = {"log": True} if domain.log else {}
            return {"min": domain.low, "max": domain.high, **log, **step, **condition}


def _show(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return "null" if value is None else text if len(text) <= 60 else f"{text[:57]}..."


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    # Quoted wherever our own reader would take the plain word for something else.
    try:
        plain = read_value(text, "") == text
    except SpecError:
        plain = False
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _dump_text)
