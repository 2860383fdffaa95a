"""A server's answers as the models of `dialin.schemas`, and lists of them as tables."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, TypeAdapter, ValidationError

from dialin.client.http import Connection
from dialin.errors import NotFoundError, ProtocolError
from dialin.schemas import Study, Trial

Model = TypeVar("Model", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel | list[Any])
_QUOTED = 80  # characters of an unreadable answer that an error message quotes


def read_answer(model: type[Answer], data: Any, what: str) -> Answer:
    """A model, or a list of models, from an answer's JSON; fields that only a newer server knows are ignored.

    Raises ProtocolError, which names `what` the answer should have been and its first wrong field.
    """
    try:
        return TypeAdapter(model).validate_python(data)
    except ValidationError as error:
        raise ProtocolError(f"the server answers with {what} that cannot be read: {_first(error)}") from error


def read_study(model: type[Model], data: Any) -> Model:
    """As `read_answer`, for a study in short or in full, whose id must be one that can be asked for."""
    study = read_answer(model, data, "a study")
    try:
        study_path(str(study.id) if isinstance(study, Study) else "")
    except NotFoundError as error:
        raise ProtocolError(f"the server answers with a study that cannot be read: {error}") from error
    return study


def pages(connection: Connection, path: str, key: str, query: Mapping[str, Any]) -> Iterator[Any]:
    """The entries of every page of a list, asked for page by page. Raises ProtocolError for an answer that is no page
    and for one whose next page is itself."""
    asked: dict[str, Any] = {name: value for name, value in query.items() if value is not None}
    while True:
        page = connection.json("GET", path, params=asked)
        entries = page.get(key) if isinstance(page, dict) else None
        if not isinstance(entries, list):
            raise ProtocolError(f"the server was asked for a page of {key} and answered {str(page)[:_QUOTED]!a}")
        yield from entries
        following = page.get("next")
        if not following:
            return
        if following == asked.get("cursor"):
            raise ProtocolError(f"{path}: the server's page {following!r} leads to itself")
        asked["cursor"] = following


def study_path(study_id: str) -> str:
    """The path of a study on the server. Raises NotFoundError for a text that is neither an id nor a name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", study_id):
        raise NotFoundError(f"no study {study_id!r}; allowed in an id: letters, digits, '-', '_' and '.'")
    return f"/studies/{quote(study_id, safe='')}"


def trial_row(trial: Trial) -> dict[str, Any]:
    """A trial as a row of a table: its fields, each knob as `params_NAME`. With several metrics or constraints, what
    counts is `metrics_NAME`; without, the row has no column for them."""
    data = trial.model_dump(mode="json")
    params = {f"params_{name}": value for name, value in data.pop("params").items()}
    metrics = {f"metrics_{name}": value for name, value in data.pop("metrics", {}).items()}
    return {**data, **metrics, **params}


def table(rows: list[dict[str, Any]]) -> Any:
    """A pandas DataFrame where pandas is installed, else the rows themselves."""
    if importlib.util.find_spec("pandas") is None:
        return rows
    import pandas

    return pandas.DataFrame(rows)


def _first(error: ValidationError) -> str:
    """The first field that is wrong, and how."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{place!r} is missing"
    return f"{place}: {first['msg']}" if place else first["msg"]
