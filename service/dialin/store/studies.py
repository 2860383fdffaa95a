"""The table of studies: their ids, specifications and states. It has one row for each study.

The trials and their values are not here: they are in the Optuna study of the same id, in the same database.
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
from dialin.store.database import Tables
from dialin.store.tables import STUDIES
from dialin.texts import one_line

Clock = Callable[[], float]
"""Returns seconds since 1970."""

_ID_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # without characters that are easily confused, such as 0 and o

HISTORY, WAITING_FOR = "history", "waiting_for"  # keys of a summary
MOST_PAST = 20  # entries of a history that are kept, the newest


@dataclass(frozen=True)
class StudyRow:
    """A study as it is stored."""

    id: str
    name: str
    state: StudyState
    """FAILED in place of a state that cannot be read."""
    reason: str
    """Why the study is in its state, in one line; may be empty."""
    spec: str
    """The specification, as YAML."""
    summary: Mapping[str, Any]
    """What the driver last wrote about the study. `history` lists why its earlier drivers ended (`time`, `text`);
    `waiting_for` says what its trials are waiting for."""
    created_at: float
    """Seconds since 1970."""
    ended_at: float | None
    """Seconds since 1970; None while the study has not ended."""
    damage: str = ""
    """Which values of the row could not be read and were replaced by defaults; empty if all could be read."""

    def history(self) -> list[str]:
        """Return why the earlier drivers of the study are gone: a line for each, with the local time, oldest first."""
        past = self.summary.get(HISTORY)
        entries = [each for each in past if isinstance(each, dict)] if isinstance(past, list) else []
        return [f"{_local_time(each.get('time'))} {each.get('text', '')}".strip() for each in entries]


@dataclass(frozen=True)
class Standing:
    """The state of a study and the time of its end: enough to notice that it has ended, or ended again."""

    id: str
    state: StudyState
    ended_at: float | None
    """Seconds since 1970; None while the study has not ended."""


class Studies(Tables):
    """The table of studies behind an SQLAlchemy URL. Thread safe; a context manager, which closes its connections.

    `clock`: where the times of changes come from. Every method raises DatabaseError for a database that is damaged,
    gone or of another version.
    """

    def __init__(self, url: str, clock: Clock = time.time) -> None:
        super().__init__(url)
        self._clock = clock

    def create(self, name: str, spec: str) -> StudyRow:
        """Add a study in state RUNNING, with an id made of its name and six random letters, and return it."""
        row = StudyRow(new_id(name), name, StudyState.RUNNING, "", spec, {}, self._clock(), None)
        with self._engine.begin() as connection:
            connection.execute(sa.insert(STUDIES).values(**columns_of(row)))
        return row

    def end(self, study_id: str, state: StudyState, reason: str, summary: Mapping[str, Any]) -> None:
        """Record the state, the reason and the summary with which a driver leaves a study. Its history is kept. Raises
        NotFoundError for an unknown id."""
        kept = {HISTORY: past} if (past := self.get(study_id).summary.get(HISTORY)) else {}
        whole = {**{name: value for name, value in summary.items() if name != WAITING_FOR}, **kept}
        ended = {"state": state.value, "reason": one_line(reason), "ended_at": self._clock()}
        self._change(study_id, {**ended, "summary": json.dumps(whole)})

    def mark_running(self, study_id: str, spec: str, read: str | None = None) -> None:
        """Record that a study runs again, with this specification. `read`: the one that the new one was made from.

        Raises NotFoundError for an unknown id, and ConflictError if the study's specification is no longer `read`.
        """
        change = {"state": StudyState.RUNNING.value, "reason": "", "spec": spec, "ended_at": None}
        try:
            self._change(study_id, change, None if read is None else STUDIES.c.spec == read)
        except NotFoundError:
            self.get(study_id)
            raise ConflictError(
                f"study {study_id} was changed by another command at the same time; check its state and try again"
            ) from None

    def find(self, reference: str) -> StudyRow:
        """Return the study with this id, else the newest one with this name; `last` is the newest of all.

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
        """Return all studies, the newest first."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(STUDIES).order_by(STUDIES.c.created_at.desc()))
            return [row_of(dict(row._mapping)) for row in found]

    def get(self, study_id: str) -> StudyRow:
        """Return the study with this id. Raises NotFoundError."""
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(STUDIES).where(STUDIES.c.id == study_id)).one_or_none()
        if found is None:
            raise NotFoundError(f"no study {study_id!r}")
        return row_of(dict(found._mapping))

    def standings(self) -> Sequence[Standing]:
        """Return the standing of every study, the newest study first."""
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


def _local_time(seconds: object) -> str:
    if not isinstance(seconds, float) or not 0 <= seconds < 2**35:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def new_id(name: str) -> str:
    """Return a new id for a study of this name."""
    return f"{name.replace('_', '-')}-{''.join(secrets.choice(_ID_ALPHABET) for _ in range(6))}"


def columns_of(row: StudyRow) -> dict[str, Any]:
    """Return the columns that a study is stored in."""
    columns = {**vars(row), "state": row.state.value, "summary": json.dumps(dict(row.summary))}
    del columns["damage"]
    return columns


def row_of(columns: Mapping[str, Any]) -> StudyRow:
    """Return the study in these columns. Values that cannot be read get a default and are named in `damage`: one
    damaged row must not make the others unreadable."""
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
    """Return the state; FAILED for a text that is not a state, so that the study is left unchanged until it is
    resumed."""
    return StudyState(text) if text in list(StudyState) else StudyState.FAILED


def number(columns: Mapping[str, Any], name: str, otherwise: float, damage: list[str]) -> float:
    """Return the number in a column. If the value is not a number, which SQLite allows in any column, return
    `otherwise` and add a sentence to `damage`."""
    value = columns[name]
    if isinstance(value, int | float) and value == value:
        return value
    damage.append(f"{name} {one_line(value, 40)!r} is not a number")
    return otherwise


def _read_summary(text: object, damage: list[str]) -> dict[str, Any]:
    try:
        summary = json.loads(str(text))
    except (ValueError, RecursionError) as error:
        damage.append(f"summary is not JSON: {one_line(error, 100)}")
        return {}
    if not isinstance(summary, dict):
        damage.append(f"summary {one_line(text, 40)!r} is not an object")
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


def _are_test_records(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, dict) and isinstance(each.get("trial"), int) and _maps_to_numbers(each.get("values"))
        for each in value
    )


# The keys of a summary that are read, each with a check of its value.
_SUMMARY: Mapping[str, Callable[[object], bool]] = {
    "seconds": _is_number,
    "trials": _maps_to_numbers,
    "test": _maps_to_numbers,
    "test_looks": _are_test_records,
    "best": _is_best,
    "metric": lambda value: isinstance(value, str),
}
