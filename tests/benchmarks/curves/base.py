"""What a table of learning curves looks like to `search_quality.py`. A new one is a module beside this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

Params = Mapping[str, float]


class Table(Protocol):
    """One task. A module gives TASKS (those to develop on), SPACE (the text of a search space in dialin's language,
    whose knobs are the parameters' names), EPOCHS, and `load(task) -> Table`."""

    def curves(self, configurations: Sequence[Params]) -> tuple[np.ndarray, np.ndarray]:
        """The metric (n, epochs), larger is better, and the seconds since the start (n, epochs)."""
