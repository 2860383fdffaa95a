"""Writes the trials of one Optuna study, with what belongs together in one transaction.

Optuna's own storage commits each value and each attribute separately, after a look at the row: a trial of nine epochs
is fifteen transactions. Here the same rows are written together, and Optuna reads them as its own (tests compare them).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import sqlalchemy as sa
from optuna.distributions import distribution_to_json
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from dialin.search import optuna_tables as tables
from dialin.search.optuna_tables import models

CONSTRAINTS = "constraints:"
"""How Optuna names the system attributes with a trial's constraints."""
_ENDED = [state for state in TrialState if state.is_finished()]


class TrialWriter(Protocol):
    """Writes the trials of one study. Outside of `batch` each change is stored when the call returns; inside, all of
    them when the outermost batch ends, or none. Not thread safe; one writer a study at a time."""

    def create(self, trial: FrozenTrial, number: int) -> int:
        """Store a new trial with its parameters and attributes, at once even inside a batch, and return the storage's
        id of it. A crash leaves either no trial or a whole one."""

    def set_value(self, trial_id: int, epoch: int, value: float) -> None:
        """Store the value of an epoch that was not reported before."""

    def set_attribute(self, trial_id: int, key: str, value: object) -> None:
        """Store an attribute, in place of the value that it had."""

    def set_state(self, trial_id: int, state: TrialState, *values: float) -> None:
        """Change the state of a trial; `values`: its final values, one for each direction of the study. Raises Optuna's
        UpdateFinishedTrialError for a trial that has ended."""

    def set_constraint(self, trial_id: int, name: str, excess: float) -> None:
        """Store by how much a trial violates a constraint, in the form that Optuna knows; at most 0: it holds."""

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Store what is written inside the block together. Blocks may be nested."""
        yield


def make_trial_writer(storage: BaseStorage, study_id: int) -> TrialWriter:
    """The fastest writer that is safe for a storage."""
    if isinstance(storage, RDBStorage) and tables.are_known(storage):
        return SqlTrialWriter(storage, study_id)
    return OptunaTrialWriter(storage, study_id)


class OptunaTrialWriter:
    """Over any storage, by Optuna's own methods: for one in memory, and for tables that are not known. A batch is not
    one transaction here."""

    def __init__(self, storage: BaseStorage, study_id: int) -> None:
        self._storage, self._study_id = storage, study_id

    def create(self, trial: FrozenTrial, number: int) -> int:
        """Store the trial by one call, which Optuna makes one transaction."""
        return self._storage.create_new_trial(self._study_id, trial)

    def set_value(self, trial_id: int, epoch: int, value: float) -> None:
        """Store the value in a transaction of its own."""
        self._storage.set_trial_intermediate_value(trial_id, epoch, value)

    def set_attribute(self, trial_id: int, key: str, value: object) -> None:
        """Store the attribute in a transaction of its own."""
        self._storage.set_trial_user_attr(trial_id, key, value)

    def set_state(self, trial_id: int, state: TrialState, *values: float) -> None:
        """Change the state in a transaction of its own."""
        self._storage.set_trial_state_values(trial_id, state, list(values) or None)

    def set_constraint(self, trial_id: int, name: str, excess: float) -> None:
        """Store the constraint in a transaction of its own."""
        self._storage.set_trial_system_attr(trial_id, f"{CONSTRAINTS}{name}", excess)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Nothing: every change in the block is stored at once."""
        yield


@dataclass
class _Changes:
    """The changes of a batch that are not stored yet."""

    values: dict[tuple[int, int], float] = field(default_factory=dict)
    attributes: dict[tuple[int, str], object] = field(default_factory=dict)
    constraints: dict[tuple[int, str], float] = field(default_factory=dict)
    states: list[tuple[int, TrialState, Sequence[float]]] = field(default_factory=list)


class SqlTrialWriter:
    """Over a database whose tables are known, with one transaction a batch.

    Raises sqlalchemy's IntegrityError for an epoch that has a value already, and its OperationalError where the
    database cannot be written.
    """

    def __init__(self, storage: RDBStorage, study_id: int) -> None:
        self._engine, self._study_id = storage.engine, study_id
        self._changes = _Changes()
        self._depth = 0

    def create(self, trial: FrozenTrial, number: int) -> int:
        """Insert the trial's row with those of its parameters and attributes in one transaction."""
        with self._engine.begin() as connection:
            row = {"number": number, "study_id": self._study_id, "state": trial.state, "datetime_start": _now()}
            (trial_id,) = connection.execute(sa.insert(tables.TRIALS).values(**row)).inserted_primary_key or (0,)
            params = [
                {
                    "trial_id": trial_id,
                    "param_name": name,
                    "param_value": distribution.to_internal_repr(trial.params[name]),
                    "distribution_json": distribution_to_json(distribution),
                }
                for name, distribution in trial.distributions.items()
            ]
            attributes = [_attribute(trial_id, key, value) for key, value in trial.user_attrs.items()]
            _insert(connection, tables.PARAMS, params)
            _insert(connection, tables.ATTRIBUTES, attributes)
        return int(trial_id)

    def set_value(self, trial_id: int, epoch: int, value: float) -> None:
        """Insert the value with the batch."""
        with self.batch():
            self._changes.values[trial_id, epoch] = value

    def set_attribute(self, trial_id: int, key: str, value: object) -> None:
        """Replace the attribute with the batch."""
        with self.batch():
            self._changes.attributes[trial_id, key] = value

    def set_state(self, trial_id: int, state: TrialState, *values: float) -> None:
        """Change the state with the batch, after its values and attributes."""
        with self.batch():
            self._changes.states.append((trial_id, state, values))

    def set_constraint(self, trial_id: int, name: str, excess: float) -> None:
        """Insert the constraint with the batch."""
        with self.batch():
            self._changes.constraints[trial_id, f"{CONSTRAINTS}{name}"] = excess

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Write the changes when the outermost block ends; drop them if it raises."""
        self._depth += 1
        try:
            yield
            if self._depth == 1:
                self._write(self._changes)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._changes = _Changes()

    def _write(self, changes: _Changes) -> None:
        if not (changes.values or changes.attributes or changes.constraints or changes.states):
            return
        with self._engine.begin() as connection:
            values = [_value(trial_id, epoch, value) for (trial_id, epoch), value in changes.values.items()]
            _insert(connection, tables.REPORTED, values)
            _replace_attributes(connection, changes.attributes)
            constraints = [_attribute(trial_id, key, value) for (trial_id, key), value in changes.constraints.items()]
            _insert(connection, tables.SYSTEM_ATTRIBUTES, constraints)
            for trial_id, state, final in changes.states:
                _set_state(connection, trial_id, state, final)


def _insert(connection: sa.Connection, table: Any, rows: Sequence[Mapping[str, object]]) -> None:
    # Without rows sqlalchemy would insert one of default values.
    if rows:
        connection.execute(sa.insert(table), rows)


def _replace_attributes(connection: sa.Connection, changed: Mapping[tuple[int, str], object]) -> None:
    table = tables.ATTRIBUTES
    before = [{"id": trial_id, "name": key} for trial_id, key in changed]
    if before:
        same = (table.c.trial_id == sa.bindparam("id")) & (table.c.key == sa.bindparam("name"))
        connection.execute(sa.delete(table).where(same), before)
    _insert(connection, table, [_attribute(trial_id, key, value) for (trial_id, key), value in changed.items()])


def _set_state(connection: sa.Connection, trial_id: int, state: TrialState, values: Sequence[float]) -> None:
    times = {"datetime_complete": _now()} if state.is_finished() else {}
    if state is TrialState.RUNNING:
        times = {"datetime_start": _now()}
    unfinished = (tables.TRIALS.c.trial_id == trial_id) & tables.TRIALS.c.state.not_in(_ENDED)
    changed = connection.execute(sa.update(tables.TRIALS).where(unfinished).values(state=state, **times))
    if changed.rowcount != 1:
        raise UpdateFinishedTrialError(f"the trial with id {trial_id} has ended already, or does not exist")
    for objective, value in enumerate(values):
        stored, kind = models.TrialValueModel.value_to_stored_repr(value)
        row = {"trial_id": trial_id, "objective": objective, "value": stored, "value_type": kind}
        connection.execute(sa.insert(tables.FINAL).values(**row))


def _value(trial_id: int, epoch: int, value: float) -> dict[str, object]:
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"trial_id": trial_id, "step": epoch, "intermediate_value": stored, "intermediate_value_type": kind}


def _attribute(trial_id: int, key: str, value: object) -> dict[str, object]:
    return {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}


def _now() -> datetime:
    """The time as Optuna stores it: in UTC, without a time zone."""
    return datetime.now(UTC).replace(tzinfo=None)
