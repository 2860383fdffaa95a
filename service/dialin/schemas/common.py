"""What the models of several files share: pages of long lists, errors."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["max", "min"]
Params = dict[str, str | int | float | bool | None]


def is_none(value: object) -> bool:
    """Whether a field is left out of the JSON: those that are about several metrics or constraints only."""
    return value is None


class Page(BaseModel):
    """A part of a long list."""

    next: str | None = Field(description="The cursor that the next page is asked for with; null on the last page.")


class Problem(BaseModel):
    """One thing that is wrong with a specification."""

    path: str = Field(description="Where in the specification, such as space.lr.min.")
    line: int | None = Field(description="The line of the specification, from 1.")
    message: str


class ProblemDocument(BaseModel):
    """An error, as RFC 9457 describes it; `code` and `errors` are dialin's own."""

    type: str
    title: str
    status: int
    code: str = Field(description="The kind of the error, such as invalid_spec or not_found.")
    detail: str = Field(description="What happened, to what, and what is allowed.")
    errors: list[Problem] = Field(description="Everything that is wrong with a specification, by path and line.")

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "about:blank",
                "title": "Unprocessable Content",
                "status": 422,
                "code": "invalid_spec",
                "detail": "line 4: space.lr.min: 0 is not above 0, as a log range must be",
                "errors": [{"path": "space.lr.min", "line": 4, "message": "0 is not above 0, as a log range must be"}],
            }
        }
    )
