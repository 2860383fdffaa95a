"""The JSON Schema of the language of search spaces, for editors, for OpenAPI, and for whoever writes one by program.

It is made from the models that read a specification and from the catalogue of knobs, so it cannot fall behind them. It
says less than they do: what one key says of another (a range whose ends are turned round, a condition that never holds)
is found by `parse_spec` alone.
"""

from __future__ import annotations

from typing import Any

from dialin.specification.catalogue import CATALOGUE
from dialin.specification.catalogue.knob import Knob, any_knob
from dialin.specification.domain_forms import WHEN_DESCRIPTION, ChoiceForm, FixedForm, Form, RangeForm, RangeTestForm
from dialin.specification.space import OWN_NAME
from dialin.specification.study_spec import DATASETS, PATH_PREFIXES, StudySpec
from dialin.specification.wording import start_text

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]

_SCALAR: Schema = {"type": ["boolean", "number", "string"]}
_OFF: Schema = {"enum": ["off", "none", False, None]}
_CONDITION: Schema = {
    "description": WHEN_DESCRIPTION,
    "type": "object",
    "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1}]},
    "minProperties": 1,
}
_SPREAD: Schema = {
    "description": "one standard deviation about the centre: a factor such as 2x on a log scale, else a number",
    "anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": "^[0-9.eE+-]+ ?x$"}],
}


def json_schema(definitions: str = "#/$defs") -> Schema:
    """The schema as plain data, draft 2020-12: every key with its description and default, every knob with its values.

    `definitions`: where the references lead to. A caller that puts the schema into a larger document moves its `$defs`
    there, as to `#/components/schemas` in OpenAPI.
    """
    condition: Schema = {"$ref": f"{definitions}/Condition"}
    spread: Schema = {"$ref": f"{definitions}/Spread"}
    schema = _filled(StudySpec.model_json_schema(ref_template=f"{definitions}/{{model}}"), {}, {})
    named = {name: found for name, found in schema.pop("$defs").items() if name.endswith("Spec")}
    named["ObjectiveSpec"]["properties"]["dataset"] |= _dataset()
    for objective, metric in (("ObjectiveSpec", "MetricSpec"), ("PythonSpec", "OwnMetricSpec")):
        several = named[objective]["properties"]["metrics"]  # a name alone is an entry too
        several["items"] = {"anyOf": [named[metric]["properties"]["name"], several["items"]]}
    sections = schema["properties"]
    sections["space"] = {"type": "object", "description": sections["space"]["description"]}
    sections["prior"] = {"anyOf": [_OFF, {"type": "object"}], "description": sections["prior"]["description"]}
    return {
        "$schema": DIALECT,
        "title": "A search space of dialin",
        **schema,
        # Whose knobs a space has depends on its objective; editors and validators both follow `if`.
        "if": {"properties": {"objective": {"required": ["python"]}}, "required": ["objective"]},
        "then": _by_knobs({"$ref": f"{definitions}/OwnSpace"}, _own_prior(condition, spread)),
        "else": _by_knobs({"$ref": f"{definitions}/Space"}, {"$ref": f"{definitions}/Prior"}),
        "$defs": {
            **named,
            "Space": _space(condition),
            "OwnSpace": _own_space(condition),
            "Prior": _prior(condition, spread),
            "Condition": _CONDITION,
            "Spread": _SPREAD,
        },
    }


def _by_knobs(space: Schema, prior: Schema) -> Schema:
    """The sections whose keys are knobs."""
    return {"properties": {"space": space, "prior": {"anyOf": [_OFF, prior]}}}


def _space(condition: Schema) -> Schema:
    knobs = {name: _knob(knob, condition) for name, knob in CATALOGUE.items()}
    return {"type": "object", "properties": knobs, "additionalProperties": False}


def _own_space(condition: Schema) -> Schema:
    knob = _knob(any_knob("own"), condition)
    return {"type": "object", "patternProperties": {f"^{OWN_NAME}$": knob}, "additionalProperties": False}


def _prior(condition: Schema, spread: Schema) -> Schema:
    knobs = {name: _centre(knob, condition, spread) for name, knob in CATALOGUE.items()}
    return {"type": "object", "properties": knobs, "additionalProperties": False}


def _own_prior(condition: Schema, spread: Schema) -> Schema:
    knob = _centre(any_knob("own"), condition, spread)
    return {"type": "object", "patternProperties": {f"^{OWN_NAME}$": knob}, "additionalProperties": False}


def _centre(knob: Knob, condition: Schema, spread: Schema) -> Schema:
    """What a prior may say of one knob: off, a value, a mapping, or a list of mappings."""
    value = _value(knob)
    case = {
        "type": "object",
        "properties": {"around": value, "spread": spread, "when": condition},
        "required": ["around"],
        "additionalProperties": False,
    }
    schema: Schema = {"anyOf": [_OFF, value, case, {"type": "array", "items": case, "minItems": 1}]}
    if knob.start is not None:
        schema["description"] = f"without it: {start_text(knob)} ({knob.start.source})"
    return schema


def _knob(knob: Knob, condition: Schema) -> Schema:
    """What a search space may say of one knob: a value, a list of values, or one of the mappings."""
    value = _value(knob)
    bound = {"type": "number"} if knob.kind == "any" else value
    forms = [form.model_json_schema() for form in _forms(knob)]
    values = {"value": value, "bound": bound, "condition": condition}
    mappings = [_filled(form, form.pop("$defs", {}), values) for form in forms]
    several = {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}
    schema: Schema = {"anyOf": [value, several, *mappings]}
    if knob.summary:
        schema["description"] = f"{knob.summary} ({knob.source})"
    if len(knob.defaults) == 1:  # one that does not depend on other knobs
        schema["default"] = knob.defaults[0][1]
    return schema


def _value(knob: Knob) -> Schema:
    """One value of a knob."""
    match knob.kind:
        case "choice" | "bool":
            return {"enum": list(knob.choices)}
        case "parts":
            part = f"({'|'.join(knob.parts)})"
            return {"anyOf": [{"enum": ["none", *knob.parts]}, {"type": "string", "pattern": rf"^{part}(\+{part})+$"}]}
        case "any":
            return dict(_SCALAR)
        case _:
            return _number(knob)


# Draft 2020-12 takes 100.0 as an integer, as the reader does.
def _number(knob: Knob) -> Schema:
    schema: Schema = {"type": "integer" if knob.kind == "int" else "number"}
    if knob.low is not None:
        schema["exclusiveMinimum" if knob.low_open else "minimum"] = knob.low
    if knob.high is not None:
        schema["exclusiveMaximum" if knob.high_open else "maximum"] = knob.high
    return schema


def _forms(knob: Knob) -> list[type[Form]]:
    """The mappings that may stand for the values of a knob."""
    ranges: list[type[Form]] = [RangeForm] if knob.kind in ("int", "float", "any") else []
    return [FixedForm, ChoiceForm, *ranges, *([RangeTestForm] if knob.name == "lr" else [])]


def _dataset() -> Schema:
    prefixes = "|".join(PATH_PREFIXES)
    return {"anyOf": [{"enum": list(DATASETS)}, {"type": "string", "pattern": f"^({prefixes})."}]}


def _filled(schema: Any, named: Schema, values: Schema) -> Any:
    """A copy with one knob's values in place of each `x-knob`, and references to `named` resolved."""
    if isinstance(schema, list):
        return [_filled(each, named, values) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = _merged(schema, "$ref", {f"#/$defs/{name}": found for name, found in named.items()})
    schema = _merged(schema, "x-knob", values)
    return {key: _filled(value, named, values) for key, value in schema.items() if not _says_nothing(key, value)}


def _merged(schema: Schema, key: str, known: Schema) -> Schema:
    """A schema with what its `key` stands for in its place; what it says beside that goes before."""
    if schema.get(key) not in known:
        return schema
    return {**known[schema[key]], **{other: value for other, value in schema.items() if other != key}}


def _says_nothing(key: str, value: Any) -> bool:
    """Whether an entry is pydantic's title, which is the key in other letters, or a default that is nothing or a whole
    section's, which its keys have already."""
    return (key == "title" and isinstance(value, str)) or (key == "default" and isinstance(value, dict | list | None))
