"""The base of every section of a specification."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A part of a specification: no unknown keys, no silent conversions, immutable."""

    # Strict, because YAML has types already: "3" in quotes where a number belongs is a mistake, not a number.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _accept_whole_floats(cls, data: Any) -> Any:
        return {key: as_whole(value) for key, value in data.items()} if isinstance(data, dict) else data


def as_whole(value: Any) -> Any:
    """A whole float as int: YAML reads 1e3 as a float. Beyond 2**53 a float does not hold every whole number."""
    if isinstance(value, list):
        return [as_whole(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
