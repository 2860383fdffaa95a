"""What a table of learning curves looks like to `search_quality.py`. A new one is a module beside this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dialin.specification.domains import Scalar

Params = Mapping[str, Any]


class Table(Protocol):
    """One task."""

    def curves(self, configurations: Sequence[Params]) -> tuple[np.ndarray, np.ndarray]:
        """The metric (n, epochs), larger is better, and the seconds since the start (n, epochs)."""


class Module(Protocol):
    """What a module of a table gives, in capitals where it is the same for all tasks."""

    TASKS: tuple[str, ...]
    """The tasks to develop on."""
    JUDGING: tuple[str, ...]
    """The tasks to judge by: nothing may be tuned on them."""
    OBJECTIVE: str
    """The objective of the space in dialin's language."""
    MARKS: tuple[int, ...]
    """After how many full trainings' worth regret is read."""
    CLOCKS: tuple[str, ...]
    """What a training's worth is counted in: "epochs", and "seconds" where they mean something."""
    WORST: float
    """The quantile of random configurations that has the regret 1."""
    CLIMBS: int
    """How often steps are made around the best configurations in search of the best one known."""
    MOVED: tuple[float, ...]
    """The fractions of the knobs that such a step moves, in turns."""
    PRIORS: tuple[str, ...]
    """What a search may be told about good values; the first is what is measured when nothing else is asked for."""

    RANDOM_CONFIGURATIONS: int
    """How many configurations a prior is found among."""

    def space(self, task: str) -> str:
        """The text of the search space in dialin's language, whose knobs are the parameters' names."""

    def epochs(self, task: str) -> int:
        """How long a full training is."""

    def load(self, task: str) -> Table: ...

    def centres(self, task: str, kind: str, seed: int, configurations: Sequence[Params]) -> dict[str, Scalar]:
        """The prior of that kind, a value for each knob, told by these random configurations. Only where PRIORS has
        "good" and "bad"."""
