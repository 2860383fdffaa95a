"""The trials of a study at one moment, and what is computed from them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from cachetools import LRUCache

from dialin import schemas
from dialin.search.goals import Goals
from dialin.search.records import TrialRecord
from dialin.study_flow import schema_builder
from dialin.study_flow.schema_builder import TRIAL_FIELDS

MOST_DERIVED = 64

T = TypeVar("T")


class TrialView:
    """Trials that do not change any more. What is computed for one caller is there for the next. Thread safe."""

    def __init__(self, records: Sequence[TrialRecord], goals: Goals) -> None:
        self.records = records
        """The trials, by number."""
        self.goals = goals
        """The metrics, and whether a larger value is better; the constraints."""
        self._lock = threading.RLock()
        self._derived: LRUCache[Hashable, Any] = LRUCache(MOST_DERIVED)
        self._columns: dict[str, Sequence[Any]] = {}

    def __len__(self) -> int:
        return len(self.records)

    @property
    def bytes(self) -> int:
        """About how much memory it takes, without the trials themselves."""
        with self._lock:
            return sum(_size_of(value) for value in (*self._derived.values(), *self._columns.values()))

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` computes, once for each key; results that were not asked for longest are dropped."""
        with self._lock:
            if key not in self._derived:
                self._derived[key] = make()
            return cast("T", self._derived[key])

    def trial(self, index: int, link: str | None) -> schemas.Trial:
        """The trial at that place of `records`. `link`: its run in MLflow."""
        return schema_builder.trial(self.records[index], self.goals, link)

    def column(self, name: str) -> Sequence[Any]:
        """One field of `schemas.Trial`, of all trials."""
        found = self._columns.get(name)
        if found is None:
            read = TRIAL_FIELDS[name]
            with self._lock:
                found = self._columns.setdefault(name, [read(record, self.goals) for record in self.records])
        return found

    def ordered(self, field: str, reverse: bool, states: Collection[str], metric: str | None = None) -> Sequence[int]:
        """Places in `records`, sorted by a field; of equal trials the earlier one first, and those without a value last
        in both directions. `states`: only trials in these; empty: all. `metric`: which of the `metrics` to sort by."""

        def order() -> Sequence[int]:
            values, state_of = self._values(field, metric), self.column("state")
            wanted = [index for index in range(len(self)) if not states or state_of[index] in states]
            known = [index for index in wanted if values[index] is not None]
            known.sort(key=values.__getitem__, reverse=reverse)
            return [*known, *(index for index in wanted if values[index] is None)]

        return self.derived(("order", field, metric, reverse, frozenset(states)), order)

    def _values(self, field: str, metric: str | None) -> Sequence[Any]:
        """What trials are sorted by."""
        values = self.column(field)
        return values if metric is None else [None if named is None else named.get(metric) for named in values]

    def rows(self, link: Callable[[int], str | None]) -> TrialRows:
        """All trials as mappings. `link`: the run in MLflow of a trial, by its number."""
        return TrialRows(self, [TrialRow(self, index, link) for index in range(len(self))])


class TrialRow(Mapping[str, Any]):
    """A trial with the fields of `schemas.Trial`, each of which is made when it is asked for.

    The page shows few fields of thousands of trials; models of all of them would take seconds.
    """

    __slots__ = ("_index", "_link", "_view")

    def __init__(self, view: TrialView, index: int, link: Callable[[int], str | None]) -> None:
        self._view, self._index, self._link = view, index, link

    def __getitem__(self, name: str) -> Any:
        record = self._view.records[self._index]
        if name == "link":
            return self._link(record.number)
        if name in _COLUMNS:
            return self._view.column(name)[self._index]
        return TRIAL_FIELDS[name](record, self._view.goals)

    def __iter__(self) -> Iterator[str]:
        return iter((*TRIAL_FIELDS, "link"))

    def __len__(self) -> int:
        return len(TRIAL_FIELDS) + 1


class TrialRows(Sequence[TrialRow]):
    """The rows of a view.

    `derived` keeps its results with that very view: by the time that one is computed, the study may have a newer view.
    """

    def __init__(self, view: TrialView, rows: Sequence[TrialRow]) -> None:
        self._rows, self.derived = rows, view.derived

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[TrialRow]:
        return iter(self._rows)

    @overload
    def __getitem__(self, index: int) -> TrialRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[TrialRow]: ...
    def __getitem__(self, index: int | slice) -> TrialRow | Sequence[TrialRow]:
        return self._rows[index]


# Fields that are asked of all trials at once, to sort or to count them.
_COLUMNS = frozenset({"trial", "state", "value", "best_epoch", "loss", "epochs", "metrics", "violated"})


def _size_of(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    return 8 * len(value) if isinstance(value, list | tuple | dict) else 64
