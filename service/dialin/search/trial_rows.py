"""Reads the trials of a study from its storage: all of them, or what may have changed since the last time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Protocol

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from dialin.errors import reading
from dialin.lifecycle import TrialState
from dialin.search import optuna_tables as tables
from dialin.search.decision import Decision
from dialin.search.old_rows import END, decision_of_old_row
from dialin.search.records import Observation, TrialRecord
from dialin.specification.findings import Finding

# The names of the attributes that a trial is stored with. They are in every database, so they can never change.
PARAMS, SEED, DECISION, CHECKPOINT, FINDINGS, METRICS, CONTINUES, REPEATED = (
    f"dialin:{key}"
    for key in ("params", "seed", "decision", "checkpoint", "findings", "metrics", "continues", "repeated")
)
OTHERS = "dialin:others:"
"""The attribute of an epoch, whose number follows, with what the search needs of it beside the first metric. One row an
epoch, as the first metric has, so that a report writes as much whatever the trial has reported before."""

IDS_AT_ONCE = 500
"""Trials read by one statement: SQLite takes a limited number of parameters."""
_UNFINISHED = (OptunaState.RUNNING, OptunaState.WAITING)
_UNFINISHED_NAMES = frozenset(state.name for state in _UNFINISHED)
_STATES = {
    OptunaState.WAITING: TrialState.WAITING,
    OptunaState.RUNNING: TrialState.RUNNING,
    OptunaState.COMPLETE: TrialState.COMPLETE,
    OptunaState.FAIL: TrialState.FAILED,
}
# The stored state and start time of a trial. As long as both are the same, and the trial is not running, nothing of it
# has changed.
_Stamp = tuple[str, object]
_ENDED: _Stamp = ("", None)


def read_trials(storage: BaseStorage, optuna_id: int) -> list[TrialRecord]:
    """Every trial of an Optuna study by number, read by Optuna's own methods."""
    trials = storage.get_all_trials(optuna_id, deepcopy=False)
    return sorted((_of_frozen(trial) for trial in trials), key=lambda record: record.number)


def read_study(storage: BaseStorage, study_id: str) -> list[TrialRecord]:
    """Every trial of the study of that id by number; none when the storage does not have the study."""
    return list(TrialReader(storage, study_id).read())


def read_finished(storage: BaseStorage, study_ids: Sequence[str]) -> list[Observation]:
    """The observations of other studies to learn from: their ended trials that have reported anything and did not
    fail."""
    records = [record for study_id in study_ids for record in read_study(storage, study_id)]
    ended = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.DIVERGED)
    return [
        Observation(record.params, record.values, record.state, record.others)
        for record in records
        if record.state in ended and record.values and record.params
    ]


class TrialReader:
    """Reads the trials of the study of that id again and again.

    The first `read` reads all of them; each later one reads what may have changed since: new trials, those that were
    running, and those that were paused and no longer are. A trial that has ended never changes again, which is Optuna's
    own rule. Not thread safe.
    """

    def __init__(self, storage: BaseStorage, study_id: str) -> None:
        self._storage, self._study_id = storage, study_id
        self._source: _Source | None = None
        self._last_id = -1
        self._unfinished: dict[int, _Stamp] = {}  # by the storage's own id
        self._by_number: dict[int, TrialRecord] = {}
        self._records: tuple[TrialRecord, ...] = ()
        self.bytes = 0  # an estimate of the memory that the records take

    def read(self) -> Sequence[TrialRecord]:
        """Every trial by number; none while the storage does not have the study.

        The result is the same object as long as nothing has changed, and so is the record of a trial that has not
        changed. Raises UnreadableError for rows that hold what no version has written.
        """
        with reading(f"the trials of study {self._study_id}"):
            return self._read_on()

    def _read_on(self) -> Sequence[TrialRecord]:
        if self._source is None and (source := _source(self._storage, self._study_id)) is not None:
            self._source = source
        found = list(self._source.changed(self._last_id, self._unfinished)) if self._source is not None else []
        has_changed = False
        for trial_id, stamp, record in found:
            self._last_id = max(self._last_id, trial_id)
            if stamp[0] in _UNFINISHED_NAMES:
                self._unfinished[trial_id] = stamp
            else:
                self._unfinished.pop(trial_id, None)
            before = self._by_number.get(record.number)
            if before != record:
                self.bytes += _bytes_of(record) - (_bytes_of(before) if before is not None else 0)
                self._by_number[record.number] = record
                has_changed = True
        if has_changed:
            self._records = tuple(self._by_number[number] for number in sorted(self._by_number))
        return self._records


def _bytes_of(record: TrialRecord) -> int:
    """An estimate of the memory of a record; each of the parts was measured."""
    text = len(record.decision.detail if record.decision is not None else "") + len(record.checkpoint or "")
    return (
        900
        + text
        + 64 * (len(record.params) + len(record.values) * (1 + len(record.others)) + len(record.metrics))
        + 900 * len(record.findings)
    )


class _Source(Protocol):
    def changed(self, last_id: int, unfinished: Mapping[int, _Stamp]) -> Iterable[tuple[int, _Stamp, TrialRecord]]:
        """The trials with an id above `last_id`, and those of `unfinished` that may have changed since their stamp: the
        storage's id, the stamp now, and the record of each."""


def _source(storage: BaseStorage, study_id: str) -> _Source | None:
    try:
        optuna_id = storage.get_study_id_from_name(study_id)
    except KeyError:
        return None
    if isinstance(storage, RDBStorage) and tables.are_known(storage):
        return _Tables(storage.engine, optuna_id)
    return _Methods(storage, optuna_id)


class _Methods:
    """Reads any storage by Optuna's own methods."""

    def __init__(self, storage: BaseStorage, optuna_id: int) -> None:
        self._storage, self._id = storage, optuna_id
        self._numbers = 0  # of trials that were read

    def changed(self, last_id: int, unfinished: Mapping[int, _Stamp]) -> Iterable[tuple[int, _Stamp, TrialRecord]]:
        count = self._storage.get_n_trials(self._id)
        known = self._numbers
        self._numbers = count
        if known == 0:
            trials = self._storage.get_all_trials(self._id, deepcopy=False)
        else:
            new = [self._storage.get_trial_id_from_study_id_trial_number(self._id, n) for n in range(known, count)]
            trials = [self._storage.get_trial(trial_id) for trial_id in (*unfinished, *new)]
        return [(trial._trial_id, (trial.state.name, trial.datetime_start), _of_frozen(trial)) for trial in trials]


class _Tables:
    """Reads a database by statements that select what is needed. Optuna's methods read every row of every trial that
    has not ended, with five statements a trial and an object a row."""

    def __init__(self, engine: sa.Engine, optuna_id: int) -> None:
        self._engine, self._id = engine, optuna_id

    def changed(self, last_id: int, unfinished: Mapping[int, _Stamp]) -> Iterable[tuple[int, _Stamp, TrialRecord]]:
        with self._engine.connect() as connection:
            stamps = self._stamps(connection, last_id)
            # Stamps are read before the rows that they stand for: if a row changes in between, its stamp differs at the
            # next read, and the trial is read again.
            changed = [
                trial_id
                for trial_id, stamp in stamps.items()
                if stamp[0] == OptunaState.RUNNING.name or unfinished.get(trial_id) != stamp
            ]
            changed += sorted(unfinished.keys() - stamps.keys())  # those have ended
            for ids in _chunks(changed):
                for trial_id, record in self._records(connection, ids):
                    yield trial_id, stamps.get(trial_id, _ENDED), record

    def _stamps(self, connection: sa.Connection, last_id: int) -> dict[int, _Stamp]:
        """The stamps of the new trials and of those that have not ended, unconverted: thousands may be paused."""
        columns, raw = tables.TRIALS.c, sa.types.NullType()
        query = sa.select(
            columns.trial_id, sa.type_coerce(columns.state, raw), sa.type_coerce(columns.datetime_start, raw)
        ).where(columns.study_id == self._id, (columns.trial_id > last_id) | columns.state.in_(_UNFINISHED))
        return {trial_id: (state, started) for trial_id, state, started in connection.execute(query)}

    def _records(self, connection: sa.Connection, ids: Sequence[int]) -> Iterator[tuple[int, TrialRecord]]:
        columns = tables.TRIALS.c
        names = ("trial_id", "number", "state", "datetime_start", "datetime_complete")
        rows = list(connection.execute(sa.select(*(columns[name] for name in names)).where(columns.trial_id.in_(ids))))
        attributes: dict[int, dict[str, str]] = {trial_id: {} for trial_id in ids}
        values: dict[int, dict[int, float]] = {trial_id: {} for trial_id in ids}
        table = tables.ATTRIBUTES.c
        for trial_id, key, text in connection.execute(
            sa.select(table.trial_id, table.key, table.value_json).where(table.trial_id.in_(ids))
        ):
            attributes[trial_id][key] = text
        table = tables.REPORTED.c
        value_of = tables.models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
        for trial_id, step, value, kind in connection.execute(
            sa.select(table.trial_id, table.step, table.intermediate_value, table.intermediate_value_type).where(
                table.trial_id.in_(ids)
            )
        ):
            values[trial_id][step] = value_of(value, kind)
        for row in rows:
            own = attributes[row.trial_id]
            if PARAMS not in own:  # a trial that another program has stored here
                own[PARAMS] = json.dumps(dict(_params(connection, row.trial_id)))
            yield row.trial_id, _readable(row, own, values[row.trial_id])


def _readable(row: Any, attributes: Mapping[str, str], values: Mapping[int, float]) -> TrialRecord:
    """The record of a trial; where its attributes cannot be read, a record that says so."""
    times = (_seconds(row.datetime_start), _seconds(row.datetime_complete))
    try:
        stored = {key: _loaded(text) for key, text in attributes.items()}
        return _record(row.number, row.state, stored, values, *times)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        decision = Decision("fail", "unreadable", detail=str(error))
        stored = {DECISION: decision.to_data(), PARAMS: {}}
        return _record(row.number, row.state, stored, values, *times)


def _chunks(found: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(found), IDS_AT_ONCE):
        yield found[start : start + IDS_AT_ONCE]


def _params(connection: sa.Connection, trial_id: int) -> Iterator[tuple[str, Any]]:
    table = tables.PARAMS.c
    query = sa.select(table.param_name, table.param_value, table.distribution_json)
    for name, value, text in connection.execute(query.where(table.trial_id == trial_id)):
        yield name, json_to_distribution(text).to_external_repr(value)


def _seconds(stored: datetime | None) -> float | None:
    """Seconds since 1970 of a stored time, which Optuna keeps in UTC without a time zone."""
    return None if stored is None else stored.replace(tzinfo=UTC).timestamp()


def _of_frozen(trial: FrozenTrial) -> TrialRecord:
    started = trial.datetime_start.timestamp() if trial.datetime_start else None
    ended = trial.datetime_complete.timestamp() if trial.datetime_complete else None
    stored = {PARAMS: trial.params, **trial.user_attrs}
    return _record(trial.number, OptunaState(trial.state), stored, trial.intermediate_values, started, ended)


def _record(
    number: int,
    state: OptunaState,
    stored: Mapping[str, Any],
    values: Mapping[int, float],
    started_at: float | None,
    ended_at: float | None,
) -> TrialRecord:
    decision = _decision(state, stored)
    checkpoint = stored.get(CHECKPOINT) or {}
    continues = stored.get(CONTINUES) or {}
    return TrialRecord(
        number=number,
        state=decision.state if decision is not None and state is OptunaState.PRUNED else _STATES[state],
        params=_interned(stored[PARAMS]),
        seed=stored.get(SEED, 0),
        values=dict(sorted(values.items())),
        decision=decision,
        checkpoint=checkpoint.get("path"),
        checkpoint_epoch=checkpoint.get("epoch", 0),
        metrics=_interned(stored.get(METRICS, {})),
        findings=tuple(Finding(**found) for found in stored.get(FINDINGS, ())),
        started_at=started_at,
        ended_at=ended_at,
        continues=continues.get("trial"),
        began=continues.get("epochs", 0),
        repeated=stored.get(REPEATED, 0),
        others=_others(stored),
    )


def _others(stored: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """The curves of what was stored of each epoch beside the first metric, by name."""
    curves: dict[str, dict[int, float]] = {}
    epochs = sorted(int(key[len(OTHERS) :]) for key in stored if key.startswith(OTHERS))
    for epoch in epochs:
        for name, value in stored[f"{OTHERS}{epoch}"].items():
            curves.setdefault(name, {})[epoch] = float(value)
    return curves


def _decision(state: OptunaState, stored: Mapping[str, Any]) -> Decision | None:
    """The decision that ended a trial; None while it has not ended."""
    if DECISION in stored:
        return Decision.from_data(stored[DECISION])
    if not state.is_finished():
        return None
    ended = TrialState(stored.get(END, TrialState.STOPPED)) if state is OptunaState.PRUNED else _STATES[state]
    return decision_of_old_row(ended, stored)


def _interned(stored: Mapping[str, Any]) -> dict[str, Any]:
    """A copy whose names are shared between trials: all trials of a study have the same, which take memory once."""
    return dict(zip(_names(tuple(stored)), stored.values(), strict=True))


@lru_cache(maxsize=256)
def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    return names


def _loaded(text: str) -> Any:
    """The same as `json.loads` for what `json.dumps` has written, with no space around it, in half the time: a study
    has tens of thousands of attributes."""
    value, end = _DECODER.raw_decode(text)
    if end != len(text):
        raise ValueError(f"{text[end : end + 20]!r} follows the value")
    return value


_DECODER = json.JSONDecoder()
