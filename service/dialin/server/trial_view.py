"""The trials of a study as they were at one look, and what follows from them."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, overload

from dialin.lifecycle import TrialState
from dialin.search.records import TrialRecord
from dialin.study_flow.views import RECORD_FIELDS, record_data

MOST_DERIVED = 64

T = TypeVar("T")


class TrialView:
    """Trials that do not change any more, for many who ask at once: what is worked out for one is there for the others.
    `records`: by number. Thread safe."""

    def __init__(self, records: Sequence[TrialRecord], maximize: bool) -> None:
        self.records, self.maximize = records, maximize
        self._lock = threading.RLock()
        self._derived: OrderedDict[Hashable, Any] = OrderedDict()
        self._columns: dict[str, Sequence[Any]] = {}

    def __len__(self) -> int:
        return len(self.records)

    @property
    def bytes(self) -> int:
        """About so much memory that the trials themselves do not take."""
        with self._lock:
            return sum(_size_of(value) for value in (*self._derived.values(), *self._columns.values()))

    def derived(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, worked out once for each key. Keys that nobody has asked for the longest are let go."""
        with self._lock:
            if key not in self._derived:
                made = make()
                self._derived[key] = made
                while len(self._derived) > MOST_DERIVED:
                    self._derived.popitem(last=False)
            self._derived.move_to_end(key)
            return cast("T", self._derived[key])

    def data(self, index: int) -> dict[str, Any]:
        """A trial for machines."""
        return record_data(self.records[index], self.maximize)

    def column(self, name: str) -> Sequence[Any]:
        """One field of all trials, as `data` has it."""
        found = self._columns.get(name)
        if found is None:
            read = RECORD_FIELDS[name]
            with self._lock:
                found = self._columns.setdefault(name, [read(record, self.maximize) for record in self.records])
        return found

    def counts(self) -> Mapping[str, int]:
        """How many trials are in each state."""

        def count() -> Mapping[str, int]:
            counted = Counter(record.state for record in self.records)
            return {state.value: counted[state] for state in TrialState}

        return self.derived("counts", count)

    def ordered(self, field: str, downwards: bool, states: Collection[str]) -> Sequence[int]:
        """Places in `records` by a field, the earlier trial first where two are level; what has no value comes last,
        whichever way they are sorted. `states`: those that are wanted; empty: all."""

        def order() -> Sequence[int]:
            values, state_of = self.column(field), self.column("state")
            wanted = [index for index in range(len(self)) if not states or state_of[index] in states]
            known = [index for index in wanted if values[index] is not None]
            known.sort(key=values.__getitem__, reverse=downwards)
            return [*known, *(index for index in wanted if values[index] is None)]

        return self.derived(("order", field, downwards, frozenset(states)), order)

    def rows(self, link: Callable[[int], str | None]) -> TrialRows:
        """All trials as mappings that work a field out when it is asked for; `link`: of a trial's number."""
        return TrialRows(self, [TrialRow(self, index, link) for index in range(len(self))])


class TrialRow(Mapping[str, Any]):
    """A trial as `TrialView.data` has it, with its link."""

    __slots__ = ("_index", "_link", "_view")

    def __init__(self, view: TrialView, index: int, link: Callable[[int], str | None]) -> None:
        self._view, self._index, self._link = view, index, link

    def __getitem__(self, name: str) -> Any:
        record = self._view.records[self._index]
        if name == "link":
            return self._link(record.number)
        if name in _COLUMNS:
            return self._view.column(name)[self._index]
        return RECORD_FIELDS[name](record, self._view.maximize)

    def __iter__(self) -> Iterator[str]:
        return iter((*RECORD_FIELDS, "link"))

    def __len__(self) -> int:
        return len(RECORD_FIELDS) + 1


class TrialRows(Sequence[TrialRow]):
    """The rows of a view. What follows from them is kept with that very view: by the time that it was worked out, the
    study may have another one."""

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


# Of all trials at once: what is sorted by asks each of them.
_COLUMNS = frozenset({"trial", "state", "value", "best_epoch", "loss", "epochs"})


def _size_of(value: object) -> int:
    if isinstance(value, str):
        return len(value)
    return 8 * len(value) if isinstance(value, list | tuple | dict) else 64
