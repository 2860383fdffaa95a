"""From pydantic's errors to problems in our words: the path, the value, what is allowed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from dialin.errors import Problem, did_you_mean
from dialin.specification.domain_forms import FORMS, RangeForm
from dialin.specification.metrics import BoundSpec, MetricSpec, OwnMetricSpec
from dialin.specification.study_spec import ObjectiveSpec, PythonSpec, StudySpec
from dialin.texts import show_value

MOST_PROBLEMS = 100
"""At most so many problems are reported: each costs a search for the nearest name, and more are not read."""

_NAME = "1 to 64 of a-z, 0-9, - and _, a letter or digit first"
_METRIC = "1 to 64 letters, digits and _, no digit first"
# How W&B, Optuna, Ray Tune and Hydra call it, and what it is called here.
_ELSEWHERE = {
    "values": "choices: [...]",
    "low": "min",
    "high": "max",
    "lower": "min",
    "upper": "max",
    "distribution": "min and max, and log: true for a range over orders of magnitude",
    "q": "step",
    "q_step": "step",
}
_NOT_TOLD = ("default_factory_not_called",)  # the mode of a metric that is refused itself

Error = Mapping[str, Any]  # as in ValidationError.errors()
Words = Callable[[str, Mapping[str, Any]], str]

_WORDS: Mapping[str, Words] = {
    "int_type": lambda shown, _: f"{shown} is not a whole number",
    "int_from_float": lambda shown, _: f"{shown} is not a whole number",
    "float_type": lambda shown, _: f"{shown} is not a number",
    "bool_type": lambda shown, _: f"{shown} is not true or false",
    "finite_number": lambda shown, _: f"{shown} is not a finite number",
    "string_type": lambda shown, _: f"{shown} is not text",
    "list_type": lambda shown, _: f"{shown} is not a list",
    "dict_type": lambda shown, _: f"{shown} is not a mapping",
    "literal_error": lambda shown, context: f"{shown}; allowed: {context['expected'].replace(' or ', ', ')}",
    "greater_than": lambda shown, context: f"{shown} is not above {_number(context['gt'])}",
    "greater_than_equal": lambda shown, context: f"{shown} is below {_number(context['ge'])}, the least",
    "less_than": lambda shown, context: f"{shown} is not below {_number(context['lt'])}",
    "less_than_equal": lambda shown, context: f"{shown} is above {_number(context['le'])}, the most",
    "too_long": lambda _, context: f"{context['actual_length']} of them; at most {context['max_length']} are taken",
    "value_error": lambda _, context: str(context["error"]),
}


def spec_problems(error: ValidationError) -> list[Problem]:
    """The problems of a whole specification, one more than are told at most."""
    # Cut before the wording, which searches for the nearest name.
    found = (one for one in error.errors(include_url=False) if one["type"] not in _NOT_TOLD)
    return [_problem(one, StudySpec, "") for one in islice(found, MOST_PROBLEMS + 1)]


def domain_problems(error: ValidationError, path: str) -> list[Problem]:
    """The problems of one knob's domain, which stands at `path`. A bound that is missing goes untold beside an unknown
    key, which is what the bound was called."""
    found = error.errors(include_url=False)
    if any(one["type"] == "extra_forbidden" for one in found):
        found = [one for one in found if one["type"] != "missing"]
    return [_problem(one, None, path) for one in found]


def _problem(error: Error, model: type[BaseModel] | None, prefix: str) -> Problem:
    loc = error["loc"]
    keys = [str(part) for part in loc if not _is_tag(part)]
    holder = _model_at(model, loc[:-1])
    # The place of a key that is missing from a range, or at the top, is the range, or nothing.
    is_above = error["type"] == "missing" and (holder is RangeForm or len(loc) == 1)
    path = keys[:-1] if is_above else keys
    return Problem(".".join([prefix, *path] if prefix else path), _message(error, keys, holder, _model_at(model, loc)))


# pydantic names the member of a union in the path of an error; the file has no such key.
def _is_tag(part: object) -> bool:
    """Whether a part of a path names a member of a union, not a key: see `study_spec.Objective`."""
    return isinstance(part, str) and part.startswith("<")


def _model_at(model: type[BaseModel] | None, loc: Sequence[int | str]) -> type[BaseModel] | None:
    """The model of what lies at a path below `model`; None for what is none."""
    for part in loc:
        if _is_tag(part):
            model = _TAGGED.get(str(part))
        elif model is not None and part in model.model_fields:
            model = _model_in(model.model_fields[str(part)].annotation)
        elif model in _LISTED and (isinstance(part, int) or model is BoundSpec):
            pass  # an entry of a list of such models, or of a mapping to them
        else:
            model = None
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in the type of a field, which may be optional."""
    return next((part for part in (annotation, *get_args(annotation)) if hasattr(part, "model_fields")), None)


def _message(error: Error, keys: Sequence[str], holder: type[BaseModel] | None, model: type[BaseModel] | None) -> str:
    kind, shown = error["type"], show_value(error["input"])
    if kind == "missing":
        return _missing(keys[-1], holder)
    if kind == "extra_forbidden":
        return _unknown_key(keys[-1], holder)
    if kind == "string_pattern_mismatch":
        return f"{shown}; allowed: {_METRIC if keys[-1] == 'metric' or holder is OwnMetricSpec else _NAME}"
    if kind in ("model_type", "model_attributes_type"):
        return f"{shown} is not a mapping; keys: {', '.join(_keys(model))}"
    return _WORDS[kind](shown, error.get("ctx", {})) if kind in _WORDS else f"{shown}: {error['msg']}"


def _missing(key: str, holder: type[BaseModel] | None) -> str:
    if holder is RangeForm:
        return f"a range needs {key!r} (or write a value, a list, or {{value: ...}})"
    return f"{key!r} is missing"


def _unknown_key(key: str, holder: type[BaseModel] | None) -> str:
    if holder is PythonSpec and key == "dataset":
        return "a function of your own brings its own data; name either dataset or python"
    if holder in FORMS.values() and key in _ELSEWHERE:
        return f"unknown key {key!r}; write {_ELSEWHERE[key]}"
    return f"unknown key {key!r}; {did_you_mean(key, _keys(holder))}"


def _keys(model: type[BaseModel] | None) -> list[str]:
    """The keys that may stand where this model is read; for one that is told from others by its keys, theirs too."""
    if model is None:
        return []
    others = {ObjectiveSpec: ["python"], RangeForm: ["choices", "value"]}.get(model, [])
    return [*model.model_fields, *others]


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_LISTED = (MetricSpec, OwnMetricSpec, BoundSpec)
_TAGGED: Mapping[str, type[BaseModel]] = {**FORMS, "<dataset>": ObjectiveSpec, "<python>": PythonSpec}
