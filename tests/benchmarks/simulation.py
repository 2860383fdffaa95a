"""One search in simulated time: workers that train trials epoch by epoch, each epoch as long as the table says."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tests.benchmarks.curves.tasks import Task
from tests.benchmarks.searchers.base import Searcher

MOST_EPOCHS = 2
"""A simulation ends when so many times the budget's epochs have been trained, whatever a clock of seconds says."""


@dataclass(frozen=True)
class Course:
    """What became of one search.

    by_epochs, by_seconds: the regret when so many trainings' worth of epochs, and of seconds, had been spent.
    unreached: how many of the last columns by seconds show the regret at the end of the simulation instead, because so
    many seconds had not been spent by then.
    trials: how many configurations were trained.
    ask_seconds: the CPU time of all suggestions, in one thread.
    """

    by_epochs: list[float]
    by_seconds: list[float]
    unreached: int
    trials: int
    ask_seconds: float


@dataclass
class _Clock:
    """Regret read off when so many units have been spent."""

    marks: Sequence[float]
    unit: float
    spent: float = 0.0
    regrets: list[float] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return len(self.regrets) == len(self.marks)

    def advance(self, amount: float, regret: float) -> None:
        self.spent += amount
        while not self.ended and self.spent >= self.marks[len(self.regrets)] * self.unit:
            self.regrets.append(regret)

    def stop(self, regret: float) -> int:
        """Fill the marks that were not reached, and count them."""
        count = len(self.marks) - len(self.regrets)
        self.regrets += [regret] * count
        return count


class _Workers:
    """Workers that train at once. An epoch ends after its seconds; a free worker asks the searcher at once."""

    def __init__(self, task: Task, searcher: Searcher, count: int) -> None:
        self.ask_seconds = 0.0
        self.curves: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._task, self._searcher, self._count = task, searcher, count
        self._running: list[tuple[float, int, int, int]] = []  # end of the epoch, order, key, epoch
        self._order = 0
        self._fill(0.0)

    def next_epoch(self) -> tuple[float, float]:
        """Let the epoch end that ends first, and give its value and its seconds."""
        if not self._running:
            raise RuntimeError("the searcher has nothing to do, and nothing runs")
        now, _, key, epoch = heapq.heappop(self._running)
        values, seconds = self.curves[key]
        value = float(values[epoch - 1])
        if not self._searcher.report(key, epoch, value) and epoch < self._task.problem.epochs:
            self._train(now, key, epoch + 1)
        self._fill(now)
        return value, float(seconds[epoch - 1])

    def _fill(self, now: float) -> None:
        while len(self._running) < self._count:
            began = time.process_time()
            asked = self._searcher.ask()
            self.ask_seconds += time.process_time() - began
            if asked is None:
                return
            if asked.key not in self.curves:
                values, seconds = self._task.table.curves([asked.params])
                self.curves[asked.key] = values[0], np.diff(np.concatenate([[0.0], seconds[0]]))
            self._train(now, asked.key, asked.epochs_done + 1)

    def _train(self, now: float, key: int, epoch: int) -> None:
        self._order += 1
        ends = now + float(self.curves[key][1][epoch - 1])
        heapq.heappush(self._running, (ends, self._order, key, epoch))


def simulate(task: Task, searcher: Searcher, marks: Sequence[float], clocks: Sequence[str], workers: int) -> Course:
    """One search until the last of `marks` trainings' worth has been spent on each of `clocks` ("epochs", "seconds").

    A search that settles on cheap configurations trains many times the budget's epochs before it has spent the seconds.
    It is cut off at `MOST_EPOCHS` times the epochs: the regret there is an upper bound of what it would have had.
    """
    epochs = _Clock(marks, task.problem.epochs)
    seconds = _Clock(marks if "seconds" in clocks else (), task.seconds)
    pool, best, regret = _Workers(task, searcher, workers), -np.inf, np.inf
    while not epochs.ended or not (seconds.ended or epochs.spent >= MOST_EPOCHS * marks[-1] * epochs.unit):
        value, took = pool.next_epoch()
        best = max(best, value)
        regret = (task.best - best) / (task.best - task.worst)
        epochs.advance(1, regret)
        seconds.advance(took, regret)
    unreached = seconds.stop(regret)
    return Course(epochs.regrets, seconds.regrets, unreached, len(pool.curves), pool.ask_seconds)
