"""The forms in which a search space gives the values of a knob, as pydantic models; each becomes a domain.

    lr: 0.1                                       one value
    lr: [0.1, 0.01]                               a list: a choice
    lr: {value: 0.1, when: {optimizer: sgd}}      FixedForm
    lr: {choices: [0.1, 0.01], when: ...}         ChoiceForm
    lr: {min: 1e-4, max: 1, log: true, ...}       RangeForm
    lr: {range_test: {per: [optimizer]}, ...}     RangeTestForm

What a value may be depends on the knob, which comes to the validators as pydantic's context (`KnobContext`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Any, Literal, Self, TypeGuard, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from dialin.specification.catalogue.knob import Knob
from dialin.specification.catalogue.values import allowed, coerce, number
from dialin.specification.domains import (
    ALWAYS,
    Choice,
    Condition,
    Domain,
    Fixed,
    FloatRange,
    IntRange,
    RangeTested,
    Scalar,
)
from dialin.specification.study_spec import Section
from dialin.texts import show_value

_MOST_STEPS = 1_000_000
_ROUNDING = Fraction(1, 10**9)  # of a step, so that a range that was written out and read again stays as it is

Knobs = Mapping[str, Knob]


@dataclass(frozen=True)
class KnobContext:
    """What the validators of a form know: the knob it is for, and all knobs that a condition may name."""

    knob: Knob
    knobs: Knobs


def _context(info: ValidationInfo) -> KnobContext:
    return cast("KnobContext", info.context)


def _value_of_knob(value: Any, info: ValidationInfo) -> Scalar:
    return coerce(_context(info).knob, value)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _positive(step: Any) -> Any:
    if step is not None and not (_is_number(step) and math.isfinite(step) and step > 0):
        raise ValueError(f"{show_value(step)} is not a number above 0")
    return step


def _bound_of_knob(value: Any, info: ValidationInfo) -> Any:
    """The bound of a range; for a knob that is not a number, the range is refused for another reason."""
    knob = _context(info).knob
    return number(knob, value) if _is_numeric(knob) else value


def _distinct(values: list[Scalar]) -> list[Scalar]:
    if not values:
        raise ValueError("an empty list; name at least one value")
    seen: set[tuple[bool, Scalar]] = set()  # true is not 1
    for value in values:
        key = (isinstance(value, bool), value)
        if key in seen:
            raise ValueError(f"the value {show_value(value)} appears twice")
        seen.add(key)
    return values


def _condition_values(values: Any) -> list[Any]:
    listed = values if isinstance(values, list) else [values]
    if not listed or any(isinstance(value, list | dict) for value in listed):
        raise ValueError(f"{show_value(values)} is not a value or a list of values")
    return listed


def _condition(data: Any) -> Any:
    if not isinstance(data, dict) or not data:
        raise ValueError(f"{show_value(data)} is not a mapping such as {{optimizer: [sgd, rmsprop]}}")
    return data


# `x-knob` is replaced by the values of each knob where the schema of the language is made.
KnobValue = Annotated[Any, AfterValidator(_value_of_knob), WithJsonSchema({"x-knob": "value"})]
KnobBound = Annotated[Any, AfterValidator(_bound_of_knob), WithJsonSchema({"x-knob": "bound"})]
KnobValues = Annotated[
    list[KnobValue],
    AfterValidator(_distinct),
    WithJsonSchema({"type": "array", "items": {"x-knob": "value"}, "minItems": 1, "uniqueItems": True}),
]
Values = Annotated[list[Any], BeforeValidator(_condition_values)]
Step = Annotated[Any, AfterValidator(_positive), WithJsonSchema({"type": ["number", "null"], "exclusiveMinimum": 0})]
WHEN_DESCRIPTION = "other knobs of this space, each with the values under which this knob exists; all must hold"


class Form(BaseModel):
    """One way to write the values of a knob as a mapping."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    when: Annotated[dict[str, Values], BeforeValidator(_condition), WithJsonSchema({"x-knob": "condition"})] = Field(
        {}, description="the condition under which this knob exists"
    )

    def domain(self, context: KnobContext) -> Domain:
        """The domain that this form means."""
        raise NotImplementedError

    def condition(self, knobs: Knobs) -> Condition:
        """The condition, its values as their own knobs have them; a value that a knob cannot take is kept, and is
        refused once the whole space is known."""
        return _as_condition(self.when, knobs)


class FixedForm(Form):
    """A fixed value with a condition."""

    value: KnobValue = Field(description="the value")

    def domain(self, context: KnobContext) -> Domain:
        return Fixed(self.value, self.condition(context.knobs))


class ChoiceForm(Form):
    """A choice with a condition."""

    choices: KnobValues = Field(description="the values to choose from, without order")

    def domain(self, context: KnobContext) -> Domain:
        return _choice(self.choices, self.condition(context.knobs))


class RangeForm(Form):
    """A range of numbers, both ends included."""

    log: bool = Field(False, description="whether to search evenly over orders of magnitude")  # the validators of
    min: KnobBound = Field(description="the lowest value")  # min and step look at the fields above them
    max: KnobBound = Field(description="the highest value; with a step, it falls to the last step")
    step: Step = Field(None, description="search only min, min + step, min + 2 * step, and so on")

    @field_validator("min")
    @classmethod
    def _log_needs_more_than_0(cls, low: Any, info: ValidationInfo) -> Any:
        if info.data.get("log") and isinstance(low, int | float) and low <= 0:
            raise ValueError(f"a log range cannot touch 0, and min is {low:g}")
        return low

    @field_validator("step")
    @classmethod
    def _step_fits(cls, step: float | None, info: ValidationInfo) -> float | None:
        if step is None:
            return None
        low, high, knob = info.data.get("min"), info.data.get("max"), _context(info).knob
        whole = _kind(knob, low, high, step) == "int"
        if whole and step != int(step):
            raise ValueError(f"{step:g} is not whole, and {knob.name} is")
        # A step of 1 says nothing about whole numbers, so a log range of them may have it.
        if info.data.get("log") and not (whole and step == 1):
            raise ValueError("log and step exclude each other")
        if _is_number(low) and _is_number(high) and low < high:  # if not, the ends are refused
            _check_width(step, low, high)
        return step

    @model_validator(mode="before")
    @classmethod
    def _is_of_a_number(cls, data: Mapping[str, Any], info: ValidationInfo) -> Mapping[str, Any]:
        knob = _context(info).knob
        # With an unknown key this may be another form, misspelt: then the key is the problem.
        if not _is_numeric(knob) and data.keys() <= cls.model_fields.keys():
            raise ValueError(f"{knob.name} has no range, because it is not a number; {allowed(knob)}")
        return data

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        return self

    def domain(self, context: KnobContext) -> Domain:
        when = self.condition(context.knobs)
        high = self.max if self.step is None else last_step(self.min, self.max, self.step)
        if _kind(context.knob, self.min, self.max, self.step) == "int":
            return IntRange(int(self.min), int(high), self.log, 1 if self.step is None else int(self.step), when)
        return FloatRange(float(self.min), float(high), self.log, None if self.step is None else float(self.step), when)


class RangeTestOptions(Section):
    """How the learning rate to search about is tested."""

    method: Literal["knees", "third", "minimum"] = Field(
        "minimum",
        description="minimum: between the rate at which the loss is lowest and the default (0.6 and 0.4 of their "
        "logarithms); third: a third of the rate at which the loss is lowest; knees: the middle of the range from "
        "where accuracy starts to rise to where it falls",
    )
    per: list[str] = Field([], description="test each combination of these knobs apart, 24 at most")
    min: KnobBound = Field(1e-5, description="the first rate of the test")
    max: KnobBound = Field(10.0, description="the last rate of the test")
    steps: int | None = Field(
        None, ge=10, le=10_000, description="the steps of a test; default: a twentieth of the study's epochs, 40 to 200"
    )
    seeds: int = Field(2, ge=1, le=20, description="how often each test is repeated")

    @field_validator("per", mode="before")
    @classmethod
    def _are_other_knobs(cls, per: Any, info: ValidationInfo) -> Any:
        knobs = _context(info).knobs
        if (
            not isinstance(per, list)
            or any(not isinstance(name, str) or name not in knobs for name in per)
            or "lr" in per
        ):
            raise ValueError(f"{show_value(per)} is not a list of other knobs, as in [optimizer, batch_size]")
        return per

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        return self


class RangeTestForm(Form):
    """A learning rate that a range test finds before the search."""

    range_test: RangeTestOptions = Field(description="the test that finds the rate before the search begins")

    @field_validator("range_test", mode="before", json_schema_input_type=RangeTestOptions | None)
    @classmethod
    def _is_the_learning_rate(cls, options: Any, info: ValidationInfo) -> Any:
        knob = _context(info).knob
        if knob.kind == "any":
            example = "{min: 1e-4, max: 1.0, log: true}"
            raise ValueError(f"a function of your own has no range test; write the range, as in {example}")
        if knob.name != "lr":
            raise ValueError(f"only lr has a range test, not {knob.name}")
        return {} if options is None else options

    def domain(self, context: KnobContext) -> Domain:
        test = self.range_test
        per = tuple(dict.fromkeys(test.per))
        return RangeTested(test.method, per, test.min, test.max, test.steps, test.seeds, self.condition(context.knobs))


def _form_of(data: Any) -> str:
    """The tag of the form in which a domain is written; a mapping without a word for its form is a range."""
    if isinstance(data, list):
        return "<list>"
    if not isinstance(data, dict):
        return "<scalar>"
    return next((tag for key, tag in _TAGS.items() if key in data), "<range>")


# The key that tells a form from the others; a range has two of its own.
_TAGS = {"value": "<value>", "choices": "<choices>", "range_test": "<range_test>"}
_WRITTEN: TypeAdapter[Any] = TypeAdapter(
    Annotated[
        Annotated[KnobValue, Tag("<scalar>")]
        | Annotated[KnobValues, Tag("<list>")]
        | Annotated[FixedForm, Tag("<value>")]
        | Annotated[ChoiceForm, Tag("<choices>")]
        | Annotated[RangeForm, Tag("<range>")]
        | Annotated[RangeTestForm, Tag("<range_test>")],
        Discriminator(_form_of),
    ]
)
FORMS: Mapping[str, type[Form]] = {
    "<value>": FixedForm,
    "<choices>": ChoiceForm,
    "<range>": RangeForm,
    "<range_test>": RangeTestForm,
}
"""The mappings among the forms, by their tag in the path of a pydantic error."""


def read_domain(data: Any, context: KnobContext) -> Domain:
    """The domain that is written as `data`. Raises pydantic's ValidationError."""
    written = _WRITTEN.validate_python(data, context=context)
    if isinstance(written, Form):
        return written.domain(context)
    return _choice(written, ALWAYS) if isinstance(written, list) else Fixed(written)


def read_condition(data: Any, knobs: Knobs) -> Condition:
    """The condition that is written as `data`. Raises ValueError for what is none; whether its knobs can have its
    values is another question."""
    return _as_condition({name: _condition_values(values) for name, values in _condition(data).items()}, knobs)


def last_step(low: float, high: float, step: float) -> float:
    """The largest low + k * step up to `high`, in decimal arithmetic as written: 0.1 + 0.2 reaches 0.3."""
    # In binary 0.1 + 2 * 0.1 is more than 0.3, and the last step would be lost.
    start, end, stride = (Fraction(str(number)) for number in (low, high, step))
    steps = math.floor((end - start) / stride + _ROUNDING)
    return min(high, float(start + steps * stride))


def _choice(values: Sequence[Scalar], when: Condition) -> Domain:
    return Fixed(values[0], when) if len(values) == 1 else Choice(tuple(values), when)


def _as_condition(when: Mapping[str, Sequence[Any]], knobs: Knobs) -> Condition:
    return {name: tuple(_as_taken(name, value, knobs) for value in values) for name, values in when.items()}


# A condition on flip+crop must equal the value crop+flip, which is how the knob has it.
def _as_taken(name: str, value: Any, knobs: Knobs) -> Scalar:
    try:
        return coerce(knobs[name], value) if name in knobs else cast("Scalar", value)
    except ValueError:
        return cast("Scalar", value)


def _is_numeric(knob: Knob) -> bool:
    return knob.kind in ("float", "int", "any")


def _kind(knob: Knob, *written: Any) -> str:
    """A user-defined knob is whole where both ends of its range, and its step, are written as whole numbers."""
    if knob.kind != "any":
        return knob.kind
    return "int" if all(isinstance(part, int) for part in written if part is not None) else "float"


def _check_width(step: float, low: float, high: float) -> None:
    width = Fraction(str(high)) - Fraction(str(low))
    if Fraction(str(step)) > width:
        raise ValueError(f"{step:g} is wider than the range, {float(width):g}")
    if width / Fraction(str(step)) > _MOST_STEPS:
        raise ValueError(f"{step:g} makes more than {_MOST_STEPS} steps; leave it out")
