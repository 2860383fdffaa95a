"""The life of studies: who they are, what was asked, where they stand. One row a study, in the studies' database.

What was tried and what came out is not here: that is the Optuna study's.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from dialin.errors import ConflictError, NotFoundError, did_you_mean
from dialin.lifecycle import StudyState
from dialin.store.database import connect
from dialin.store.tables import STUDIES
from dialin.texts import one_line

_ID_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # nothing that reads like another

HISTORY, WAITING_FOR = "history", "waiting_for"  # in a summary
MOST_PAST = 20  # entries of a history; the last ones


@dataclass(frozen=True)
class StudyRow:
    """One study. Times in seconds since 1970; `spec` is YAML; `summary` is what its driver last said of it, with a
    `history` of the drivers that it lost (`time`, `text`), and `waiting_for`, what its trials wait for just now.
    `damage`: what of the stored row could not be read; then a default stands in its place, for a state that of a failed
    study."""

    id: str
    name: str
    state: StudyState
    reason: str
    spec: str
    summary: Mapping[str, Any]
    created_at: float
    ended_at: float | None
    damage: str = ""

    def history(self) -> list[str]:
        """Why earlier drivers of the study are gone, a line each with the local time, the oldest first."""
        past = self.summary.get(HISTORY)
        told = [each for each in past if isinstance(each, dict)] if isinstance(past, list) else []
        return [f"{_moment(each.get('time'))} {each.get('text', '')}".strip() for each in told]


@dataclass(frozen=True)
class Standing:
    """Where a study stands, and since when; the least that tells one end of it from another."""

    id: str
    state: StudyState
    ended_at: float | None


class Studies:
    """The table of studies behind an SQLAlchemy URL, made on first use. A context manager: its connections are closed
    on the way out."""

    def __init__(self, url: str) -> None:
        self._engine = connect(url)

    @property
    def engine(self) -> sa.Engine:
        """For what else is in that database."""
        return self._engine

    def __enter__(self) -> Studies:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def create(self, name: str, spec: str) -> StudyRow:
        """A new study in state running, with an id made of its name and six random letters."""
        row = StudyRow(new_id(name), name, StudyState.RUNNING, "", spec, {}, time.time(), None)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(STUDIES).values(**columns_of(row)))
        return row

    def end(self, study_id: str, state: StudyState, reason: str, summary: Mapping[str, Any]) -> None:
        """Note how a driver left the study; its history stays. Raises NotFoundError for an unknown id."""
        kept = {HISTORY: past} if (past := self.get(study_id).summary.get(HISTORY)) else {}
        said = {**{name: value for name, value in summary.items() if name != WAITING_FOR}, **kept}
        ended = {"state": state.value, "reason": one_line(reason), "ended_at": time.time()}
        self._change(study_id, {**ended, "summary": json.dumps(said)})

    def go_on(self, study_id: str, spec: str, read: str | None = None) -> None:
        """Note that a study runs again, by this specification. `read`: the one that it was made from.

        Raises NotFoundError for an unknown id, ConflictError when the study has another one than `read` by now.
        """
        change = {"state": StudyState.RUNNING.value, "reason": "", "spec": spec, "ended_at": None}
        try:
            self._change(study_id, change, None if read is None else STUDIES.c.spec == read)
        except NotFoundError:
            self.get(study_id)
            raise ConflictError(f"study {study_id} has changed meanwhile; look at it and ask again") from None

    def find(self, reference: str) -> StudyRow:
        """The study of that id; or the newest one of that name; or `last`, the newest of all.

        Raises NotFoundError, which names the nearest known id.
        """
        rows = self.list()
        for row in rows:
            if reference in (row.id, row.name) or reference == "last":
                return row
        if not rows:
            raise NotFoundError(f"no study {reference!r}: there is none here yet")
        raise NotFoundError(f"no study {reference!r}: {did_you_mean(reference, [row.id for row in rows[:20]])}")

    def list(self) -> list[StudyRow]:
        """All studies, the newest first."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(STUDIES).order_by(STUDIES.c.created_at.desc()))
            return [row_of(dict(row._mapping)) for row in found]

    def get(self, study_id: str) -> StudyRow:
        """The study of that id. Raises NotFoundError."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(STUDIES).where(STUDIES.c.id == study_id)).one_or_none()
        if found is None:
            raise NotFoundError(f"no study {study_id!r}")
        return row_of(dict(found._mapping))

    def standings(self) -> Sequence[Standing]:
        """Of all studies, the newest first."""
        wanted = sa.select(STUDIES.c.id, STUDIES.c.state, STUDIES.c.ended_at).order_by(STUDIES.c.created_at.desc())
        with self._engine.connect() as connection:
            found = connection.execute(wanted)
            return [Standing(row.id, _state_of(row.state), row.ended_at) for row in found]

    def _change(self, study_id: str, values: Mapping[str, Any], where: sa.ColumnElement[bool] | None = None) -> None:
        mine = STUDIES.c.id == study_id if where is None else (STUDIES.c.id == study_id) & where
        with self._engine.begin() as connection:
            done = connection.execute(sa.update(STUDIES).where(mine).values(**values))
        if done.rowcount == 0:
            raise NotFoundError(f"no study {study_id!r}")

    def close(self) -> None:
        self._engine.dispose()


def _moment(seconds: object) -> str:
    shown = isinstance(seconds, float) and 0 <= seconds < 2**35
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if shown else ""  # type: ignore[arg-type]


def new_id(name: str) -> str:
    return f"{name.replace('_', '-')}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(6))}"


def columns_of(row: StudyRow) -> dict[str, Any]:
    columns = {**vars(row), "state": row.state.value, "summary": json.dumps(dict(row.summary))}
    del columns["damage"]
    return columns


def row_of(columns: Mapping[str, Any]) -> StudyRow:
    """The row in these columns. What cannot be read is named in `damage`: no row keeps the others from being read."""
    damage: list[str] = []
    if columns["state"] not in list(StudyState):
        damage.append(f"state {one_line(columns['state'], 40)!r}; allowed: {', '.join(StudyState)}")
    state = _state_of(columns["state"])
    summary = _read_summary(columns["summary"], damage)
    created_at = number(columns, "created_at", 0.0, damage)
    ended_at = None if columns["ended_at"] is None else number(columns, "ended_at", 0.0, damage)
    study_id, name, reason, spec = (str(columns[name]) for name in ("id", "name", "reason", "spec"))
    return StudyRow(study_id, name, state, reason, spec, summary, created_at, ended_at, "; ".join(damage))


def _state_of(text: str) -> StudyState:
    """What cannot be read as a state is that of a failed study: nothing is done about it until somebody resumes it."""
    return StudyState(text) if text in list(StudyState) else StudyState.FAILED


def number(columns: Mapping[str, Any], name: str, otherwise: float, damage: list[str]) -> float:
    """A column's number; `otherwise`, and a word in `damage`, where it holds none: SQLite takes any text in a column of
    numbers."""
    value = columns[name]
    if isinstance(value, int | float) and value == value:
        return value
    damage.append(f"{name} {one_line(value, 40)!r} is no number")
    return otherwise


def _read_summary(text: object, damage: list[str]) -> dict[str, Any]:
    try:
        summary = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        damage.append(f"summary is not JSON: {one_line(error, 100)}")
        return {}
    if not isinstance(summary, dict):
        damage.append(f"summary {one_line(text, 40)!r} is no object")
        return {}
    wrong = [name for name, fits in _SUMMARY.items() if summary.get(name) is not None and not fits(summary[name])]
    damage += [f"{name} in its summary is {one_line(summary[name], 40)!r}" for name in wrong]
    return {name: value for name, value in summary.items() if name not in wrong}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _maps_to_numbers(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_number, value.values()))


def _is_best(value: object) -> bool:
    return isinstance(value, dict) and _is_number(value.get("value")) and isinstance(value.get("trial", 0), int)


def _are_looks(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(look, dict) and isinstance(look.get("trial"), int) and _maps_to_numbers(look.get("values"))
        for look in value
    )


# What is read of a summary, and what it has to be.
_SUMMARY: Mapping[str, Callable[[object], bool]] = {
    "seconds": _is_number,
    "trials": _maps_to_numbers,
    "test": _maps_to_numbers,
    "test_looks": _are_looks,
    "best": _is_best,
    "metric": lambda value: isinstance(value, str),
}
